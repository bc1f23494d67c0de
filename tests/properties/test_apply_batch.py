"""What holds of `apply_batch` for any event and any commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from shared.domain import (
    BookingStatus,
    BookTickets,
    CancelBooking,
    ChangeEvent,
    Command,
    EventState,
    OutcomeCode,
    SaleTerms,
    UnreadableCommand,
    apply_batch,
)

LIMIT = 2
USERS = st.sampled_from(["ann", "bob", "cid", "dot"])


NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@st.composite
def changes(draw: st.DrawFn, id: str) -> ChangeEvent:
    """Changes of the total, often below what is sold, and now and then of the sales."""
    return ChangeEvent(
        id=id,
        total_tickets=draw(st.none() | st.integers(-1, 14)),
        sales_open_at=draw(st.none() | st.just(NOON) | st.just(NOON - timedelta(days=1))),
        sales_closed=draw(st.none() | st.just(False) | st.booleans()),
    )


@st.composite
def command_lists(draw: st.DrawFn, max_size: int = 40) -> list[Command]:
    """Bookings and cancellations that often name each other, also ones yet to come."""
    count = draw(st.integers(0, max_size))
    commands: list[Command] = []
    for index in range(count):
        kind = draw(st.sampled_from(["book", "book", "book", "cancel", "change", "unreadable"]))
        if kind == "book":
            commands.append(
                BookTickets(
                    id=f"j{index}",
                    user_id=draw(USERS),
                    ticket_count=draw(st.integers(-1, 3)),
                    accepted_at=NOON + timedelta(hours=draw(st.integers(-1, 1))),
                )
            )
        elif kind == "cancel":
            booking_id = f"j{draw(st.integers(0, max(count - 1, 0)))}"
            commands.append(CancelBooking(id=f"j{index}", booking_id=booking_id))
        elif kind == "change":
            commands.append(draw(changes(f"j{index}")))
        else:
            commands.append(UnreadableCommand(id=f"j{index}", reason="unreadable"))
    return commands


events = st.integers(1, 12).map(
    lambda total: EventState(
        terms=SaleTerms(name="Test Event", total_tickets=total, max_tickets_per_user=LIMIT),
        available_tickets=total,
        holdings={},
        bookings={},
    )
)


def active_tickets(state: EventState) -> int:
    return sum(
        booking.ticket_count for booking in state.bookings.values() if booking.status is BookingStatus.ACTIVE
    )


@given(events, command_lists())
@settings(max_examples=300)
def test_never_oversold_and_the_books_balance(event: EventState, commands: list[Command]) -> None:
    state, _ = apply_batch(event, commands)
    assert 0 <= state.available_tickets <= state.terms.total_tickets
    assert state.available_tickets == state.terms.total_tickets - active_tickets(state)


@given(events, command_lists())
@settings(max_examples=300)
def test_nobody_holds_more_than_the_limit(event: EventState, commands: list[Command]) -> None:
    state, _ = apply_batch(event, commands)
    for user, held in state.holdings.items():
        own = [
            booking.ticket_count
            for booking in state.bookings.values()
            if booking.user_id == user and booking.status is BookingStatus.ACTIVE
        ]
        assert held == sum(own) <= LIMIT


@given(events, command_lists())
def test_every_command_gets_one_outcome_in_order_and_always_the_same(
    event: EventState, commands: list[Command]
) -> None:
    state, outcomes = apply_batch(event, commands)
    assert [outcome.command_id for outcome in outcomes] == [command.id for command in commands]
    assert (state, outcomes) == apply_batch(event, commands)


@given(events, command_lists(), st.data())
@settings(max_examples=300)
def test_a_batch_cut_anywhere_gives_the_same(
    event: EventState, commands: list[Command], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(commands)))
    middle, first = apply_batch(event, commands[:cut])
    end, second = apply_batch(middle, commands[cut:])
    assert (end, first + second) == apply_batch(event, commands)


@given(events, command_lists())
def test_a_cancellation_returns_its_tickets_once(event: EventState, commands: list[Command]) -> None:
    _, outcomes = apply_batch(event, commands)
    cancelled = [outcome.booking_id for outcome in outcomes if outcome.code is OutcomeCode.CANCELLED]
    assert len(cancelled) == len(set(cancelled))
    booked = {outcome.booking_id for outcome in outcomes if outcome.code is OutcomeCode.BOOKED}
    assert set(cancelled) <= booked


@given(events, command_lists())
def test_the_state_that_went_in_is_left_as_it_was(event: EventState, commands: list[Command]) -> None:
    before = replace(event, holdings=dict(event.holdings), bookings=dict(event.bookings))
    apply_batch(event, commands)
    assert event == before


@given(events, command_lists())
def test_a_refusal_changes_nothing(event: EventState, commands: list[Command]) -> None:
    state = event
    for command in commands:
        after, [outcome] = apply_batch(state, [command])
        if outcome.code not in (OutcomeCode.BOOKED, OutcomeCode.CANCELLED, OutcomeCode.CHANGED):
            assert after == state
        state = after
