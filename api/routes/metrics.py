"""Metrics, for Prometheus."""

from __future__ import annotations

from multiprocessing import parent_process

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from api.context import Context
from api.openapi import PROBLEMS
from api.problems import ProblemError, metrics_incomplete
from shared.metrics import CONTENT_TYPE, IS_SHARED, exposition

router = APIRouter(tags=["health"])


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    response_class=Response,
    summary="What this API does, for Prometheus",
    responses={
        200: {
            "description": "metrics in Prometheus's text format; docs/metrics.md explains each",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **PROBLEMS[503],
    },
)
async def metrics(context: Context) -> Response:
    """Of all processes behind this port, if there are several: they add up in the folder that
    `PROMETHEUS_MULTIPROC_DIR` names. Without it each could tell only of itself, so none does."""
    if _is_one_of_several() and not IS_SHARED:
        raise ProblemError(metrics_incomplete())
    body = await run_in_threadpool(exposition, context.line_status)
    return Response(body, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


def _is_one_of_several() -> bool:
    """Whether this process was started by `uvicorn --workers` (or `--reload`)."""
    return parent_process() is not None
