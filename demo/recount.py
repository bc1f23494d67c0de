"""The ledger counted through from its first row, by the rules as the README tells them.

On purpose not by the code that decided: what is wrong there must not be wrong here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from demo.evidence import Booking, Row, Sale
from shared.domain import CommandKind, OutcomeCode


@dataclass(slots=True)
class Recount:
    """What must be so after the rows that were counted."""

    sale: Sale
    left: int
    held: Counter[str] = field(default_factory=Counter)
    bookings: dict[str, Booking] = field(default_factory=dict)
    most_held: int = 0
    least_left: int = 0
    wrong_outcomes: list[str] = field(default_factory=list)


def recount(sale: Sale, rows: Sequence[Row]) -> Recount:
    """Count every row, in order of position."""
    count = Recount(sale=sale, left=sale.total_tickets, least_left=sale.total_tickets)
    for row in sorted(rows, key=lambda row: row.position):
        expected = _expected(count, row)
        if row.outcome != expected:
            count.wrong_outcomes.append(
                f"position {row.position}: {row.outcome}, where the rules say {expected}"
            )
        _apply(count, row)
    return count


def _expected(count: Recount, row: Row) -> str:
    if row.kind == CommandKind.BOOK:
        wanted = row.asked["ticket_count"]
        if count.held[row.asked["user_id"]] + wanted > count.sale.max_tickets_per_user:
            return OutcomeCode.USER_LIMIT_EXCEEDED.value
        return (OutcomeCode.NOT_ENOUGH_TICKETS if wanted > count.left else OutcomeCode.BOOKED).value
    if row.kind == CommandKind.CANCEL:
        booking = count.bookings.get(row.asked["booking_id"])
        if booking is None:
            return OutcomeCode.BOOKING_NOT_FOUND.value
        return (OutcomeCode.CANCELLED if booking.is_active else OutcomeCode.ALREADY_CANCELLED).value
    return "a booking or a cancellation"


def _apply(count: Recount, row: Row) -> None:
    """Take the row at its word, also where it should have said something else."""
    if row.outcome == OutcomeCode.BOOKED:
        user_id, tickets = row.asked["user_id"], row.asked["ticket_count"]
        count.bookings[row.job_id] = Booking(
            id=row.job_id, user_id=user_id, ticket_count=tickets, is_active=True
        )
        _move(count, user_id, tickets)
    elif row.outcome == OutcomeCode.CANCELLED and row.asked["booking_id"] in count.bookings:
        booking = count.bookings[row.asked["booking_id"]]
        count.bookings[booking.id] = Booking(
            id=booking.id, user_id=booking.user_id, ticket_count=booking.ticket_count, is_active=False
        )
        _move(count, booking.user_id, -booking.ticket_count)


def _move(count: Recount, user_id: str, tickets: int) -> None:
    count.held[user_id] += tickets
    count.left -= tickets
    count.most_held = max(count.most_held, count.held[user_id])
    count.least_left = min(count.least_left, count.left)


def differences(counted: dict[str, Booking], listed: Sequence[Booking]) -> Iterator[str]:
    """Where the list of bookings is not what the ledger makes of it."""
    seen = Counter(booking.id for booking in listed)
    yield from (f"booking {id} is listed {times} times" for id, times in seen.items() if times > 1)
    for booking in listed:
        expected = counted.get(booking.id)
        if booking != expected:
            yield f"booking {booking.id} is listed as {booking}, by the ledger it is {expected}"
    yield from (f"booking {id} is in the ledger, but not listed" for id in counted.keys() - seen.keys())
