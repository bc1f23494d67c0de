"""The API's side of the line: accept commands, read jobs and events. For an event loop."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import redis.asyncio

from shared import limits
from shared.clock import Clock, format_time, parse_time
from shared.errors import EventNotFound, LineFull, LineUnavailable
from shared.line import keys
from shared.line.codec import decode_payload, decode_return_value, describe, encode_job_data
from shared.line.connections import line_errors
from shared.line.scripts import ScriptName, script_source
from shared.records import CommandPayload, EventView, JobResult
from shared.settings import Durability

_ACCEPTED, _UNKNOWN_EVENT = 1, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A command on its way to the line. `reply_to` is the channel that wants its result, or empty."""

    job_id: str
    event_id: str
    payload: CommandPayload
    reply_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """The place that a command got in its event's line, for ever."""

    position: int
    applied: int
    rate: float | None
    accepted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What Redis knows of a job. `result` is None while it waits; `rate` is in commands a second."""

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

    Commands of concurrent requests are gathered and sent in one script call (a group commit): while one
    call is on its way the next ones collect, so that under load one fsync serves many clients.
    """

    def __init__(self, client: redis.asyncio.Redis, clock: Clock, *, line_length_max: int) -> None:
        self._client = client
        self._clock = clock
        self._line_length_max = line_length_max
        self._waiting: deque[tuple[Submission, asyncio.Future[Acceptance]]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._enqueue = client.register_script(script_source(ScriptName.ENQUEUE))
        self._read_job = client.register_script(script_source(ScriptName.READ_JOB))
        self._seed_event = client.register_script(script_source(ScriptName.SEED_EVENT))

    async def submit(self, submission: Submission) -> Acceptance:
        """Put a command on its event's line; when this returns, Redis has it as durably as it is set to.

        Raises:
            EventNotFound: Redis does not know the event; `seed_event` tells it.
            LineFull: the line is as long as it may be.
            LineUnavailable: Redis does not answer, or too many commands wait for it already. The command
                may or may not have been accepted.
        """
        if len(self._waiting) >= limits.SUBMISSIONS_WAITING_MAX:
            raise LineUnavailable("too many commands wait for Redis")
        answer: asyncio.Future[Acceptance] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_waiting())
        return await answer

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), limits.ENQUEUE_BATCH_MAX)
                await self._send([self._waiting.popleft() for _ in range(count)])
        finally:
            self._sender = None

    async def _send(self, group: list[tuple[Submission, asyncio.Future[Acceptance]]]) -> None:
        accepted_at = self._clock.now()
        arguments: list[Any] = [self._line_length_max, format_time(accepted_at)]
        for submission, _ in group:
            arguments += (
                submission.job_id,
                submission.event_id,
                encode_job_data(submission.event_id, submission.payload),
                describe(submission.payload),
                submission.reply_to,
            )
        try:
            with line_errors():
                answers = await self._enqueue(args=arguments)
        except LineUnavailable as error:
            for _, future in group:
                _fail(future, LineUnavailable(str(error)))
            return
        except Exception as error:
            for _, future in group:
                _fail(future, error)
            raise
        for index, (_, future) in enumerate(group):
            code, position, applied, rate = answers[index * 4 : index * 4 + 4]
            if code == _ACCEPTED:
                _settle(future, position, applied, rate, accepted_at)
            else:
                _fail(future, EventNotFound() if code == _UNKNOWN_EVENT else LineFull())

    async def read_job(self, job_id: str, *, reply_to: str = "") -> JobRecord | None:
        """Read a job, or None if Redis does not have it (any more).

        While it is not done, its result will also be sent to the channel `reply_to`.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            found = await self._read_job(args=[job_id, reply_to])
        return _job_record(job_id, found) if found else None

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
        return cast(EventView, json.loads(view)), int(applied)

    async def seed_event(self, view: EventView, *, applied_position: int, fencing_token: int) -> None:
        """Tell Redis of an event what PostgreSQL knows. Never takes positions back.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            await self._seed_event(args=[view["id"], json.dumps(view), applied_position, fencing_token])

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


def _settle(
    future: asyncio.Future[Acceptance], position: int, applied: int, rate: bytes, accepted_at: datetime
) -> None:
    if not future.done():
        future.set_result(
            Acceptance(
                position=position,
                applied=applied,
                rate=float(rate) if rate else None,
                accepted_at=accepted_at,
            )
        )


def _fail(future: asyncio.Future[Acceptance], error: Exception) -> None:
    """A client that hung up has cancelled its future; nobody waits for the answer then."""
    if not future.done():
        future.set_exception(error)


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
    except (ValueError, TypeError, IndexError, RecursionError):
        return None
