"""What a worker tells of its batches: sizes, outcomes, and the commands whose requests had an id."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from operator import attrgetter

from shared import limits, metrics
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand
from shared.log import log_event
from shared.records import JobResult
from shared.trace import read_trace
from worker.applied_batch import AppliedBatch

logger = logging.getLogger(__name__)

_TRACE = attrgetter("trace")


def count_claim(*, taken_over: bool) -> None:
    """Count a claim on an event."""
    metrics.CLAIMS.inc()
    if taken_over:
        metrics.TAKEOVERS.inc()


def count_given_up(reason: str) -> None:
    """Count a claim that ended without progress."""
    metrics.CLAIMS_GIVEN_UP.labels(reason).inc()


def tell_batch(token: int, batch: AppliedBatch, *, ended_at: datetime) -> None:
    """Count a batch that had been applied at this moment, and log it where somebody will look for it.

    One that had been applied before, whole, was counted then. It is logged again: perhaps nobody could.
    """
    if batch.entries:
        metrics.BATCH_COMMANDS.observe(len(batch.waiting))
        accepted_at = batch.waiting[0].accepted_at
        if accepted_at is not None:
            metrics.BATCH_WAIT_SECONDS.observe(max(0.0, (ended_at - accepted_at).total_seconds()))
    for outcome, commands in batch.outcomes.items():
        metrics.OUTCOME_COUNTERS[outcome](commands)
    _log_batch(token, batch)


def _log_batch(token: int, batch: AppliedBatch) -> None:
    event_id, waiting = batch.event_id, batch.waiting
    traced = [command for command in waiting if command.trace] if any(map(_TRACE, waiting)) else []
    if not traced and not logger.isEnabledFor(logging.DEBUG):
        return
    batch_id = new_id()
    log_event(
        logger,
        logging.DEBUG,
        "batch applied",
        event_id=event_id,
        batch_id=batch_id,
        token=token,
        commands=len(waiting),
        fresh=len(batch.entries),
        applied_position=batch.applied_position,
    )
    results = dict(batch.results)
    for command in islice(traced, limits.TRACED_COMMANDS_LOGGED_MAX):
        _log_command(event_id, batch_id, command, results)
    not_logged = len(traced) - limits.TRACED_COMMANDS_LOGGED_MAX
    if not_logged > 0:
        log_event(
            logger,
            logging.INFO,
            "more commands applied; the ledger has their traces",
            event_id=event_id,
            batch_id=batch_id,
            commands=not_logged,
        )


def _log_command(
    event_id: str, batch_id: str, command: WaitingCommand, results: Mapping[str, JobResult]
) -> None:
    trace = read_trace(command.trace)
    log_event(
        logger,
        logging.INFO,
        "command applied",
        event_id=event_id,
        batch_id=batch_id,
        job_id=command.command.id,
        position=command.position,
        outcome=results[command.command.id]["outcome"],
        request_id=None if trace is None else trace.request_id,
        traceparent=None if trace is None else trace.traceparent,
    )
