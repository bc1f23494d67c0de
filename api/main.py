"""The application: `uvicorn api.main:app`. Servers and clients are built when it starts, not at import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from api.body_limit import BodyLimit
from api.context import ApiContext
from api.event_lookup import EventLookup
from api.fast_lane import answer_booking
from api.ledger_lookup import LedgerLookup
from api.problems import install_problem_handlers
from api.routes import bookings, events, health, jobs, ledger, metrics
from api.watch import watched
from shared.clock import SystemClock
from shared.collector import calm_collector
from shared.database.engine import Database
from shared.identifiers import new_id
from shared.line.connections import connect, connect_async, connect_subscriber
from shared.line.producer import Producer
from shared.line.replies import Replies
from shared.line.status import LineStatus
from shared.log import configure_logging
from shared.settings import Settings, load_settings


class Application(FastAPI):
    """FastAPI, watched, with a short way for the one request that a stampede is made of."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        send = watched(scope, send)
        if not await answer_booking(self, scope, receive, send):
            await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; it connects to nothing before it starts.

    Without `settings` it reads the environment when it starts.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        known_settings = settings or load_settings()
        configure_logging(known_settings.log_format, known_settings.log_level)
        async with _running_context(known_settings) as context:
            app.state.context = context
            calm_collector()
            yield

    app = Application(
        title="Onsale",
        summary="Sells tickets when everyone comes at once.",
        description=(
            "Submit a command, get its place in line (202), poll the job or wait for it with"
            " `Prefer: wait=N`. Every error is `application/problem+json`. Every answer has an"
            " `X-Request-ID`: the one that you sent, if it is well-formed, or a new one."
        ),
        version="0.1.0",
        lifespan=lifespan,
        # Asked of the environment at every request otherwise, an eighth of the time of a submit.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    install_problem_handlers(app)
    app.add_middleware(BodyLimit)
    for module in (events, bookings, ledger, jobs, health, metrics):
        app.include_router(module.router)
    return app


@asynccontextmanager
async def _running_context(settings: Settings) -> AsyncIterator[ApiContext]:
    clock = SystemClock()
    scraper = connect(settings)
    client, enqueuer, subscriber = (
        connect_async(settings),
        connect_async(settings),
        connect_subscriber(settings),
    )
    database = Database(settings, connections_max=settings.api_database_connections_max)
    producer = Producer(client, enqueuer, clock, settings)
    replies = Replies(subscriber, producer, process_id=new_id())
    replies.start()
    try:
        yield ApiContext(
            settings=settings,
            clock=clock,
            database=database,
            producer=producer,
            replies=replies,
            ledger=LedgerLookup(database),
            events=EventLookup(database, producer),
            line_status=LineStatus(scraper, clock),
        )
    finally:
        await replies.stop()
        for each in (client, enqueuer, subscriber):
            await each.aclose()
        scraper.close()
        database.close()


app = create_app()
