"""How a command becomes an RQ job and is read back, and how an outcome becomes RQ's return value."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

import orjson
from msgspec import Struct
from msgspec.structs import replace

from shared import limits
from shared.clock import format_time, parse_time
from shared.domain import (
    BookTickets,
    CancelBooking,
    ChangeEvent,
    Command,
    CommandKind,
    RepeatedCommand,
    UnreadableCommand,
    WithdrawnCommand,
    kind_of,
)
from shared.identifiers import canonical_id, derived_id
from shared.records import CommandPayload, JobResult
from shared.trace import read_trace

COMMAND_VERSION = 1
JOB_FUNCTION = "worker.stock.apply_command"
"""What RQ's stock worker imports and calls; ours never imports what a job names."""

UNREADABLE = (ValueError, KeyError, TypeError, IndexError, RecursionError)
"""What reading a command raises when it is not what it should be."""

_BOOK = CommandKind.BOOK.value
_LOST = "the command was lost when PostgreSQL was restored from an older backup"
_ZLIB_HEADER = b"\x78"


class Mark(StrEnum):
    """What is noted on a job while it waits."""

    WITHDRAWN = "withdrawn"
    """Its client took it back."""
    LOST = "lost"
    """Its place was given, and what it asked for is known no more."""
    UNCHECKED = "unchecked"
    """It may repeat a command that the ledger has; PostgreSQL could not be asked."""


class WaitingCommand(Struct, frozen=True, kw_only=True):
    """A command as it stands in the line, with all that the ledger will say of it.

    `unchecked`: it may repeat one that has been applied, although its position is new. `trace` is that of the
    request that it came with, if its client sent one.
    """

    command: Command
    kind: CommandKind
    payload: CommandPayload | None
    position: int | None
    accepted_at: datetime | None
    unchecked: bool = False
    trace: str | None = None


def book_payload(user_id: str, ticket_count: int) -> CommandPayload:
    """What a booking command says."""
    return {"v": COMMAND_VERSION, "kind": _BOOK, "user_id": user_id, "ticket_count": ticket_count}


def cancel_payload(booking_id: str) -> CommandPayload:
    """What a cancel command says."""
    return CommandPayload(v=COMMAND_VERSION, kind=CommandKind.CANCEL.value, booking_id=booking_id)


def change_payload(
    *,
    name: str | None = None,
    total_tickets: int | None = None,
    sales_open_at: datetime | None = None,
    sales_closed: bool | None = None,
) -> CommandPayload:
    """What a command says that changes its event; what is None it does not mention."""
    payload = CommandPayload(v=COMMAND_VERSION, kind=CommandKind.CHANGE.value)
    if name is not None:
        payload["name"] = name
    if total_tickets is not None:
        payload["total_tickets"] = total_tickets
    if sales_open_at is not None:
        payload["sales_open_at"] = format_time(sales_open_at)
    if sales_closed is not None:
        payload["sales_closed"] = sales_closed
    return payload


def _payload_of(command: Command) -> CommandPayload:
    """What a command says, and nothing else that may have come with it: the ledger stores it."""
    match command:
        case BookTickets():
            return book_payload(command.user_id, command.ticket_count)
        case CancelBooking():
            return cancel_payload(command.booking_id)
        case ChangeEvent():
            return change_payload(
                name=command.name,
                total_tickets=command.total_tickets,
                sales_open_at=command.sales_open_at,
                sales_closed=command.sales_closed,
            )
        case RepeatedCommand():
            return repeat_payload(command.job_id)
        case _:
            raise ValueError("it says nothing")


def repeat_payload(job_id: str) -> CommandPayload:
    """What the ledger says where a command stands a second time."""
    return CommandPayload(v=COMMAND_VERSION, kind=CommandKind.REPEAT.value, job_id=job_id)


def repeated(waiting: WaitingCommand, position: int) -> WaitingCommand:
    """What the ledger says at the second position of a command that was applied before.

    A job has one row in the ledger, so this one gets an id of its own, the same however often it is made.
    """
    job_id = waiting.command.id
    command = RepeatedCommand(id=derived_id("repeat", job_id, str(position)), job_id=job_id)
    return replace(waiting, command=command, kind=CommandKind.REPEAT, payload=repeat_payload(job_id))


def encode_job_data(event_id: str, payload: CommandPayload) -> bytes:
    """The `data` of an RQ job in RQ's JSON form: function, instance, arguments, keyword arguments."""
    return orjson.dumps((JOB_FUNCTION, None, (event_id, payload), {}))


def describe(payload: CommandPayload) -> str:
    """A line about a command for RQ's tools."""
    if payload["kind"] == CommandKind.BOOK:
        text = f"book {payload['ticket_count']} for {payload['user_id']}"
    elif payload["kind"] == CommandKind.CHANGE:
        text = "change " + ", ".join(sorted(payload.keys() - {"v", "kind"}))
    else:
        text = f"cancel {payload['booking_id']}"
    return text[: limits.DESCRIPTION_LENGTH_MAX]


def lost_job_data(event_id: str) -> bytes:
    """The `data` of a job that fills the position of a command that is lost."""
    return encode_job_data(event_id, CommandPayload(v=COMMAND_VERSION, kind=CommandKind.UNKNOWN.value))


def says_the_same(data: bytes, event_id: str, payload: CommandPayload) -> bool:
    """Whether the `data` of a job is this command for this event, in whichever form it was stored."""
    try:
        return cast(bool, orjson.loads(_inflated(data))[2] == [event_id, payload])
    except UNREADABLE:
        return False


def decode_waiting_command(
    job_id: str,
    data: bytes | None,
    created_at: bytes | None,
    position: bytes | None,
    marks: bytes | None = None,
    trace: bytes | None = None,
) -> WaitingCommand:
    """Read a job's fields; what can't be understood becomes an `UnreadableCommand` that says why."""
    noted = marks.decode(errors="replace").split(",") if marks else ()
    try:
        command = command_of_payload(job_id, decode_payload(data), _time(created_at))
        payload = _payload_of(command)
        if Mark.WITHDRAWN in noted:
            command = WithdrawnCommand(id=job_id, kind=kind_of(command))
    except UNREADABLE as error:
        reason = f"the command can't be read: {error!r}" if data else "its record was deleted from Redis"
        if Mark.LOST in noted:
            reason = _LOST
        return WaitingCommand(
            command=UnreadableCommand(id=job_id, reason=reason[: limits.REASON_LENGTH_MAX]),
            kind=CommandKind.UNKNOWN,
            payload=None,
            position=_position(position),
            accepted_at=_time(created_at),
            unchecked=Mark.UNCHECKED in noted,
            trace=_trace(trace),
        )
    return WaitingCommand(
        command=command,
        kind=kind_of(command),
        payload=payload,
        position=_position(position),
        accepted_at=_time(created_at),
        unchecked=Mark.UNCHECKED in noted,
        trace=_trace(trace),
    )


def decode_payload(data: bytes | None) -> CommandPayload:
    """The payload in a job's `data`.

    Raises:
        ValueError, TypeError, IndexError: it isn't one of our jobs.
    """
    if data is None:
        raise ValueError("there is no data")
    function, _, arguments, _ = orjson.loads(_inflated(data))
    if function != JOB_FUNCTION:
        raise ValueError(f"the function {function!r} is not on the list of those that are allowed")
    payload = arguments[1]
    if not isinstance(payload, dict):
        raise TypeError("the payload is not an object")
    return cast(CommandPayload, payload)


def _inflated(data: bytes) -> bytes:
    """We write jobs as they are; RQ compresses one that it saves again."""
    if not data.startswith(_ZLIB_HEADER):
        return data
    try:
        return zlib.decompressobj().decompress(data, limits.REQUEST_BODY_BYTES_MAX * 2)
    except zlib.error as error:
        raise ValueError(f"the data is spoilt: {error}") from error


def encode_return_value(result: JobResult) -> bytes:
    """A job's result as RQ stores it."""
    return b64encode(orjson.dumps(result))


def decode_return_value(stored: bytes) -> JobResult:
    """A job's result as RQ stored it."""
    return cast(JobResult, orjson.loads(b64decode(stored)))


def encode_exception(text: str) -> str:
    """A failed job's reason as RQ stores it."""
    return b64encode(zlib.compress(text.encode())).decode()


def command_of_payload(job_id: str, payload: CommandPayload | None, accepted_at: datetime | None) -> Command:
    """The command that a payload says, given when it was accepted.

    Raises:
        One of `UNREADABLE`: it says none that is known here.
    """
    if payload is None:
        raise ValueError("there is no payload")
    version: Any = payload["v"]
    if version != COMMAND_VERSION:
        raise ValueError(f"version {version!r} is not known here, only {COMMAND_VERSION}")
    match payload["kind"]:
        case CommandKind.BOOK:
            if accepted_at is None:
                raise ValueError("the time of its acceptance is lost")
            return BookTickets(
                id=job_id,
                user_id=_text(payload["user_id"], limits.USER_ID_LENGTH_MAX),
                ticket_count=_whole_number(payload["ticket_count"], limits.TICKETS_PER_BOOKING_MAX),
                accepted_at=accepted_at,
            )
        case CommandKind.CANCEL:
            booking_id = canonical_id(_text(payload["booking_id"], limits.USER_ID_LENGTH_MAX))
            if booking_id is None:
                raise ValueError("booking_id is not a UUID")
            return CancelBooking(id=job_id, booking_id=booking_id)
        case CommandKind.REPEAT:
            return RepeatedCommand(id=job_id, job_id=_text(payload["job_id"], limits.USER_ID_LENGTH_MAX))
        case CommandKind.CHANGE:
            return _change(job_id, payload)
        case other:
            raise ValueError(f"kind {other!r} is not known here")


def _change(job_id: str, payload: CommandPayload) -> ChangeEvent:
    return ChangeEvent(
        id=job_id,
        name=_text(payload["name"], limits.EVENT_NAME_LENGTH_MAX) if "name" in payload else None,
        total_tickets=_whole_number(payload["total_tickets"], limits.TICKETS_PER_EVENT_MAX)
        if "total_tickets" in payload
        else None,
        sales_open_at=parse_time(payload["sales_open_at"]) if "sales_open_at" in payload else None,
        sales_closed=_flag(payload["sales_closed"]) if "sales_closed" in payload else None,
    )


def _position(text: bytes | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _trace(text: bytes | None) -> str | None:
    """What is no trace was not written by us, and counts as none."""
    trace = read_trace(text.decode(errors="replace")) if text else None
    return None if trace is None else str(trace)


def _time(text: bytes | None) -> datetime | None:
    try:
        return parse_time(text.decode()) if text else None
    except ValueError:
        return None


def _text(value: object, length_max: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= length_max or "\x00" in value:
        raise TypeError(f"{value!r} is not a text that can be stored")
    value.encode()
    return value


def _whole_number(value: object, largest: int) -> int:
    if type(value) is not int or not 0 < value <= largest:
        raise TypeError(f"{value!r} is not a number of tickets from 1 to {largest}")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value
