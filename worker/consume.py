"""The loop of a worker: claim an event, work on it for a fair stretch, give it back, or sleep."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime

from opentelemetry.trace import Tracer

from shared import limits
from shared.clock import Clock
from shared.database.engine import Database
from shared.domain import JobStatus
from shared.errors import DatabaseUnavailable, EventBlocked, EventLocked, LineUnavailable, StaleClaim
from shared.line.codec import WaitingCommand
from shared.line.consumer import Claim, Completion, Consumer, GiveBack, Peeked, Sleeper
from shared.line.presence import Presence
from shared.log import log_event
from shared.settings import Settings
from worker.batch import AppliedBatch, apply_to_database
from worker.memory import Memory
from worker.phases import Phase, Phases
from worker.spans import tell_spans
from worker.watch import count_claim, count_given_up, tell_batch

logger = logging.getLogger(__name__)

_HEARTBEATS_PER_TTL = 4
_PAUSE_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 2.0

_BUSY_COMMANDS_MIN = 20
"""So many commands that came during one batch say that more are coming."""

_LOCKED_EVENT_SECONDS = 0.5
"""How long an event is left to whoever holds its row, for example a consumer that lost its claim."""

_BLOCKED_EVENT_SECONDS = 10.0
"""How long an event that can't move is left alone before it is tried again."""


assert _BLOCKED_EVENT_SECONDS < limits.READY_DELAY_SECONDS_MAX


@dataclass(slots=True)
class _Tally:
    """What a worker has done since its birth."""

    applied: int = 0
    failed: int = 0
    working_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Applied:
    """A batch that the database holds, when that was, and how many seconds it took."""

    batch: AppliedBatch
    started_at: datetime
    ended_at: datetime
    seconds: float


@dataclass(slots=True)
class _Stretch:
    """The work on one event from claim to release; `completing` is the batch on its way to Redis."""

    began_at: float
    batches: int = 0
    completing: Future[Peeked | None] | None = None


class Worker:
    """Applies the commands of one event at a time, of any number of events in turn, until it is stopped."""

    def __init__(
        self,
        database: Database,
        consumer: Consumer,
        sleeper: Sleeper,
        presence: Presence,
        clock: Clock,
        settings: Settings,
        tracer: Tracer | None = None,
    ) -> None:
        self._database = database
        self._consumer = consumer
        self._sleeper = sleeper
        self._presence = presence
        self._clock = clock
        self._settings = settings
        self._tracer = tracer
        self._memory = Memory()
        self._completer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="completer")
        self._stopping = threading.Event()
        self._tally = _Tally()
        self._next_heartbeat_at = 0.0
        self._next_sweep_at = 0.0
        self._pause_seconds = _PAUSE_SECONDS_MIN
        self._turned_at = clock.monotonic_seconds()

    def is_turning(self) -> bool:
        """Whether it has begun a round lately. For other threads."""
        return self._clock.monotonic_seconds() - self._turned_at < self._settings.worker_ttl_seconds

    def stop(self) -> None:
        """Ask the worker to finish its batch, give its event back and leave."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop` is called. Servers that are away are waited for; anything else is raised."""
        while not self._stopping.is_set():
            self._turned_at = self._clock.monotonic_seconds()
            try:
                self._turn()
                self._pause_seconds = _PAUSE_SECONDS_MIN
            except (LineUnavailable, DatabaseUnavailable) as error:
                log_event(
                    logger,
                    logging.WARNING,
                    "work interrupted, trying again",
                    reason=error,
                    pause_seconds=self._pause_seconds,
                )
                self._stopping.wait(self._pause_seconds)
                self._pause_seconds = min(self._pause_seconds * 2, _PAUSE_SECONDS_MAX)
        self._leave()

    def _turn(self) -> None:
        self._look_after_the_rest()
        claim = self._next_claim()
        if claim is None:
            return
        count_claim(taken_over=claim.taken_from is not None)
        if claim.taken_from is not None:
            log_event(
                logger,
                logging.WARNING,
                "event taken over",
                event_id=claim.event_id,
                token=claim.token,
                taken_from=claim.taken_from,
            )
        try:
            self._work_on(claim)
        except StaleClaim as stale:
            count_given_up("stale")
            log_event(
                logger, logging.WARNING, "stale claim given up", event_id=claim.event_id, token=claim.token
            )
            self._consumer.release(claim.event_id, claim.token, newest_token=stale.newest_token)
        except EventLocked as error:
            count_given_up("locked")
            log_event(logger, logging.WARNING, "event locked", event_id=claim.event_id, reason=error)
            self._consumer.release(claim.event_id, claim.token, delay_seconds=_LOCKED_EVENT_SECONDS)
        except EventBlocked as error:
            count_given_up("blocked")
            log_event(logger, logging.ERROR, "event blocked", event_id=claim.event_id, reason=error)
            self._consumer.release(claim.event_id, claim.token, delay_seconds=_BLOCKED_EVENT_SECONDS)
        except DatabaseUnavailable:
            count_given_up("database")
            self._consumer.release(claim.event_id, claim.token)
            raise

    def _next_claim(self) -> Claim | None:
        """A claim on an event that needs a consumer now, or on one that comes to need one during the wait."""
        phases = Phases(self._clock)
        claim = self._consumer.claim()
        if claim is None:
            return self._sleeper.wait(self._consumer)
        phases.end(Phase.CLAIM)
        return claim

    def _work_on(self, claim: Claim) -> None:
        """Apply batch after batch until the line is empty, the stretch is over or the claim is lost."""
        stretch = _Stretch(self._clock.monotonic_seconds())
        try:
            peeked: Peeked | None = claim.peeked
            while peeked is not None:
                if peeked.has_stray:
                    self._remove_strays(claim.event_id)
                if not peeked.commands:
                    self._consumer.release(claim.event_id, claim.token)
                    return
                peeked = self._work_off(claim, stretch, peeked.commands)
        finally:
            if stretch.completing is not None:
                wait([stretch.completing])

    def _work_off(self, claim: Claim, stretch: _Stretch, commands: Sequence[WaitingCommand]) -> Peeked | None:
        """Apply commands, and those behind them as long as the line is long; gives what comes next.

        Where a line is long, a batch is completed in Redis while the next is applied in PostgreSQL. The next
        is then known before the completion: the first peek is cut in two for that.
        """
        half = len(commands) // 2 if len(commands) >= self._settings.batch_commands_max > 1 else 0
        current, following = (commands[:half], commands[half:]) if half else (commands, ())
        while True:
            applied = self._apply(claim, current)
            stretch.batches += 1
            if stretch.completing is not None:
                behind = stretch.completing.result()
                following = () if behind is None or behind.has_stray else behind.commands
            give_back = self._when_to_give_back(stretch)
            if not following:
                stretch.completing = None
                peeked = self._complete(claim, applied, give_back)
                return self._let_it_grow(claim, peeked)
            stretch.completing = self._completer.submit(
                self._complete, claim, applied, give_back, skip=len(following)
            )
            current = following

    def _complete(
        self, claim: Claim, applied: _Applied, give_back: GiveBack, *, skip: int = 0
    ) -> Peeked | None:
        """Tell of a batch, and complete it in the line; perhaps in a thread, while the next is applied."""
        self._tell(claim, applied)
        phases = Phases(self._clock)
        behind = self._consumer.complete(
            claim.event_id,
            claim.token,
            Completion(
                results=applied.batch.results,
                view=applied.batch.view,
                applied_position=applied.batch.applied_position,
                started_at=applied.started_at,
                ended_at=applied.ended_at,
            ),
            give_back,
            skip=skip,
        )
        phases.end(Phase.COMPLETE)
        return behind

    def _let_it_grow(self, claim: Claim, peeked: Peeked | None) -> Peeked | None:
        """Wait a moment where commands come fast and the next batch is small: it costs as much as a big one.

        Where few come, or many wait, nobody is kept waiting.
        """
        settings = self._settings
        if peeked is None:
            return None
        if not _BUSY_COMMANDS_MIN <= len(peeked.commands) < settings.batch_commands_max // 4:
            return peeked
        self._stopping.wait(settings.linger_ms / 1000)
        return self._consumer.peek(claim.event_id)

    def _when_to_give_back(self, stretch: _Stretch) -> GiveBack:
        """After a stretch others get their turn; where none wait, the event would only be claimed again."""
        seconds = self._clock.monotonic_seconds() - stretch.began_at
        seconds_max = self._settings.stretch_seconds_max
        if self._stopping.is_set() or seconds >= max(seconds_max, limits.LONE_STRETCH_SECONDS_MAX):
            return GiveBack.ALWAYS
        if seconds >= seconds_max or stretch.batches >= self._settings.stretch_batches_max:
            return GiveBack.IF_OTHERS_WAIT
        return GiveBack.IF_EMPTY

    def _apply(self, claim: Claim, commands: Sequence[WaitingCommand]) -> _Applied:
        """Apply a batch to the database."""
        started_at = self._clock.now()
        started_seconds = self._clock.monotonic_seconds()
        batch = apply_to_database(
            self._database, self._clock, claim.event_id, commands, claim.token, self._memory
        )
        return _Applied(
            batch=batch,
            started_at=started_at,
            ended_at=self._clock.now(),
            seconds=self._clock.monotonic_seconds() - started_seconds,
        )

    def _tell(self, claim: Claim, applied: _Applied) -> None:
        """Count a batch, and log it where somebody will look for it."""
        tell_batch(claim.token, applied.batch, ended_at=applied.ended_at)
        if self._tracer is not None:
            tell_spans(self._tracer, applied.batch, started_at=applied.started_at, ended_at=applied.ended_at)
        results = applied.batch.results
        failed = sum(1 for _, result in results if result["status"] == JobStatus.FAILED)
        tally = self._tally
        tally.applied += len(results) - failed
        tally.failed += failed
        tally.working_seconds += applied.seconds

    def _remove_strays(self, event_id: str) -> None:
        foreign = self._consumer.remove_strays(event_id)
        if foreign:
            log_event(logger, logging.WARNING, "foreign jobs failed", event_id=event_id, jobs=foreign)

    def _look_after_the_rest(self) -> None:
        """What can be left for later when Redis refuses it, as it does when its memory is full.

        Later is when it is due again: Redis may be full for hours, and each try writes a line into the log.
        """
        try:
            self._heartbeat_if_due()
            self._sweep_if_due()
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "heartbeat or sweep put off", reason=error)

    def _sweep_if_due(self) -> None:
        now = self._clock.monotonic_seconds()
        if now < self._next_sweep_at:
            return
        self._next_sweep_at = now + self._settings.sweep_seconds
        found = self._consumer.sweep()
        if found:
            log_event(logger, logging.WARNING, "stranded events found", events=found)

    def _heartbeat_if_due(self) -> None:
        now = self._clock.monotonic_seconds()
        if now < self._next_heartbeat_at:
            return
        self._next_heartbeat_at = now + self._settings.worker_ttl_seconds / _HEARTBEATS_PER_TTL
        self._presence.heartbeat(
            applied=self._tally.applied,
            failed=self._tally.failed,
            working_seconds=self._tally.working_seconds,
        )

    def _leave(self) -> None:
        self._completer.shutdown()
        try:
            self._presence.leave()
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "left without taking the worker off RQ's list", reason=error)
