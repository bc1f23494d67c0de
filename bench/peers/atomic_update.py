"""The synchronous design at its leanest: one `UPDATE … WHERE available_tickets >= n` takes the tickets.

The same routes, tables and session as `bench.peers.synchronous`; only the booking differs. The row lock is
taken as late as it can be, after the user's holdings were read, so two requests of one user at the same time
can exceed the limit: it is faster than a correct one could be. Run it with
`uvicorn bench.peers.atomic_update:app`.
"""

from __future__ import annotations

import uuid

from fastapi import FastAPI, HTTPException
from sqlalchemy import update

from bench.peers.synchronous import (
    TICKETS_PER_USER_MAX,
    Booking,
    BookingAnswer,
    BookingStatus,
    Event,
    EventAnswer,
    NewBooking,
    create_event,
    get_event,
    lifespan,
    open_session,
    tickets_of_user,
)

app = FastAPI(title="Atomic update peer", lifespan=lifespan)
app.post("/events", status_code=201, response_model=EventAnswer)(create_event)
app.get("/events/{event_id}", response_model=EventAnswer)(get_event)


@app.post("/events/{event_id}/bookings", status_code=201, response_model=BookingAnswer)
def create_booking(event_id: uuid.UUID, body: NewBooking) -> Booking:
    """Book in one transaction of three statements."""
    with open_session.begin() as session:
        if tickets_of_user(session, event_id, body.user_id) + body.ticket_count > TICKETS_PER_USER_MAX:
            raise HTTPException(400, "user limit exceeded")
        booking = Booking(
            event_id=event_id,
            user_id=body.user_id,
            ticket_count=body.ticket_count,
            status=BookingStatus.ACTIVE,
        )
        session.add(booking)
        session.flush()
        taken = session.execute(
            update(Event)
            .where(Event.id == event_id, Event.available_tickets >= body.ticket_count)
            .values(available_tickets=Event.available_tickets - body.ticket_count)
            .returning(Event.id)
        ).one_or_none()
        if taken is None:
            raise HTTPException(400, "not enough tickets")
    return booking
