"""Commands on their way to the line and back."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from shared.clock import parse_time
from shared.domain import BookTickets, CancelBooking, CommandKind, UnreadableCommand
from shared.identifiers import new_id
from shared.line.codec import (
    JOB_FUNCTION,
    book_payload,
    cancel_payload,
    decode_waiting_command,
    encode_job_data,
)
from tests.builders import UNKNOWN_ID

CREATED_AT = b"2026-11-23T10:00:00.000000Z"


def job_data(payload: object, function: str = JOB_FUNCTION) -> bytes:
    return json.dumps([function, None, [UNKNOWN_ID, payload], {}]).encode()


def test_a_booking_is_read_back_as_it_was_written() -> None:
    data = encode_job_data(new_id(), book_payload("ann", 2))
    waiting = decode_waiting_command("j1", data, CREATED_AT, b"7")
    assert waiting.command == BookTickets(
        id="j1", user_id="ann", ticket_count=2, accepted_at=parse_time(CREATED_AT.decode())
    )
    assert waiting.kind is CommandKind.BOOK
    assert waiting.position == 7


def test_a_cancellation_is_read_back_as_it_was_written() -> None:
    booking_id = new_id()
    data = encode_job_data(new_id(), cancel_payload(booking_id))
    waiting = decode_waiting_command("j1", data, CREATED_AT, b"7")
    assert waiting.command == CancelBooking(id="j1", booking_id=booking_id)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\x80\x04not json",
        b"x\x9cspoilt",
        zlib.compress(b"[" * 1_000_000),
        b"[]",
        b"{}",
        b"[1, 2, 3, 4]",
        job_data(None),
        job_data({}),
        job_data({"v": 2, "kind": "book", "user_id": "ann", "ticket_count": 1}),
        job_data({"v": 1, "kind": "fly"}),
        job_data({"v": 1, "kind": "book", "user_id": "ann"}),
        job_data({"v": 1, "kind": "book", "user_id": "", "ticket_count": 1}),
        job_data({"v": 1, "kind": "book", "user_id": 5, "ticket_count": 1}),
        job_data({"v": 1, "kind": "book", "user_id": "a\x00b", "ticket_count": 1}),
        job_data({"v": 1, "kind": "book", "user_id": "\ud800", "ticket_count": 1}),
        job_data({"v": 1, "kind": "book", "user_id": "ann", "ticket_count": True}),
        job_data({"v": 1, "kind": "book", "user_id": "ann", "ticket_count": 3}),
        job_data({"v": 1, "kind": "book", "user_id": "ann", "ticket_count": 0}),
        job_data({"v": 1, "kind": "cancel", "booking_id": "not-an-id"}),
        job_data({"v": 1, "kind": "book", "user_id": "ann", "ticket_count": 1}, function="os.system"),
    ],
)
def test_what_cannot_be_read_fails_with_a_reason_that_can_be_stored(data: bytes | None) -> None:
    waiting = decode_waiting_command("j1", data, CREATED_AT, b"7")
    assert isinstance(waiting.command, UnreadableCommand)
    assert waiting.kind is CommandKind.UNKNOWN
    assert waiting.command.reason
    assert "\x00" not in waiting.command.reason
    waiting.command.reason.encode()


@pytest.mark.parametrize(
    ("created_at", "position"),
    [(None, None), (b"yesterday", b"-1"), (b"", b"seven")],
)
def test_a_spoilt_time_or_position_is_taken_as_unknown(created_at: Any, position: Any) -> None:
    data = encode_job_data(new_id(), book_payload("ann", 1))
    waiting = decode_waiting_command("j1", data, created_at, position)
    assert waiting.accepted_at is None
    assert waiting.position is None


@pytest.mark.parametrize("extra", ['"note": "\\u0000"', '"note": NaN', '"note": {"deep": [1]}'])
def test_what_else_comes_with_a_command_is_not_stored(extra: str) -> None:
    data = encode_job_data("e1", book_payload("ann", 2)).decode().replace('"v": 1', f'"v": 1, {extra}')
    waiting = decode_waiting_command("j1", data.encode(), CREATED_AT, b"7")
    assert waiting.payload == book_payload("ann", 2)


def test_a_user_id_longer_than_one_may_be_is_unreadable() -> None:
    waiting = decode_waiting_command(
        "j1", encode_job_data("e1", book_payload("x" * 3000, 1)), CREATED_AT, b"7"
    )
    assert isinstance(waiting.command, UnreadableCommand)
