"""The one place that maps what went wrong, or was refused, to an HTTP status and a problem (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from shared import limits
from shared.domain import OutcomeCode
from shared.errors import (
    EventArchived,
    IdempotencyKeyReused,
    LineFull,
    OnsaleError,
    SalesNotOpen,
    TemporarilyUnavailable,
)
from shared.log import log_event
from shared.records import JobResult

logger = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1


class ProblemDocument(TypedDict, total=False):
    """A problem as JSON."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]]
    available_tickets: int
    held_tickets: int
    max_tickets_per_user: int
    sold_tickets: int
    sales_open_at: str


class ProblemError(Exception):
    """Ends a request with this problem."""

    def __init__(self, problem: ProblemDocument, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem["detail"])
        self.problem = problem
        self.headers = dict(headers or {})


def problem(type_name: str, title: str, status: int, detail: str) -> ProblemDocument:
    """A problem without further members."""
    return ProblemDocument(type=type_name, title=title, status=status, detail=detail)


def event_not_found(event_id: str) -> ProblemDocument:
    """There is no such event."""
    return problem(
        "event-not-found",
        "Event not found",
        404,
        f"There is no event {event_id!r}. Use an id that POST /events has given.",
    )


def event_archived() -> ProblemDocument:
    """There was such an event."""
    return problem(
        "event-archived",
        "Event archived",
        410,
        "The event is over and was archived, with its bookings and jobs. Ask its organiser for the archive.",
    )


def booking_not_found(booking_id: str) -> ProblemDocument:
    """There is no such booking."""
    return problem(
        "booking-not-found",
        "Booking not found",
        404,
        f"There is no booking {booking_id!r}. Use the booking_id of a job that succeeded."
        " Bookings of archived events are in their archives only.",
    )


def job_not_found(job_id: str) -> ProblemDocument:
    """There is no such job."""
    return problem(
        "job-not-found",
        "Job not found",
        404,
        f"There is no job {job_id!r}. Use the id that a submit has given."
        " Jobs of archived events are in their archives only.",
    )


def sales_not_open(sales_open_at: str) -> ProblemDocument:
    """A booking came before the sales."""
    refusal = problem(
        "sales-not-open", "Sales are not open yet", 400, f"Sales open at {sales_open_at}. Try again then."
    )
    return refusal | ProblemDocument(sales_open_at=sales_open_at)


def outcome_problem(result: JobResult) -> ProblemDocument | None:
    """The problem that a job's outcome is to its client, or None if the command succeeded."""
    detail = result["detail"]
    match OutcomeCode(result["outcome"]):
        case OutcomeCode.BOOKED | OutcomeCode.CANCELLED | OutcomeCode.CHANGED:
            return None
        case OutcomeCode.NOT_ENOUGH_TICKETS:
            left = detail["available_tickets"]
            refusal = problem(
                "not-enough-tickets",
                "Not enough tickets left",
                400,
                f"{left} tickets are left. Ask for that many at most, or try again when some are returned.",
            )
            return refusal | ProblemDocument(available_tickets=left)
        case OutcomeCode.USER_LIMIT_EXCEEDED:
            held, limit = detail["held_tickets"], detail["max_tickets_per_user"]
            refusal = problem(
                "user-limit-exceeded",
                "Limit per user exceeded",
                400,
                f"The user holds {held} of at most {limit} tickets. Ask for fewer, or cancel one first.",
            )
            return refusal | ProblemDocument(held_tickets=held, max_tickets_per_user=limit)
        case OutcomeCode.ALREADY_CANCELLED:
            return problem(
                "already-cancelled",
                "Booking already cancelled",
                400,
                "The booking was cancelled before; there is nothing left to do.",
            )
        case OutcomeCode.SALES_NOT_OPEN:
            return sales_not_open(detail["sales_open_at"])
        case OutcomeCode.SALES_CLOSED:
            return problem(
                "sales-closed",
                "Sales are closed",
                400,
                "The organiser has closed the sales of this event. Bookings can still be cancelled.",
            )
        case OutcomeCode.TOTAL_BELOW_SOLD:
            sold = detail["sold_tickets"]
            refusal = problem(
                "total-below-sold",
                "Total below what is sold",
                409,
                f"{sold} tickets are sold. Set total_tickets to that many at least, or cancel some first.",
            )
            return refusal | ProblemDocument(sold_tickets=sold)
        case OutcomeCode.BOOKING_NOT_FOUND:
            return booking_not_found(result["booking_id"] or "")
        case OutcomeCode.WITHDRAWN:
            return problem(
                "withdrawn",
                "The command was withdrawn",
                409,
                "It was taken back before its turn came, so it changed nothing. Submit a new one.",
            )
        case OutcomeCode.REPEATED:
            return problem(
                "repeated",
                "The command was applied before",
                409,
                "This position repeats an earlier command. Ask for the job that was applied.",
            )
        case (
            OutcomeCode.COMMAND_UNREADABLE | OutcomeCode.EVENT_NOT_FOUND | OutcomeCode.POSITION_TAKEN
        ) as code:
            reason = detail.get("reason", "")
            return problem(code.value, "The command could not be applied", 500, f"{reason}. Submit it again.")


def problem_response(document: ProblemDocument, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as the answer to a request."""
    return Response(
        orjson.dumps(document), document["status"], dict(headers or {}), media_type=PROBLEM_MEDIA_TYPE
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of this application a problem, those of the framework too."""
    app.add_exception_handler(ProblemError, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(OnsaleError, _answer_onsale_error)
    app.add_exception_handler(Exception, _answer_unexpected)


def _answer_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error.problem, error.headers)


def _answer_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(
        invalid_request([(_field_name(entry["loc"][1:]), entry["msg"]) for entry in error.errors()])
    )


def invalid_body(error: ValidationError) -> ProblemDocument:
    """What is wrong with a body that was read by its model."""
    return invalid_request([(_field_name(entry["loc"]), entry["msg"]) for entry in error.errors()])


def invalid_request(fields: Sequence[tuple[str, str]]) -> ProblemDocument:
    """Fields that are wrong, each with what is wrong about it."""
    named = "; ".join(f"{field}: {message}" for field, message in fields)
    document = problem("invalid-request", "Invalid request", 422, f"Correct these fields: {named}.")
    return document | ProblemDocument(
        errors=[{"field": field, "message": message} for field, message in fields]
    )


def _field_name(location: Sequence[Any]) -> str:
    """What is wrong with the whole body is in `body`."""
    return ".".join(str(part) for part in location if not isinstance(part, int)) or "body"


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
    if error.status_code == 400:
        # FastAPI's word for a body that is not even text.
        return problem_response(invalid_request([("body", "send JSON, in UTF-8")]))
    if error.status_code == 413:
        return problem_response(body_too_large(), error.headers)
    titles = {
        404: ("not-found", "Not found", "There is nothing at this path. See /docs for the paths."),
    }
    type_name, title, detail = titles.get(
        error.status_code, ("http-error", "Request failed", str(error.detail))
    )
    return problem_response(problem(type_name, title, error.status_code, detail), error.headers)


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
        case LineFull():
            document = problem(
                "line-full", "The line is full", 429, f"{error} Try again after Retry-After seconds."
            )
            return problem_response(document, retry)
        case IdempotencyKeyReused():
            return problem_response(
                problem(
                    "idempotency-key-reused",
                    "Idempotency-Key used before",
                    422,
                    "This key came before with another request. Use a new key for a new command.",
                )
            )
        case TemporarilyUnavailable():
            log_event(logger, logging.WARNING, "temporarily unavailable", path=path, reason=error)
            document = problem(
                "temporarily-unavailable",
                "Temporarily unavailable",
                503,
                "A server that is needed does not answer. Try again after Retry-After seconds.",
            )
            return problem_response(document, retry)
        case _:
            raise error


def _answer_unexpected(request: Request, error: Exception) -> Response:
    """Starlette logs the traceback of what arrives here."""
    log_event(logger, logging.ERROR, "unexpected error", path=request.url.path, reason=repr(error))
    return problem_response(internal_error())


def internal_error() -> ProblemDocument:
    """Something is wrong with us."""
    return problem(
        "internal-error", "Internal error", 500, "Something went wrong on our side. Try again later."
    )


def unsupported_media_type() -> ProblemDocument:
    """The body is not said to be JSON."""
    return problem(
        "unsupported-media-type",
        "Unsupported media type",
        415,
        "Send JSON, with the header `Content-Type: application/json`.",
    )


def idempotency_key_malformed() -> ProblemDocument:
    """The Idempotency-Key header is not what it must be."""
    return problem(
        "idempotency-key-malformed",
        "Malformed Idempotency-Key",
        400,
        f"Send an Idempotency-Key of 1 to {limits.IDEMPOTENCY_KEY_LENGTH_MAX} visible ASCII characters,"
        " for example a UUID.",
    )


def body_too_large() -> ProblemDocument:
    """The request's body is over the bound."""
    return problem(
        "body-too-large",
        "Body too large",
        413,
        f"The body may have {limits.REQUEST_BODY_BYTES_MAX} bytes at most. Send a smaller one.",
    )
