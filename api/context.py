"""What the routes work with, built when the process starts and handed to them explicitly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from opentelemetry.trace import Tracer

from api.box_office import BoxOffices
from api.event_lookup import EventLookup
from api.event_owners import EventOwners
from api.gate import Gate
from api.ledger_lookup import LedgerLookup
from api.slots import Slots
from api.stopping import Draining
from shared.clock import Clock
from shared.database.engine import Database
from shared.line.producer import Producer
from shared.line.progress import ProgressReader
from shared.line.replies import Replies
from shared.line.status import LineStatus
from shared.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """The servers and settings of one API process."""

    settings: Settings
    clock: Clock
    database: Database
    producer: Producer
    replies: Replies
    progress: ProgressReader
    box_offices: BoxOffices
    ledger: LedgerLookup
    events: EventLookup
    owners: EventOwners
    gate: Gate
    waiters: Slots
    streams: Slots
    box_office_streams: Slots
    line_status: LineStatus
    draining: Draining
    tracer: Tracer | None

    def let_go(self) -> None:
        """Keep nobody waiting or watching, now and from now on."""
        self.replies.let_go()
        self.box_offices.let_go()


async def _context(request: Request) -> ApiContext:
    """Not a plain function: FastAPI would run that in a thread, for every request."""
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context)]
