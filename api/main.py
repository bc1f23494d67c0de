"""The application, for `python -m api serve` and `uvicorn api.main:app`.

Servers and clients are built when it starts, not at import.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from opentelemetry.trace import Tracer
from starlette.types import Receive, Scope, Send

from api.admission_headers import AdmissionHeaders
from api.authentication import Authenticator
from api.body_limit import BodyLimit
from api.box_office import BoxOffices
from api.context import ApiContext
from api.customer_tokens import CustomerTokens
from api.event_lookup import EventLookup
from api.event_owners import EventOwners
from api.fast_lane import FAST_LANE, FastLane
from api.gate import Gate
from api.key_ring import KeyRing
from api.ledger_lookup import LedgerLookup
from api.loopback import LoopbackOnly, refuse_to_be_open
from api.openapi import without_framework_errors, without_security
from api.problem_handlers import install_problem_handlers
from api.problems import not_found, problem_response
from api.rate_limit import RateLimiter
from api.routes import bookings, box_office, events, health, jobs, ledger, metrics, site, webhooks
from api.security_headers import with_security_headers
from api.slots import Slots
from api.stopping import Draining, on_stop_signal
from api.watch import watched
from shared import limits
from shared.clock import SystemClock
from shared.collector import calm_collector
from shared.database.engine import Database
from shared.identifiers import new_id
from shared.line.connections import connect, connect_async, connect_subscriber
from shared.line.producer import Producer
from shared.line.progress import ProgressReader
from shared.line.replies import Replies
from shared.line.standing import StandingReader
from shared.line.status import LineStatus
from shared.line.tallies import Tallies
from shared.log import configure_logging
from shared.settings import Authentication, Settings, SpanSettings, load_settings
from shared.tracing import tracing


class Application(FastAPI):
    """FastAPI, watched."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            send = watched(scope, with_security_headers(scope, send))
            if scope["path"].endswith("\n"):
                # The routes' patterns take it for the end of the path, and would do what is asked for there.
                await problem_response(not_found())(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the errors that this API gives and no others."""
        if self.openapi_schema is None:
            document = without_framework_errors(super().openapi())
            context: ApiContext | None = getattr(self.state, "context", None)
            if context is not None and context.settings.auth is Authentication.OFF:
                document = without_security(document)
            self.openapi_schema = document
        return self.openapi_schema


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; it connects to nothing before it starts.

    Without `settings` it reads the environment when it starts.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        loaded = settings or load_settings()
        configure_logging(loaded.log_format, loaded.log_level)
        refuse_to_be_open(loaded)
        with tracing("onsale-api", SpanSettings()) as tracer:
            async with _running_context(loaded, tracer) as context:
                app.state.context = context
                calm_collector()
                with on_stop_signal(context.let_go, context.draining, loaded.drain_seconds):
                    yield {FAST_LANE: FastLane(context)}

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
        # It would lead to http behind a proxy that ends TLS.
        redirect_slashes=False,
        # Asked of the environment at every request otherwise, an eighth of the time of a submit.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    install_problem_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(AdmissionHeaders)
    app.add_middleware(LoopbackOnly)
    for module in (events, bookings, ledger, box_office, jobs, webhooks, health, metrics, site):
        app.include_router(module.router)
    return app


@asynccontextmanager
async def _running_context(settings: Settings, tracer: Tracer | None) -> AsyncIterator[ApiContext]:
    clock = SystemClock()
    scraper = connect(settings)
    client, enqueuer, subscriber = (
        connect_async(settings),
        connect_async(settings),
        connect_subscriber(settings),
    )
    database = Database(settings, connections_max=settings.api_database_connections_max)
    producer = Producer(client, enqueuer, clock, settings)
    replies = Replies(subscriber, producer, process_id=new_id(), seconds_max=settings.redis_timeout_seconds)
    progress = ProgressReader(client, seconds=settings.stream_position_seconds)
    box_offices = BoxOffices(StandingReader(client), database, clock, settings)
    events = EventLookup(database, producer)
    keys = KeyRing(database, clock, trust_seconds=settings.keys_trust_seconds)
    authenticator = Authenticator(keys, CustomerTokens(settings), clock, settings)
    limiter = RateLimiter(Tallies(client), clock)
    await authenticator.start()
    limiter.start()
    replies.start()
    try:
        yield ApiContext(
            settings=settings,
            clock=clock,
            database=database,
            producer=producer,
            replies=replies,
            progress=progress,
            box_offices=box_offices,
            ledger=LedgerLookup(database),
            events=events,
            owners=EventOwners(events),
            gate=Gate(authenticator, limiter, settings),
            waiters=Slots(settings.waiters_max, too_many="As many clients wait at this process as may."),
            streams=Slots(settings.streams_max, too_many="As many streams are open at this process as may."),
            box_office_streams=Slots(
                limits.BOX_OFFICE_STREAMS_MAX, too_many="As many box offices are open at this process as may."
            ),
            line_status=LineStatus(scraper, clock),
            draining=Draining(),
            tracer=tracer,
        )
    finally:
        await authenticator.stop()
        await limiter.stop()
        await progress.stop()
        await box_offices.stop()
        await replies.stop()
        for each in (client, enqueuer, subscriber):
            await each.aclose()
        scraper.close()
        database.close()


app = create_app()
