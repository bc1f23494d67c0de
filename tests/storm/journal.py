"""What the clients of a storm write down: everything that they sent and everything that they were told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.domain import CommandKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer. Times are seconds of the storm's monotonic clock."""

    sent_at: float
    told_at: float
    http_status: int
    job_id: str | None = None
    position: int | None = None
    is_done: bool = False
    job_status: str | None = None
    error_type: str | None = None
    booking_id: str | None = None
    holder: tuple[str, int] | None = None
    """User and number of tickets of the booking in the answer."""
    figures: tuple[int | None, int | None] = (None, None)
    """Tickets left and tickets held, as a refusal gives them."""

    @property
    def says_accepted(self) -> bool:
        """Whether the client may rely on the command from now on."""
        return self.job_id is not None


@dataclass(slots=True, kw_only=True)
class SentCommand:
    """A command under one Idempotency-Key, however often it was sent."""

    key: str
    event_id: str
    kind: CommandKind
    user_id: str | None = None
    ticket_count: int | None = None
    booking_id: str | None = None
    first_sent_at: float = 0.0
    attempts: int = 0
    is_withdrawal_asked: bool = False
    told: list[Told] = field(default_factory=list)
    told_of_other_body: list[Told] = field(default_factory=list)
    """Answers to another command that was sent under the same key on purpose."""

    @property
    def payload(self) -> dict[str, object]:
        """What the ledger must say that was asked for."""
        if self.kind is CommandKind.BOOK:
            return {"user_id": self.user_id, "ticket_count": self.ticket_count}
        return {"booking_id": self.booking_id}

    @property
    def job_id(self) -> str | None:
        """The job that the client was told of, once it was."""
        return next((told.job_id for told in self.told if told.job_id is not None), None)

    @property
    def is_accepted(self) -> bool:
        """Whether the client was told that its command is accepted."""
        return any(told.says_accepted for told in self.told)

    @property
    def is_answered(self) -> bool:
        """Whether the client knows what became of its command."""
        return any(told.is_done for told in self.told)


@dataclass(slots=True)
class Journal:
    """All commands of all clients, and answers that no server may give."""

    commands: list[SentCommand] = field(default_factory=list)
    strange_answers: list[str] = field(default_factory=list)
    refused_for_now: int = 0
    """Answers 503 and 429."""
    cut_off: int = 0
    """Requests that ended without an answer."""


def told_of(sent_at: float, told_at: float, http_status: int, document: Mapping[str, Any]) -> Told:
    """Read an answer: a job, a booking in its final form, or a problem."""
    if "done" in document:
        return _told_of_job(sent_at, told_at, http_status, document)
    if http_status == 201:
        return Told(
            sent_at=sent_at,
            told_at=told_at,
            http_status=http_status,
            job_id=document["id"],
            is_done=True,
            job_status="succeeded",
            booking_id=document["id"],
            holder=(document["user_id"], document["ticket_count"]),
        )
    if http_status == 200:
        return Told(
            sent_at=sent_at,
            told_at=told_at,
            http_status=http_status,
            is_done=True,
            job_status="succeeded",
            booking_id=document["id"],
        )
    return Told(
        sent_at=sent_at,
        told_at=told_at,
        http_status=http_status,
        is_done=True,
        error_type=document["type"],
        figures=_figures(document),
    )


def _told_of_job(sent_at: float, told_at: float, http_status: int, job: Mapping[str, Any]) -> Told:
    booking, error = job["booking"], job["error"] or {}
    return Told(
        sent_at=sent_at,
        told_at=told_at,
        http_status=http_status,
        job_id=job["id"],
        position=job["position"],
        is_done=job["done"],
        job_status=job["status"],
        error_type=error.get("type"),
        booking_id=job["booking_id"],
        holder=(booking["user_id"], booking["ticket_count"]) if booking else None,
        figures=_figures(error),
    )


def _figures(problem: Mapping[str, Any]) -> tuple[int | None, int | None]:
    return problem.get("available_tickets"), problem.get("held_tickets")
