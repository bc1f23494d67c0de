"""What a ledger tells, for any ledger that the rules can make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import (
    BookTickets,
    CancelBooking,
    ChangeEvent,
    Command,
    EventState,
    OutcomeCode,
    SaleTerms,
    WithdrawnCommand,
    apply_batch,
    kind_of,
)
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand, book_payload, cancel_payload, change_payload
from shared.records import LedgerRecord
from shared.seals import new_event
from shared.webhooks.messages import MessageType, message_id, messages_of
from worker.records import batch_records

_MOMENT = datetime(2026, 11, 23, 10, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class History:
    """A ledger, and what was left before it and after each of its rows."""

    total: int
    entries: Sequence[LedgerRecord]
    left: Sequence[int] = field(default_factory=list)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Apply commands by the rules: books, cancels of any of them, some withdrawn, few tickets."""
    total = draw(st.integers(1, 6))
    terms = SaleTerms(name="Test Event", total_tickets=total, max_tickets_per_user=2)
    event = new_event(id=new_id(), terms=terms, created_at=_MOMENT)
    commands: list[Command] = []
    for _ in range(draw(st.integers(0, 25))):
        books = [command.id for command in commands if isinstance(command, BookTickets)]
        kinds = ["book", "book", "change", "withdrawn", *(["cancel"] if books else [])]
        match draw(st.sampled_from(kinds)):
            case "cancel":
                commands.append(CancelBooking(id=new_id(), booking_id=draw(st.sampled_from(books))))
            case "change":
                commands.append(ChangeEvent(id=new_id(), total_tickets=draw(st.integers(1, 7))))
            case "withdrawn":
                book = BookTickets(id=new_id(), user_id="ann", ticket_count=1, accepted_at=_MOMENT)
                commands.append(WithdrawnCommand(id=book.id, kind=kind_of(book)))
            case _:
                user_id = draw(st.sampled_from(["ann", "bob", "eve", "joe"]))
                ticket_count = draw(st.integers(1, 2))
                commands.append(
                    BookTickets(id=new_id(), user_id=user_id, ticket_count=ticket_count, accepted_at=_MOMENT)
                )
    state = EventState(terms=terms, available_tickets=total, holdings={}, bookings={})
    left = []
    for command in commands:
        state, _ = apply_batch(state, [command])
        left.append(state.available_tickets)
    start = EventState(terms=terms, available_tickets=total, holdings={}, bookings={})
    _, outcomes = apply_batch(start, commands)
    waiting = [waiting_command(command, position) for position, command in enumerate(commands, start=1)]
    entries = batch_records(event, {}, waiting, outcomes, _MOMENT).entries
    return History(total=total, entries=entries, left=left)


def waiting_command(command: Command, position: int) -> WaitingCommand:
    match command:
        case BookTickets():
            payload = book_payload(command.user_id, command.ticket_count)
        case CancelBooking():
            payload = cancel_payload(command.booking_id)
        case ChangeEvent():
            payload = change_payload(total_tickets=command.total_tickets)
        case _:
            payload = book_payload("ann", 1)
    return WaitingCommand(
        command=command, kind=kind_of(command), payload=payload, position=position, accepted_at=_MOMENT
    )


@given(histories())
def test_it_counts_the_tickets_as_the_rules_do(history: History) -> None:
    left, _ = messages_of(history.entries, history.total)
    assert left == (history.left[-1] if history.left else history.total)


@given(histories())
def test_every_booking_and_cancellation_is_told_once_and_in_order(history: History) -> None:
    _, messages = messages_of(history.entries, history.total)
    told = [(message.position, message.type) for message in messages]
    types = {
        OutcomeCode.BOOKED: MessageType.BOOKING_CREATED,
        OutcomeCode.CANCELLED: MessageType.BOOKING_CANCELLED,
    }
    assert [entry for entry in told if entry[1] is not MessageType.EVENT_SOLD_OUT] == [
        (entry.position, types[entry.outcome]) for entry in history.entries if entry.outcome in types
    ]


@given(histories())
def test_sold_out_is_told_once_each_time_that_the_tickets_run_out(history: History) -> None:
    _, messages = messages_of(history.entries, history.total)
    told = [message.position for message in messages if message.type is MessageType.EVENT_SOLD_OUT]
    before = [history.total, *history.left]
    assert told == [
        position
        for position, (was, left) in enumerate(zip(before, history.left, strict=False), start=1)
        if was > 0 and left == 0
    ]


@given(histories(), st.data())
def test_cutting_a_ledger_anywhere_tells_the_same(history: History, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(history.entries)))
    left, first = messages_of(history.entries[:cut], history.total)
    left, second = messages_of(history.entries[cut:], left)
    assert (left, first + second) == messages_of(history.entries, history.total)


@given(histories())
def test_messages_come_in_the_order_in_which_their_log_is_read(history: History) -> None:
    _, messages = messages_of(history.entries, history.total)
    keys = [(message.position, message.type.value) for message in messages]
    assert keys == sorted(keys)
    ids = {message_id("webhook", message.position, message.type) for message in messages}
    assert len(ids) == len(messages)


@given(histories())
def test_a_body_says_what_happened_when_and_to_which_booking(history: History) -> None:
    _, messages = messages_of(history.entries, history.total)
    by_position = {entry.position: entry for entry in history.entries}
    for message in messages:
        body = orjson.loads(message.body)
        entry = by_position[message.position]
        assert (body["type"], body["timestamp"]) == (message.type.value, "2026-11-23T10:00:00.000000Z")
        assert body["data"]["event_id"] == entry.event_id
        assert (body["data"]["position"], body["data"]["job_id"]) == (entry.position, entry.job_id)
        if message.type is not MessageType.EVENT_SOLD_OUT:
            status = "active" if message.type is MessageType.BOOKING_CREATED else "cancelled"
            assert body["data"]["booking"]["status"] == status
            assert body["data"]["booking"]["id"] == entry.booking_id
