"""The rules, one at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from shared.domain import (
    BookingState,
    BookingStatus,
    BookTickets,
    CancelBooking,
    ChangeEvent,
    Command,
    EventState,
    JobStatus,
    Outcome,
    OutcomeCode,
    SaleTerms,
    UnreadableCommand,
    apply_batch,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def event(available: int = 10, **overrides: object) -> EventState:
    values: dict[str, object] = {
        "terms": SaleTerms(name="Test Event", total_tickets=10, max_tickets_per_user=2),
        "available_tickets": available,
        "holdings": {},
        "bookings": {},
    }
    return EventState(**(values | overrides))  # type: ignore[arg-type]


def decide(state: EventState, *commands: Command) -> tuple[EventState, list[Outcome]]:
    return apply_batch(state, commands)


def book(id: str, user_id: str = "ann", ticket_count: int = 1) -> BookTickets:
    return BookTickets(id=id, user_id=user_id, ticket_count=ticket_count, accepted_at=NOON)


def test_a_booking_takes_its_tickets_and_the_id_of_its_command() -> None:
    state, [outcome] = decide(event(), book("b1", ticket_count=2))
    assert outcome == Outcome(command_id="b1", code=OutcomeCode.BOOKED, booking_id="b1")
    assert state.available_tickets == 8
    assert state.holdings == {"ann": 2}
    assert state.bookings["b1"].status is BookingStatus.ACTIVE


def test_the_last_ticket_goes_to_who_came_first() -> None:
    state, outcomes = decide(event(1), book("b1", "ann"), book("b2", "bob"))
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.BOOKED,
        OutcomeCode.NOT_ENOUGH_TICKETS,
    ]
    assert outcomes[1].available_tickets == 0
    assert state.available_tickets == 0


def test_a_refused_booking_leaves_room_for_a_smaller_one_behind_it() -> None:
    _, outcomes = decide(event(1), book("b1", "ann", 2), book("b2", "bob", 1))
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.NOT_ENOUGH_TICKETS,
        OutcomeCode.BOOKED,
    ]


def test_the_limit_counts_all_bookings_of_a_user() -> None:
    _, outcomes = decide(event(), book("b1"), book("b2"), book("b3"))
    assert outcomes[2].code is OutcomeCode.USER_LIMIT_EXCEEDED
    assert outcomes[2].held_tickets == 2


def test_the_limit_is_asked_before_the_tickets_that_are_left() -> None:
    _, [outcome] = decide(event(0, holdings={"ann": 2}), book("b1"))
    assert outcome.code is OutcomeCode.USER_LIMIT_EXCEEDED


def test_a_cancelled_booking_gives_its_tickets_back_once() -> None:
    state, outcomes = decide(
        event(),
        book("b1", ticket_count=2),
        CancelBooking(id="c1", booking_id="b1"),
        CancelBooking(id="c2", booking_id="b1"),
    )
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.BOOKED,
        OutcomeCode.CANCELLED,
        OutcomeCode.ALREADY_CANCELLED,
    ]
    assert state.available_tickets == 10
    assert state.holdings == {"ann": 0}


def test_who_cancels_may_book_again() -> None:
    held = BookingState(user_id="ann", ticket_count=2, status=BookingStatus.ACTIVE)
    _, outcomes = decide(
        event(8, holdings={"ann": 2}, bookings={"b0": held}),
        book("b1"),
        CancelBooking(id="c1", booking_id="b0"),
        book("b2", ticket_count=2),
    )
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.USER_LIMIT_EXCEEDED,
        OutcomeCode.CANCELLED,
        OutcomeCode.BOOKED,
    ]


def test_a_booking_that_does_not_exist_cannot_be_cancelled() -> None:
    state, [outcome] = decide(event(), CancelBooking(id="c1", booking_id="nowhere"))
    assert outcome.code is OutcomeCode.BOOKING_NOT_FOUND
    assert state == event()


def test_an_unreadable_command_fails_with_its_reason_and_blocks_nobody() -> None:
    _, outcomes = decide(event(), UnreadableCommand(id="x", reason="version 9"), book("b1"))
    assert outcomes[0].code is OutcomeCode.COMMAND_UNREADABLE
    assert outcomes[0].reason == "version 9"
    assert outcomes[1].code is OutcomeCode.BOOKED


def test_nobody_books_less_than_one_ticket() -> None:
    state, outcomes = decide(event(), book("b1", ticket_count=0), book("b2", ticket_count=-1))
    assert {outcome.code for outcome in outcomes} == {OutcomeCode.COMMAND_UNREADABLE}
    assert state == event()


def test_every_outcome_has_a_job_status() -> None:
    assert {code.job_status for code in OutcomeCode} == set(JobStatus) - {JobStatus.QUEUED}


def under(terms: SaleTerms, available: int = 10) -> EventState:
    return event(available, terms=terms)


TERMS = SaleTerms(name="Test Event", total_tickets=10, max_tickets_per_user=2)


def test_a_booking_that_was_accepted_before_the_sales_is_refused_with_their_time() -> None:
    terms = replace(TERMS, sales_open_at=NOON + timedelta(microseconds=1))
    state, [outcome] = decide(under(terms), book("b1"))
    assert outcome == Outcome(command_id="b1", code=OutcomeCode.SALES_NOT_OPEN, terms=terms)
    assert state == under(terms)


def test_a_booking_at_the_moment_when_sales_open_is_in_time() -> None:
    _, [outcome] = decide(under(replace(TERMS, sales_open_at=NOON)), book("b1"))
    assert outcome.code is OutcomeCode.BOOKED


def test_closed_sales_refuse_bookings_and_take_cancellations() -> None:
    opened, _ = decide(event(), book("b1"))
    _, outcomes = decide(
        opened,
        ChangeEvent(id="c1", sales_closed=True),
        book("b2", "bob"),
        CancelBooking(id="c2", booking_id="b1"),
        ChangeEvent(id="c3", sales_closed=False),
        book("b3", "bob"),
    )
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.CHANGED,
        OutcomeCode.SALES_CLOSED,
        OutcomeCode.CANCELLED,
        OutcomeCode.CHANGED,
        OutcomeCode.BOOKED,
    ]


def test_added_tickets_are_for_sale_from_their_turn_on() -> None:
    state, outcomes = decide(
        event(0), book("b1"), ChangeEvent(id="c1", total_tickets=12), book("b2", ticket_count=2)
    )
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.NOT_ENOUGH_TICKETS,
        OutcomeCode.CHANGED,
        OutcomeCode.BOOKED,
    ]
    assert (state.terms.total_tickets, state.available_tickets) == (12, 0)
    assert (outcomes[1].terms_before, outcomes[1].terms) == (TERMS, replace(TERMS, total_tickets=12))
    assert outcomes[1].available_tickets == 2


def test_the_total_goes_down_to_what_is_sold_and_no_further() -> None:
    state, outcomes = decide(
        event(4), ChangeEvent(id="c1", total_tickets=5), ChangeEvent(id="c2", total_tickets=6)
    )
    assert outcomes[0] == Outcome(command_id="c1", code=OutcomeCode.TOTAL_BELOW_SOLD, sold_tickets=6)
    assert outcomes[1].code is OutcomeCode.CHANGED
    assert (state.terms.total_tickets, state.available_tickets) == (6, 0)


def test_a_change_leaves_alone_what_it_does_not_mention() -> None:
    terms = replace(TERMS, sales_open_at=NOON, sales_closed=True)
    state, _ = decide(under(terms), ChangeEvent(id="c1", name="Renamed"))
    assert state.terms == replace(terms, name="Renamed")
