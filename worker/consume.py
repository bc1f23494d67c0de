"""The loop of a worker: claim an event, work on it for a fair stretch, give it back, or sleep."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from opentelemetry.trace import Tracer

from shared import limits
from shared.clock import Clock
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable, EventBlocked, EventLocked, LineUnavailable, StaleClaim
from shared.line.consumer import Claim, Consumer, Sleeper
from shared.line.presence import Presence
from shared.log import log_event
from shared.settings import Settings
from worker.memory import Memory
from worker.phases import Phase, Phases
from worker.plan import Planning
from worker.stretch import BATCHES_BESIDE_MAX, Stretch, Tally, WorkerContext
from worker.watch import count_claim, count_given_up

logger = logging.getLogger(__name__)

_HEARTBEATS_PER_TTL = 4
_PAUSE_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 2.0

_LOCKED_EVENT_SECONDS = 0.5
"""How long an event is left to whoever holds its row, for example a consumer that lost its claim."""

_BLOCKED_EVENT_SECONDS = 10.0
"""How long an event that can't move is left alone before it is tried again."""


assert _BLOCKED_EVENT_SECONDS < limits.READY_DELAY_SECONDS_MAX


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
        self._consumer = consumer
        self._sleeper = sleeper
        self._presence = presence
        self._clock = clock
        self._settings = settings
        self._beside = ThreadPoolExecutor(max_workers=BATCHES_BESIDE_MAX, thread_name_prefix="beside")
        self._stopping = threading.Event()
        self._tally = Tally()
        self._context = WorkerContext(
            database=database,
            consumer=consumer,
            clock=clock,
            settings=settings,
            tracer=tracer,
            memory=Memory(),
            tally=self._tally,
            planning=Planning(),
            beside=self._beside,
            stopping=self._stopping,
        )
        self._next_heartbeat_at = 0.0
        self._next_sweep_at = 0.0
        self._pause_seconds = _PAUSE_SECONDS_MIN
        self._turned_at = clock.monotonic_seconds()
        self._has_looked = False
        self._is_waiting = False

    def is_turning(self) -> bool:
        """Whether it has begun a round lately. For other threads."""
        return self._clock.monotonic_seconds() - self._turned_at < self._settings.worker_ttl_seconds

    def stop(self) -> None:
        """Ask the worker to finish what it has in hand, give its event back and leave."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop` is called. Servers that are away are waited for; anything else is raised."""
        ending_wait = threading.Thread(target=self._end_wait_at_stop, name="end-wait", daemon=True)
        ending_wait.start()
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
        ending_wait.join()
        self._leave()

    def _end_wait_at_stop(self) -> None:
        """A stop need not wait until an idle worker looks around. A signal's handler must not ask Redis."""
        self._stopping.wait()
        try:
            if self._is_waiting:
                self._consumer.end_wait()
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "the wait for work is not cut short", reason=error)

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
            Stretch(self._context, claim).work()
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
        """A claim on an event that needs a consumer now, or on one that comes to need one during the wait.

        A wait ends with a look at what needs a consumer, so that one after the other needs none in between.
        """
        claim = None if self._has_looked else self._claim_now()
        if claim is None:
            claim = self._wait_for_claim()
        self._has_looked = claim is None
        return claim

    def _wait_for_claim(self) -> Claim | None:
        # In this order: who stops us either sees that we wait, or we see that we are to stop.
        self._is_waiting = True
        try:
            return None if self._stopping.is_set() else self._sleeper.wait(self._consumer)
        finally:
            self._is_waiting = False

    def _claim_now(self) -> Claim | None:
        phases = Phases(self._clock)
        claim = self._consumer.claim()
        if claim is not None:
            phases.end(Phase.CLAIM)
        return claim

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
        self._beside.shutdown()
        try:
            self._presence.leave()
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "left without taking the worker off RQ's list", reason=error)
