"""What went wrong, or was refused, as a problem with its HTTP status (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import orjson
from fastapi import Response
from pydantic import ValidationError

from api.whole_response import WholeResponse
from shared import limits
from shared.domain import OutcomeCode
from shared.metrics import REQUESTS_REFUSED
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


def not_found() -> ProblemDocument:
    """There is no such path."""
    return problem("not-found", "Not found", 404, "There is nothing at this path. See /docs for the paths.")


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


def webhook_not_found(webhook_id: str) -> ProblemDocument:
    """There is no such webhook."""
    return problem(
        "webhook-not-found",
        "Webhook not found",
        404,
        f"There is no webhook {webhook_id!r}. Use an id that GET /events/{{event_id}}/webhooks lists.",
    )


def message_not_found(message_id: str) -> ProblemDocument:
    """There is no such message in the log."""
    return problem(
        "message-not-found",
        "Message not found",
        404,
        f"The webhook has no message {message_id!r} in its log. Use an id that its messages list.",
    )


def webhook_disabled(reason: str) -> ProblemDocument:
    """Nothing is delivered to this webhook."""
    return problem(
        "webhook-disabled",
        "Webhook disabled",
        409,
        f"Nothing is delivered, because {reason}. Enable it with POST /webhooks/{{id}}/enable first.",
    )


def too_many_webhooks() -> ProblemDocument:
    """The event has as many webhooks as it may have."""
    return problem(
        "too-many-webhooks",
        "Too many webhooks",
        409,
        f"An event has {limits.WEBHOOKS_PER_EVENT_MAX} webhooks at most. Delete one first.",
    )


def idempotency_key_reused() -> ProblemDocument:
    """The caller has sent another command with this key."""
    return problem(
        "idempotency-key-reused",
        "Idempotency-Key used before",
        422,
        "This key came before with another request. Use a new key for a new command.",
    )


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
        case OutcomeCode.IDEMPOTENCY_KEY_REUSED:
            return idempotency_key_reused()
        case (
            OutcomeCode.COMMAND_UNREADABLE | OutcomeCode.EVENT_NOT_FOUND | OutcomeCode.POSITION_TAKEN
        ) as code:
            reason = detail.get("reason", "")
            return problem(code.value, "The command could not be applied", 500, f"{reason}. Submit it again.")


def problem_response(document: ProblemDocument, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as the answer to a request."""
    REQUESTS_REFUSED.labels(document["type"]).inc()
    return WholeResponse(orjson.dumps(document), document["status"], headers or {}, PROBLEM_MEDIA_TYPE)


def invalid_body(error: ValidationError) -> ProblemDocument:
    """What is wrong with a body that was read by its model."""
    return invalid_request([(field_name(entry["loc"]), entry["msg"]) for entry in error.errors()])


def invalid_request(fields: Sequence[tuple[str, str]]) -> ProblemDocument:
    """Fields that are wrong, each with what is wrong about it."""
    named = "; ".join(f"{field}: {message}" for field, message in fields)
    document = problem("invalid-request", "Invalid request", 422, f"Correct these fields: {named}.")
    return document | ProblemDocument(
        errors=[{"field": field, "message": message} for field, message in fields]
    )


def field_name(location: Sequence[Any]) -> str:
    """What is wrong with the whole body is in `body`."""
    return ".".join(str(part) for part in location if not isinstance(part, int)) or "body"


def internal_error() -> ProblemDocument:
    """Something is wrong with us."""
    return problem(
        "internal-error", "Internal error", 500, "Something went wrong on our side. Try again later."
    )


def unauthenticated(detail: str) -> ProblemDocument:
    """It is not known who asks."""
    return problem("unauthenticated", "Not authenticated", 401, detail)


def forbidden(detail: str) -> ProblemDocument:
    """Callers of this role can't do this at all."""
    return problem("forbidden", "Not allowed", 403, detail)


def not_on_loopback() -> ProblemDocument:
    """Authentication is off, and the request comes from another machine."""
    return problem(
        "authentication-off",
        "This API serves its own machine only",
        403,
        "Authentication is off here. Set ONSALE_AUTH=required to serve others.",
    )


def metrics_incomplete() -> ProblemDocument:
    """One process of several was asked, and knows only its own figures."""
    return problem(
        "metrics-incomplete",
        "Metrics are incomplete",
        503,
        "Several processes answer here, and each counts for itself. Set PROMETHEUS_MULTIPROC_DIR to an empty"
        " folder before they start, and they add up.",
    )


def unsupported_media_type() -> ProblemDocument:
    """The body is not said to be JSON."""
    return problem(
        "unsupported-media-type",
        "Unsupported media type",
        415,
        "Send JSON, with the header `Content-Type: application/json`.",
    )


def condition_not_supported() -> ProblemDocument:
    """The change should depend on what the event is now."""
    return problem(
        "condition-not-supported",
        "Condition not supported",
        400,
        "A change is decided when its turn in the line comes, whatever the event is then. Send it without"
        " If-Match.",
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


def head_too_large() -> ProblemDocument:
    """The request has more headers, or longer ones, than may be."""
    return problem(
        "head-too-large",
        "Headers too large",
        431,
        f"The head of a request may have {limits.REQUEST_HEAD_BYTES_MAX} bytes and"
        f" {limits.REQUEST_HEADERS_MAX} headers. Send fewer.",
    )


def request_too_slow() -> ProblemDocument:
    """The request did not arrive in time."""
    return problem(
        "request-too-slow",
        "Request too slow",
        408,
        f"The request was not whole within {limits.REQUEST_SECONDS_MAX:.0f} seconds. Send it again.",
    )


def too_many_connections() -> ProblemDocument:
    """The process holds as many connections as it may."""
    return problem(
        "temporarily-unavailable",
        "Temporarily unavailable",
        503,
        "This process has as many connections as it may. Try again, and use one for many requests.",
    )


def not_http() -> ProblemDocument:
    """What came is no HTTP/1.1."""
    return problem(
        "not-http",
        "Not HTTP",
        400,
        "The request can't be read. Send HTTP/1.1, and percent-encode what is not ASCII in the address.",
    )


def body_too_large() -> ProblemDocument:
    """The request's body is over the bound."""
    return problem(
        "body-too-large",
        "Body too large",
        413,
        f"The body may have {limits.REQUEST_BODY_BYTES_MAX} bytes at most. Send a smaller one.",
    )
