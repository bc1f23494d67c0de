"""The work on one event from claim to release: batch after batch, several at once where the line is long."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opentelemetry.trace import Tracer

from shared import limits
from shared.clock import Clock
from shared.database.engine import Database
from shared.domain import JobStatus
from shared.errors import DatabaseUnavailable, EventLocked
from shared.line.codec import WaitingCommand
from shared.line.consumer import Claim, Completion, Consumer, GiveBack, Peeked, job_words
from shared.log import log_event
from shared.settings import Settings
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.memory import Memory
from worker.phases import Phase, Phases
from worker.plan import Plan, Planning, plan_ahead
from worker.spans import tell_spans
from worker.watch import tell_batch

logger = logging.getLogger(__name__)

DATABASE_CONNECTIONS_MAX = 2
"""One writes; over the other, which is opened when it is needed, what comes behind in a long line is read."""

BATCHES_BESIDE_MAX = 2
"""Batches of a long line that threads work on while one is decided: one is written, one completed."""

_BUSY_COMMANDS_MIN = 20
"""So many commands that came during one batch say that more are coming."""


@dataclass(slots=True)
class Tally:
    """What a worker has done since its birth."""

    applied: int = 0
    failed: int = 0
    working_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """What a worker works with.

    `beside` has `BATCHES_BESIDE_MAX` threads. `stopping` is set when the worker is to end.
    """

    database: Database
    consumer: Consumer
    clock: Clock
    settings: Settings
    tracer: Tracer | None
    memory: Memory
    tally: Tally
    planning: Planning
    beside: Executor
    stopping: threading.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class _Applied:
    """A batch that the database holds, when that was, and how many seconds it took."""

    batch: AppliedBatch
    started_at: datetime
    ended_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writing:
    """A batch on its way to the database, in a thread; with a plan it is known what that will hold."""

    commands: Sequence[WaitingCommand]
    plan: Plan | None
    applied: Future[_Applied]


class Stretch:
    """The work on one event under one claim."""

    def __init__(self, context: WorkerContext, claim: Claim) -> None:
        self._context = context
        self._claim = claim
        self._began_at = context.clock.monotonic_seconds()
        self._batches = 0
        self._in_hand: deque[Sequence[WaitingCommand]] = deque()
        self._writing: _Writing | None = None
        self._completing: Future[Peeked | None] | None = None

    def work(self) -> None:
        """Apply batch after batch until the line is empty, the stretch is over or the claim is lost.

        Raises:
            StaleClaim, EventLocked, EventBlocked: the event is to be left alone for now.
            DatabaseUnavailable, LineUnavailable: a server does not answer.
        """
        claim, consumer = self._claim, self._context.consumer
        try:
            peeked: Peeked | None = claim.peeked
            while peeked is not None:
                if peeked.has_stray:
                    self._remove_strays()
                if not peeked.commands or self._context.stopping.is_set():
                    consumer.release(claim.event_id, claim.token)
                    return
                peeked = self._work_off(peeked.commands)
        finally:
            self._wait_for_threads()
            self._tell_of_the_last()

    def _work_off(self, commands: Sequence[WaitingCommand]) -> Peeked | None:
        """Apply these commands, and those behind them as long as the line is long; gives what comes next."""
        commands_max = self._context.settings.batch_commands_max
        if len(commands) < commands_max:
            applied = self._apply(commands, None)
            return self._complete_last(self._completion(applied))
        size = math.ceil(commands_max / (BATCHES_BESIDE_MAX + 1))
        self._in_hand = deque(commands[start : start + size] for start in range(0, len(commands), size))
        return self._work_off_long()

    def _work_off_long(self) -> Peeked | None:
        """Apply what is in hand, and what comes to hand, three batches at once.

        While PostgreSQL writes one, that before it is completed in Redis and that behind it is decided here.
        So two more have to be in hand when one is completed: the completion looks at what comes behind them,
        and the first look at the line was cut for that.
        """
        planning, clock = self._context.planning, self._context.clock
        writing: _Writing | None = self._write_next(None)
        while writing is not None:
            plan = writing.plan
            next_plan = None if plan is None else self._plan_next(plan)
            applied = writing.applied.result()
            if plan is None or applied.batch is not plan.batch:
                if plan is not None and plan.guesses:
                    planning.pause_guesses(clock, limits.REFUSED_GUESS_PAUSE_SECONDS)
                # It is committed, so all that users hold can be read. What it says of them may be a guess.
                next_plan = self._plan_next(applied.batch)
            if self._context.stopping.is_set():
                # What is being written is finished; the rest still waits.
                self._in_hand.clear()
            writing = self._write_next(next_plan)
            completion = self._completion(applied)
            self._take_in_hand()
            if writing is not None:
                skip = len(writing.commands) + sum(map(len, self._in_hand))
                self._completing = self._context.beside.submit(self._complete, completion, skip=skip)
        return self._complete_last(completion)

    def _write_next(self, plan: Plan | None) -> _Writing | None:
        """Begin to write the next batch in hand, which may be planned; None if there is none."""
        self._writing = None
        if not self._in_hand:
            return None
        commands = self._in_hand.popleft()
        applied = self._context.beside.submit(self._apply, commands, plan)
        self._writing = _Writing(commands=commands, plan=plan, applied=applied)
        return self._writing

    def _plan_next(self, before: Plan | AppliedBatch) -> Plan | None:
        """The next batch in hand as it follows that one, which may still be written; None if nobody can say.

        Where the database does not answer, or not soon, as when it has no second connection for us, work goes
        on without plans for a while.
        """
        context, claim = self._context, self._claim
        if not self._in_hand or not context.planning.may_decide_ahead(context.clock):
            return None
        try:
            return plan_ahead(
                context.database, context.clock, context.planning, before, self._in_hand[0], claim.token
            )
        except (DatabaseUnavailable, EventLocked) as error:
            context.planning.pause(context.clock)
            log_event(
                logger,
                logging.WARNING,
                "deciding ahead paused",
                event_id=claim.event_id,
                reason=error,
                pause_seconds=limits.PLANS_PAUSE_SECONDS,
            )
            return None

    def _take_in_hand(self) -> None:
        """Take over what the last completion has found behind what is in hand.

        Where the line is no longer ours, or a stray heads RQ's list, nothing more is begun. All of it still
        waits.
        """
        if self._completing is None:
            return
        behind = self._completing.result()
        self._completing = None
        if behind is None or behind.has_stray:
            self._in_hand.clear()
        elif behind.commands:
            self._in_hand.append(behind.commands)

    def _apply(self, commands: Sequence[WaitingCommand], plan: Plan | None) -> _Applied:
        """Apply a batch to the database; perhaps in a thread."""
        context, claim = self._context, self._claim
        started_at = context.clock.now()
        started_seconds = context.clock.monotonic_seconds()
        batch = apply_to_database(
            context.database, context.clock, claim.event_id, commands, claim.token, context.memory, plan
        )
        return _Applied(
            batch=batch,
            started_at=started_at,
            ended_at=context.clock.now(),
            seconds=context.clock.monotonic_seconds() - started_seconds,
        )

    def _completion(self, applied: _Applied) -> Completion:
        """Count and tell of a batch; gives what Redis is to be told."""
        batch = applied.batch
        self._batches += 1
        self._tell(applied)
        return Completion(
            job_words=job_words(batch.results),
            view=batch.view,
            applied_position=batch.applied_position,
            started_at=applied.started_at,
            ended_at=applied.ended_at,
        )

    def _tell(self, applied: _Applied) -> None:
        """Count a batch, and log it where somebody will look for it."""
        tell_batch(self._claim.token, applied.batch, ended_at=applied.ended_at)
        tracer, tally = self._context.tracer, self._context.tally
        if tracer is not None:
            tell_spans(tracer, applied.batch, started_at=applied.started_at, ended_at=applied.ended_at)
        recorded = applied.batch.recorded
        # What was applied before was counted then.
        results = [result for job_id, result in applied.batch.results if job_id not in recorded]
        failed = sum(1 for result in results if result["status"] == JobStatus.FAILED)
        tally.applied += len(results) - failed
        tally.failed += failed
        tally.working_seconds += applied.seconds

    def _complete(self, completion: Completion, *, skip: int = 0) -> Peeked | None:
        """Complete a batch in the line; perhaps in a thread."""
        phases = Phases(self._context.clock)
        claim = self._claim
        behind = self._context.consumer.complete(
            claim.event_id, claim.token, completion, self._when_to_give_back(), skip=skip
        )
        phases.end(Phase.COMPLETE)
        return behind

    def _complete_last(self, completion: Completion) -> Peeked | None:
        """Complete a batch behind which nothing is in hand; gives what has come meanwhile.

        Waits a moment where commands come fast and the next batch is small: it costs as much as a big one.
        Where few come, or many wait, nobody is kept waiting.
        """
        context = self._context
        peeked = self._complete(completion)
        if peeked is None:
            return None
        if not _BUSY_COMMANDS_MIN <= len(peeked.commands) < context.settings.batch_commands_max // 4:
            return peeked
        context.stopping.wait(context.settings.linger_ms / 1000)
        return context.consumer.peek(self._claim.event_id)

    def _when_to_give_back(self) -> GiveBack:
        """After a stretch others get their turn; where none wait, the event would only be claimed again."""
        settings = self._context.settings
        seconds = self._context.clock.monotonic_seconds() - self._began_at
        seconds_max = settings.stretch_seconds_max
        if self._context.stopping.is_set() or seconds >= max(seconds_max, limits.LONE_STRETCH_SECONDS_MAX):
            return GiveBack.ALWAYS
        if seconds >= seconds_max or self._batches >= settings.stretch_batches_max:
            return GiveBack.IF_OTHERS_WAIT
        return GiveBack.IF_EMPTY

    def _remove_strays(self) -> None:
        event_id = self._claim.event_id
        foreign = self._context.consumer.remove_strays(event_id)
        if foreign:
            log_event(logger, logging.WARNING, "foreign jobs failed", event_id=event_id, jobs=foreign)

    def _wait_for_threads(self) -> None:
        """Let nothing go on of an event that is somebody else's from now on, whatever has come of it."""
        begun: list[Future[Any]] = []
        if self._writing is not None:
            begun.append(self._writing.applied)
        if self._completing is not None:
            begun.append(self._completing)
        wait(begun)
        raised = sys.exception()
        for error in (each.exception() for each in begun):
            # One error ends the stretch and is logged by who called; another would be told by nobody.
            if error is not None and error is not raised:
                log_event(
                    logger,
                    logging.WARNING,
                    "another batch in work failed too",
                    event_id=self._claim.event_id,
                    reason=error,
                )

    def _tell_of_the_last(self) -> None:
        """Where something else ended the stretch, a batch may have been applied of which nothing was told."""
        if self._writing is not None and self._writing.applied.exception() is None:
            self._tell(self._writing.applied.result())
