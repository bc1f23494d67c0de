"""Health: whether the process lives, and whether it can accept commands."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from api.context import ApiContext, Context
from api.schemas import Health, Readiness
from api.submit import json_response
from shared.database import statements
from shared.errors import DatabaseUnavailable, LineUnavailable
from shared.settings import Durability

router = APIRouter(tags=["health"])


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Health, summary="Is the process alive?")
async def health() -> Response:
    """Asks no other server."""
    return json_response({"status": "ok"})


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    response_model=Readiness,
    summary="Can commands be accepted?",
    responses={503: {"model": Readiness, "description": "no"}},
)
async def ready(context: Context) -> Response:
    """503 if Redis is away or less durable than required. Without PostgreSQL commands are still accepted
    and wait: `degraded`. A process that was asked to end serves on for a while: `draining`, 503."""
    durability, redis_ok = await _durability(context)
    postgresql_ok = await run_in_threadpool(_database_answers, context)
    required = context.settings.durability
    replicas = await _replicas(context) if redis_ok else 0
    durable_enough = durability is None or _rank(durability) >= _rank(required)
    accepting = redis_ok and durable_enough and replicas >= context.settings.durable_replicas
    status = "unavailable" if not accepting else "ready" if postgresql_ok else "degraded"
    if context.draining.has_begun:
        accepting, status = False, "draining"
    document = {
        "status": status,
        "redis": "ok" if redis_ok else "unavailable",
        "postgresql": "ok" if postgresql_ok else "unavailable",
        "durability": durability.value if durability else "unknown",
        "durability_required": required.value,
        "replicas": replicas,
        "replicas_required": context.settings.durable_replicas,
    }
    return json_response(document, 200 if accepting else 503)


def _rank(durability: Durability) -> int:
    return [Durability.NONE, Durability.EVERYSEC, Durability.ALWAYS].index(durability)


async def _durability(context: ApiContext) -> tuple[Durability | None, bool]:
    try:
        return await context.producer.durability(), True
    except LineUnavailable:
        return None, False


async def _replicas(context: ApiContext) -> int:
    try:
        return await context.producer.replicas_online()
    except LineUnavailable:
        return 0


def _database_answers(context: ApiContext) -> bool:
    try:
        with context.database.transaction() as connection:
            statements.ping(connection)
    except DatabaseUnavailable:
        return False
    return True
