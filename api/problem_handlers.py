"""The one place that maps what went wrong to the answer of a request."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.problems import (
    RETRY_AFTER_SECONDS,
    ProblemError,
    body_too_large,
    event_archived,
    field_name,
    idempotency_key_reused,
    internal_error,
    invalid_request,
    not_found,
    problem,
    problem_response,
    sales_not_open,
    too_many_webhooks,
)
from shared import limits
from shared.errors import (
    EventArchived,
    EventLocked,
    IdempotencyKeyReused,
    LineFull,
    OnsaleError,
    RateLimited,
    SalesNotOpen,
    TemporarilyUnavailable,
    TooManyWaiting,
    TooManyWebhooks,
)
from shared.log import log_event

logger = logging.getLogger(__name__)


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of this application a problem, those of the framework too."""
    app.add_exception_handler(ProblemError, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(OnsaleError, _answer_onsale_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_unexpected)


def _answer_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error.problem, error.headers)


def _answer_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(
        invalid_request([(field_name(entry["loc"][1:]), entry["msg"]) for entry in error.errors()])
    )


def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        document = problem(
            "method-not-allowed",
            "Method not allowed",
            405,
            "See the Allow header for what this path takes.",
        )
        return problem_response(document, {"Allow": ", ".join(_allowed_methods(request))})
    if error.status_code == 413:
        return problem_response(body_too_large(), error.headers)
    if error.status_code == 404:
        return problem_response(not_found(), error.headers)
    document = problem("http-error", "Request failed", error.status_code, str(error.detail))
    return problem_response(document, error.headers)


def _allowed_methods(request: Request) -> list[str]:
    """What the routes of a path take together; the router names those of the first only."""
    found: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= route.methods or set()
    return sorted(found)


def _answer_onsale_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OnsaleError)
    return onsale_error_response(error, path=request.url.path)


def onsale_error_response(error: OnsaleError, *, path: str) -> Response:
    """The answer to a request that ran into one of our errors; those without an answer are raised."""
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    match error:
        case SalesNotOpen():
            return problem_response(sales_not_open(error.sales_open_at))
        case EventArchived():
            return problem_response(event_archived())
        case RateLimited():
            document = problem(
                "too-many-requests",
                "Too many requests",
                429,
                f"You made {error}. Try again after Retry-After seconds, and wait for results with"
                " `Prefer: wait` or a stream instead of asking often.",
            )
            headers = {
                "Retry-After": str(error.retry_seconds),
                "RateLimit-Policy": f'"caller";q={error.quota};w={limits.RATE_WINDOW_SECONDS}',
                "RateLimit": f'"caller";r=0;t={error.retry_seconds}',
            }
            return problem_response(document, headers)
        case LineFull():
            document = problem(
                "line-full", "The line is full", 429, f"{error} Try again after Retry-After seconds."
            )
            return problem_response(document, retry)
        case IdempotencyKeyReused():
            return problem_response(idempotency_key_reused())
        case TooManyWebhooks():
            return problem_response(too_many_webhooks())
        case TemporarilyUnavailable() | EventLocked():
            log_event(logger, logging.WARNING, "temporarily unavailable", path=path, reason=error)
            away = "A server that is needed does not answer."
            reason = error if isinstance(error, TooManyWaiting) else away
            document = problem(
                "temporarily-unavailable",
                "Temporarily unavailable",
                503,
                f"{reason} Try again after Retry-After seconds.",
            )
            return problem_response(document, retry)
        case _:
            raise error


def _answer_nobody(_request: Request, _error: Exception) -> Response:
    """The client hung up before its request was whole: there is nobody to answer and nothing to log."""
    return Response(status_code=400)


def _answer_unexpected(request: Request, error: Exception) -> Response:
    """Starlette logs the traceback of what arrives here."""
    log_event(logger, logging.ERROR, "unexpected error", path=request.url.path, reason=repr(error))
    return problem_response(internal_error())
