"""The API's side of the line: accept commands, read jobs and events. For an event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

import orjson
import redis.asyncio
from msgspec import Struct
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from shared import limits, metrics
from shared.clock import Clock, format_time, parse_time
from shared.errors import (
    EventNotFound,
    IdempotencyKeyReused,
    LineFull,
    LineUnavailable,
    OnsaleError,
    SalesNotOpen,
)
from shared.gathering import Gatherer, InTasks, Told
from shared.line import keys
from shared.line.codec import (
    UNREADABLE,
    Mark,
    decode_payload,
    decode_return_value,
    describe,
    encode_job_data,
    says_the_same,
)
from shared.line.connections import line_error, line_errors
from shared.line.link import Link, Words
from shared.line.scripts import ScriptName, script_digest, script_source
from shared.records import CommandPayload, EventRecord, EventView, JobResult, event_view
from shared.settings import Durability, Settings

_ACCEPTED, _KNOWN, _UNKNOWN_EVENT, _SALES_NOT_OPEN = 1, 2, -1, -3


class Submission(Struct, frozen=True, kw_only=True):
    """A command on its way to the line.

    `reply_to` is the channel that wants its result, or empty. `unchecked`: it may repeat a command that was
    applied so long ago that Redis has forgotten it, and PostgreSQL could not be asked. `trace` goes along to
    the ledger; empty for none.
    """

    job_id: str
    event_id: str
    payload: CommandPayload
    reply_to: str = ""
    unchecked: bool = False
    trace: str = ""


class Acceptance(Struct, frozen=True, kw_only=True):
    """The place that a command got in its event's line, for ever.

    `known`: it has had it before; the rest of the acceptance is then of now.
    """

    position: int
    applied: int
    rate: float | None
    accepted_at: datetime
    known: bool


class JobRecord(Struct, frozen=True, kw_only=True):
    """What Redis knows of a job. `result` is None while it waits.

    `rate` is in commands a second; None where nobody can tell, as in a line that stands still.
    """

    job_id: str
    event_id: str
    payload: CommandPayload | None
    position: int
    accepted_at: datetime
    applied: int
    rate: float | None
    result: JobResult | None


class Producer:
    """Accepts commands for an API process.

    Commands of concurrent requests are gathered and sent in one script call, so that under load one fsync
    serves many clients.
    """

    def __init__(
        self, client: redis.asyncio.Redis, enqueuer: redis.asyncio.Redis, clock: Clock, settings: Settings
    ) -> None:
        """Commands go over `enqueuer`, so that they don't wait for a connection behind those who read."""
        self._client = client
        self._link = Link(enqueuer, seconds_max=settings.redis_timeout_seconds)
        self._settings = settings
        self._clock = clock
        self._send_in_task: InTasks[Submission, Acceptance] = InTasks(
            self._send, ended=LineUnavailable("the process ends")
        )
        self._submissions: Gatherer[Submission, Acceptance] = Gatherer(
            self._send_in_task if settings.durable_replicas else self._send_at_once,
            group_max=limits.ENQUEUE_BATCH_MAX,
            waiting_max=limits.SUBMISSIONS_WAITING_MAX,
            too_many=LineUnavailable("too many commands wait for Redis"),
            # A call that waits for replicas holds up what is sent behind it.
            calls_max=1 if settings.durable_replicas else limits.ENQUEUE_CALLS_MAX,
        )
        self._read_job = client.register_script(script_source(ScriptName.READ_JOB))
        self._withdraw = client.register_script(script_source(ScriptName.WITHDRAW))
        self._seed_event = client.register_script(script_source(ScriptName.SEED_EVENT))

    async def submit(self, submission: Submission) -> Acceptance:
        """Put a command on its event's line; when this returns, Redis has it as durably as it is set to.

        A command that Redis knows by its id keeps the place that it has.

        Raises:
            EventNotFound: Redis does not know the event; `seed_event` tells it.
            SalesNotOpen: it is a booking that comes before the sales.
            LineFull: the line is as long as it may be.
            IdempotencyKeyReused: another command has this id.
            LineUnavailable: Redis does not answer, or too many commands wait for it already. The command
                may or may not have been accepted.
        """
        return await self._submissions.ask(submission)

    def submit_then(self, submission: Submission, tell: Callable[[Acceptance | Exception], None]) -> None:
        """Submit without a task that waits: `tell` is called with the place, or what `submit` would raise.

        Raises:
            LineUnavailable: too many commands wait for Redis already; nobody is told then.
        """
        self._submissions.ask_then(submission, tell)

    def _send_at_once(
        self, submissions: Sequence[Submission], tell: Callable[[Told[Acceptance]], None]
    ) -> None:
        """Send without a task, where Redis is connected and knows the script; else, and then, in one."""
        accepted_at = self._clock.now()
        started_seconds = self._clock.monotonic_seconds()

        def tell_of(answer: Any) -> None:
            if isinstance(answer, (RedisConnectionError, NoScriptError)):
                self._send_in_task(submissions, tell)
                return
            if isinstance(answer, RedisError):
                tell(line_error(answer))
                return
            told: Told[Acceptance]
            try:
                told = self._acceptances(submissions, answer, accepted_at, started_seconds)
            except Exception as error:
                told = error
            tell(told)

        try:
            is_sent = self._link.ask_then(self._enqueue(submissions, accepted_at), tell_of)
        except (RedisError, OSError, RuntimeError):
            # The connection has just been lost. If it is something else, the task will find it too.
            is_sent = False
        if not is_sent:
            self._send_in_task(submissions, tell)

    async def _send(self, submissions: Sequence[Submission]) -> list[Acceptance | OnsaleError]:
        accepted_at = self._clock.now()
        started_seconds = self._clock.monotonic_seconds()
        with line_errors():
            answers = await self._call_enqueue(self._enqueue(submissions, accepted_at))
        return self._acceptances(submissions, answers, accepted_at, started_seconds)

    def _enqueue(self, submissions: Sequence[Submission], accepted_at: datetime) -> Words:
        """The call of the script that gives these commands their places."""
        words: list[Any] = [
            "EVALSHA",
            script_digest(ScriptName.ENQUEUE),
            0,
            self._settings.line_length_max,
            format_time(accepted_at),
        ]
        for submission in submissions:
            words += (
                submission.job_id,
                submission.event_id,
                encode_job_data(submission.event_id, submission.payload),
                describe(submission.payload),
                submission.reply_to,
                Mark.UNCHECKED.value if submission.unchecked else "",
                submission.trace,
            )
        return words

    def _acceptances(
        self,
        submissions: Sequence[Submission],
        answers: list[Any],
        accepted_at: datetime,
        started_seconds: float,
    ) -> list[Acceptance | OnsaleError]:
        """What the script has answered, which is counted here."""
        metrics.ENQUEUE_SECONDS.observe(self._clock.monotonic_seconds() - started_seconds)
        _count_accepted(submissions, answers[::4])
        return [
            _acceptance(submission, answers[index * 4 : index * 4 + 4], accepted_at)
            for index, submission in enumerate(submissions)
        ]

    async def _call_enqueue(self, enqueue: Words) -> list[Any]:
        """With replicas asked for, done when they too have it on disk.

        Raises:
            LineUnavailable: fewer have it in time. It stands in the line all the same.
        """
        replicas = self._settings.durable_replicas
        if not replicas:
            [answers] = await self._ask(enqueue)
            return cast(list[Any], answers)
        wait_ms = int(self._settings.redis_timeout_seconds * limits.WAITAOF_SHARE * 1000)
        answers, (_, durable) = await self._ask(enqueue, ("WAITAOF", 1, replicas, wait_ms))
        if durable < replicas:
            raise LineUnavailable(f"{durable} of {replicas} replicas have the command on disk")
        return cast(list[Any], answers)

    async def _ask(self, *commands: Words) -> list[Any]:
        try:
            return await self._link.ask(*commands)
        except NoScriptError:
            await self._link.ask(("SCRIPT", "LOAD", script_source(ScriptName.ENQUEUE)))
            return await self._link.ask(*commands)

    async def withdraw(self, job_id: str) -> bool:
        """Note that the client takes a command back. Gives whether it waits; its result tells the rest.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            return bool(await self._withdraw(args=[job_id]))

    async def read_job(self, job_id: str, *, reply_to: str = "") -> JobRecord | None:
        """Read a job, or None if Redis does not have it (any more).

        While it is not done, its result will also be sent to the channel `reply_to`.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            found = await self._read_job(args=[job_id, reply_to])
        return _job_record(job_id, found) if found else None

    async def read_jobs(self, job_ids: Sequence[str], *, reply_to: str) -> list[JobRecord | None]:
        """Read jobs as `read_job` does, in one round trip; at most `JOBS_READ_AT_ONCE_MAX` of them.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        assert len(job_ids) <= limits.JOBS_READ_AT_ONCE_MAX
        with line_errors():
            async with self._client.pipeline(transaction=False) as pipeline:
                for job_id in job_ids:
                    await self._read_job(args=[job_id, reply_to], client=pipeline)
                answers = await pipeline.execute()
        return [
            _job_record(job_id, found) if found else None
            for job_id, found in zip(job_ids, answers, strict=True)
        ]

    async def read_event(self, event_id: str) -> tuple[EventView, int] | None:
        """An event as of its last applied batch, with the position applied last; None if Redis has none.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            pending = self._client.hmget(keys.EVENT + event_id, ["view", "applied"])
            view, applied = await cast(Any, pending)
        if view is None or applied is None:
            return None
        return cast(EventView, orjson.loads(view)), int(applied)

    async def seed_event(self, event: EventRecord) -> None:
        """Tell Redis of an event what PostgreSQL knows. Never takes positions back.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            await self._seed_event(args=seed_arguments(event))

    async def replicas_online(self) -> int:
        """How many replicas follow Redis.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            replication = await self._client.info("replication")
        return sum(
            1
            for name, value in replication.items()
            if name.startswith("slave") and isinstance(value, dict) and value.get("state") == "online"
        )

    async def durability(self) -> Durability | None:
        """How durably Redis keeps what it is given, or None if it doesn't tell.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            await cast(Any, self._client.ping())
            try:
                settings = await self._client.config_get("append*")
            except redis.exceptions.ResponseError:
                return None
        if settings.get("appendonly") != "yes":
            return Durability.NONE
        return Durability.ALWAYS if settings.get("appendfsync") == "always" else Durability.EVERYSEC


def _count_accepted(submissions: Sequence[Submission], codes: Sequence[int]) -> None:
    """One increment a kind, however many came together. What no version here knows counts as unknown."""
    counts: dict[str, int] = {}
    for submission, code in zip(submissions, codes, strict=True):
        if code == _ACCEPTED:
            kind = submission.payload["kind"]
            counts[kind] = counts.get(kind, 0) + 1
    for kind, count in counts.items():
        metrics.KIND_COUNTERS.get(kind, metrics.COUNT_UNKNOWN_KIND)(count)


def seed_arguments(event: EventRecord) -> list[Any]:
    """What the script takes that tells Redis of an event."""
    view = event_view(event)
    return [
        event.id,
        orjson.dumps(view),
        event.applied_position,
        event.fencing_token,
        view["sales_open_at"] or "",
    ]


def _acceptance(submission: Submission, answer: list[Any], accepted_at: datetime) -> Acceptance | OnsaleError:
    code, position, applied, last = answer
    if code == _ACCEPTED:
        rate = float(last) if last else None
        return Acceptance(position=position, applied=applied, rate=rate, accepted_at=accepted_at, known=False)
    if code == _UNKNOWN_EVENT:
        return EventNotFound()
    if code == _SALES_NOT_OPEN:
        return SalesNotOpen(last.decode())
    if code != _KNOWN:
        return LineFull()
    if not says_the_same(last, submission.event_id, submission.payload):
        return IdempotencyKeyReused()
    return Acceptance(position=position, applied=applied, rate=None, accepted_at=accepted_at, known=True)


def _job_record(job_id: str, found: list[Any]) -> JobRecord:
    data, created_at, position, event_id, return_value, applied, rate = found
    return JobRecord(
        job_id=job_id,
        event_id=event_id.decode(),
        payload=_payload_or_none(data),
        position=int(position),
        accepted_at=parse_time(created_at.decode()),
        applied=int(applied or 0),
        rate=float(rate) if rate else None,
        result=decode_return_value(return_value) if return_value else None,
    )


def _payload_or_none(data: bytes) -> CommandPayload | None:
    try:
        return decode_payload(data)
    except UNREADABLE:
        return None
