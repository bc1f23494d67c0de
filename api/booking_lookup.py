"""Where a booking comes from, also one that still waits to be made."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from api.context import ApiContext
from shared.database import statements
from shared.domain import CommandKind, OutcomeCode
from shared.records import BookingRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingOrigin:
    """The event and the user of a booking. `refused`: its command was decided, and no booking came of it."""

    event_id: str
    user_id: str
    refused: bool


async def find_booking_origin(context: ApiContext, booking_id: str) -> BookingOrigin | None:
    """Whose booking it is, or will be; None if no command would make it.

    Raises:
        TemporarilyUnavailable: Redis or PostgreSQL does not answer.
    """
    job = await context.producer.read_job(booking_id)
    if job is not None and job.payload is not None and job.payload.get("kind") == CommandKind.BOOK:
        refused = job.result is not None and job.result["outcome"] != OutcomeCode.BOOKED
        return BookingOrigin(event_id=job.event_id, user_id=job.payload["user_id"], refused=refused)
    booking = await find_booking(context, booking_id)
    if booking is None:
        return None
    return BookingOrigin(event_id=booking.event_id, user_id=booking.user_id, refused=False)


async def find_booking(context: ApiContext, booking_id: str) -> BookingRecord | None:
    """A booking as PostgreSQL has it.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
    """
    return await run_in_threadpool(_select, context, booking_id)


def _select(context: ApiContext, booking_id: str) -> BookingRecord | None:
    with context.database.transaction() as connection:
        return statements.find_bookings(connection, [booking_id]).get(booking_id)
