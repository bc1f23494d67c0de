"""The worker's side of the line: claim an event, peek at its head, complete what was applied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

import orjson
import redis

from shared import limits
from shared.clock import format_time
from shared.domain import JobStatus
from shared.line import keys
from shared.line.blocking_link import BlockingLink
from shared.line.codec import (
    WaitingCommand,
    decode_waiting_command,
    encode_exception,
    encode_return_value,
)
from shared.line.connections import line_errors
from shared.line.link import Words
from shared.line.scripts import ScriptName
from shared.records import EventView, JobResult
from shared.settings import Settings

NO_CLAIM = 0
"""The fencing token of a batch that is applied without a claim, by RQ's stock worker."""

_FOREIGN_JOB = "This job was not accepted by the API, so it has no place in the line and was not applied."


class GiveBack(StrEnum):
    """When a consumer gives its event back after a batch: in any case if nothing is left in its line.

    Others wait where an event needs a consumer now.
    """

    IF_EMPTY = "if-empty"
    IF_OTHERS_WAIT = "if-others-wait"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeked:
    """The head of a line, still in the line. `has_stray`: RQ's list is headed by what doesn't wait here."""

    commands: Sequence[WaitingCommand]
    has_stray: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to work on an event for a limited time, and the first batch.

    `taken_from` names the worker whose claim had passed its limit, if it was taken over.
    """

    event_id: str
    token: int
    taken_from: str | None
    peeked: Peeked


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an applied batch changes in Redis. `view` is None if the event does not exist."""

    job_words: Words
    view: EventView | None
    applied_position: int
    started_at: datetime
    ended_at: datetime


def job_words(results: Sequence[tuple[str, JobResult]]) -> Words:
    """Outcomes of jobs as Redis is told them.

    RQ knows two ends: a refusal by the rules is a finished job, only a failed command is a failed one.
    """
    finished: list[Any] = []
    failed: list[Any] = []
    for job_id, result in results:
        if result["status"] == JobStatus.FAILED:
            reason = result["detail"].get("reason", result["outcome"])
            failed += job_id, encode_return_value(result), encode_exception(reason)
        else:
            finished += job_id, encode_return_value(result)
    return [len(finished) // 2, *finished, *failed]


class Consumer:
    """Speaks to the line for one worker. Every call raises `LineUnavailable` if Redis does not answer."""

    def __init__(self, client: redis.Redis, settings: Settings, *, worker_name: str) -> None:
        self._client = client
        self._link = BlockingLink(client)
        self._settings = settings
        self._worker_name = worker_name
        self._wake_key = keys.WAKE_ONE + worker_name
        self._lease_ms = int(settings.lease_seconds * 1000)
        self._quiet_seconds = math.inf

    def claim(self) -> Claim | None:
        """Claim the event that needs a consumer most, or None if none does.

        An event whose consumer's claim has passed its limit comes first.
        """
        with line_errors():
            return self._found(self._link.call(ScriptName.CLAIM, *self._claim_arguments()))

    def claim_when_woken(self, sleeper: BlockingLink, *, seconds_max: float) -> Claim | None:
        """Wait until an event needs a consumer, at the latest for so long, and claim as `claim` does.

        The wait is as long as nothing needs a look: until somebody is woken, or what was seen at the last one
        is due, and no longer than a claim lasts that was made meanwhile. Both are one request, so that the
        claim costs no round trip after the wait. `sleeper` is a link of its own for this, whose time limit
        allows for the wait.
        """
        seconds = min(seconds_max, self._settings.lease_seconds, self._quiet_seconds)
        wait = ("BLPOP", self._wake_key, keys.WAKE, seconds)
        with line_errors():
            return self._found(sleeper.call_after(wait, ScriptName.CLAIM, *self._claim_arguments()))

    def end_wait(self) -> None:
        """End this worker's wait, or its next one if it does not wait now. For other threads."""
        with line_errors():
            pipeline = self._client.pipeline()
            pipeline.rpush(self._wake_key, "1")
            pipeline.expire(self._wake_key, limits.WAKE_ONE_TTL_SECONDS)
            pipeline.execute()

    def _found(self, found: Any) -> Claim | None:
        """What the script of a claim answers, which is how long nothing will need one if nothing does."""
        if isinstance(found, list):
            return _claim(found)
        self._quiet_seconds = math.inf if found is None else found / 1000
        return None

    def _claim_arguments(self) -> list[Any]:
        return [self._worker_name, self._lease_ms, self._settings.batch_commands_max]

    def peek(self, event_id: str) -> Peeked:
        """Look at the head of a line without a claim."""
        with line_errors():
            has_stray, commands = self._link.call(
                ScriptName.PEEK, event_id, self._settings.batch_commands_max
            )
        return _peeked(has_stray, commands)

    def complete(
        self,
        event_id: str,
        token: int,
        completion: Completion,
        give_back: GiveBack,
        *,
        skip: int = 0,
    ) -> Peeked | None:
        """Write outcomes onto jobs and take exactly those off the line; then look at the next batch.

        `skip` is how many commands behind this batch are known already. The event is not given back before
        them, but where it is to be given back nothing behind them is looked at. Gives None if the claim has
        been given back, or is no longer ours.
        """
        settings = self._settings
        arguments: list[Any] = [
            event_id,
            token,
            self._worker_name,
            self._lease_ms,
            format_time(completion.started_at),
            format_time(completion.ended_at),
            settings.result_ttl_seconds,
            settings.failure_ttl_seconds,
            completion.applied_position,
            "" if completion.view is None else orjson.dumps(completion.view),
            "" if completion.view is None else completion.view["sales_open_at"] or "",
            give_back.value,
            skip,
            settings.batch_commands_max,
        ]
        arguments += completion.job_words
        with line_errors():
            held, has_stray, commands = self._link.call(ScriptName.COMPLETE, *arguments)
        return _peeked(has_stray, commands) if held else None

    def release(
        self, event_id: str, token: int, *, delay_seconds: float = 0.0, newest_token: int = 0
    ) -> None:
        """Give an event back, to be claimed after a delay if it still has work.

        `newest_token` is what the database has seen, if that was newer than ours.
        """
        delay_ms = int(delay_seconds * 1000)
        with line_errors():
            self._link.call(ScriptName.RELEASE, event_id, token, self._worker_name, delay_ms, newest_token)

    def remove_strays(self, event_id: str) -> int:
        """Clear the head of RQ's list of what does not wait in the line; gives how many were foreign."""
        with line_errors():
            foreign = self._link.call(
                ScriptName.REMOVE_STRAYS,
                event_id,
                self._settings.failure_ttl_seconds,
                encode_exception(_FOREIGN_JOB),
            )
        return cast(int, foreign)

    def sweep(self) -> int:
        """Find events that have work and no consumer, and take queues without work or results off RQ's list.

        One worker sweeps for all, no more often than the setting says. Gives how many events were found.
        """
        seconds = max(1, int(self._settings.sweep_seconds))
        with line_errors():
            if not self._client.set(keys.SWEEPER, self._worker_name, nx=True, ex=seconds):
                return 0
            cursor, found = self._link.call(ScriptName.SWEEP, "0")
            while cursor != b"0":
                cursor, made_ready = self._link.call(ScriptName.SWEEP, cursor)
                found += made_ready
        return cast(int, found)


class Sleeper:
    """Blocks an idle worker until there is work. Has a client of its own, for its longer wait."""

    def __init__(self, client: redis.Redis, *, idle_wait_seconds: float) -> None:
        self._link = BlockingLink(client)
        self._idle_wait_seconds = idle_wait_seconds

    def wait(self, consumer: Consumer) -> Claim | None:
        """A claim as soon as an event needs a consumer; None after the idle wait, or if others were quicker.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        return consumer.claim_when_woken(self._link, seconds_max=self._idle_wait_seconds)


def _claim(found: list[Any]) -> Claim:
    event_id, token, taken_from, has_stray, commands = found
    return Claim(
        event_id=event_id.decode(),
        token=token,
        taken_from=taken_from.decode() or None,
        peeked=_peeked(has_stray, commands),
    )


def _peeked(has_stray: int, commands: list[list[Any]]) -> Peeked:
    return Peeked(
        commands=[decode_waiting_command(fields[0].decode(), *fields[1:]) for fields in commands],
        has_stray=bool(has_stray),
    )
