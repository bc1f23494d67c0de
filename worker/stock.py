"""What RQ's own worker calls, so that `rq worker --serializer json event:<id>` runs the same code."""

from __future__ import annotations

from collections.abc import Sequence

from rq import get_current_job

from shared.clock import Clock, SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.errors import OnsaleError
from shared.line.codec import WaitingCommand
from shared.line.connections import connect
from shared.line.consumer import NO_CLAIM, Completion, Consumer, GiveBack, job_words
from shared.records import CommandPayload, JobResult, job_result
from shared.settings import load_settings
from worker.batch import apply_to_database

_BATCHES_MAX = 10_000


def apply_command(event_id: str, payload: CommandPayload) -> JobResult:
    """Apply the current RQ job, and before it whatever stands before it in the line.

    RQ has popped the job from its own list; the line still has it, so a crash here loses nothing. What is
    applied is what was accepted: `payload` is the same text, and is not trusted.

    Raises:
        OnsaleError: the job was not accepted by the API, or a server does not answer.
    """
    job = get_current_job()
    if job is None:
        raise OnsaleError("apply_command runs as an RQ job only")
    settings = load_settings()
    clock = SystemClock()
    database = Database(settings, connections_max=1)
    client = connect(settings)
    try:
        consumer = Consumer(client, settings, worker_name=job.worker_name or "rq")
        return _apply_until(job.id, event_id, database, consumer, clock)
    finally:
        client.close()
        database.close()


def _apply_until(
    job_id: str, event_id: str, database: Database, consumer: Consumer, clock: Clock
) -> JobResult:
    for _ in range(_BATCHES_MAX):
        waiting = _up_to(job_id, consumer.peek(event_id).commands)
        if not waiting:
            break
        results = _apply(waiting, event_id, database, consumer, clock)
        if job_id in results:
            return results[job_id]
    return _recorded(job_id, database)


def _up_to(job_id: str, commands: Sequence[WaitingCommand]) -> Sequence[WaitingCommand]:
    """The commands up to and with this one: just this one where it heads the line."""
    for index, command in enumerate(commands):
        if command.command.id == job_id:
            return commands[: index + 1]
    return commands


def _apply(
    waiting: Sequence[WaitingCommand],
    event_id: str,
    database: Database,
    consumer: Consumer,
    clock: Clock,
) -> dict[str, JobResult]:
    started_at = clock.now()
    batch = apply_to_database(database, clock, event_id, waiting, NO_CLAIM)
    completion = Completion(
        job_words=job_words(batch.results),
        view=batch.view,
        applied_position=batch.applied_position,
        started_at=started_at,
        ended_at=clock.now(),
    )
    consumer.complete(event_id, NO_CLAIM, completion, GiveBack.IF_EMPTY)
    return dict(batch.results)


def _recorded(job_id: str, database: Database) -> JobResult:
    with database.transaction() as connection:
        entry = statements.find_ledger_records(connection, [job_id]).get(job_id)
    if entry is None:
        raise OnsaleError("this job was not accepted by the API, so it has no place in the line")
    return job_result(entry)
