"""What the buyers write down: every command, and everything that they were told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.domain import CommandKind, JobStatus, OutcomeCode

BY_THE_RULES = (
    OutcomeCode.BOOKED.value,
    OutcomeCode.CANCELLED.value,
    OutcomeCode.NOT_ENOUGH_TICKETS.value,
    OutcomeCode.USER_LIMIT_EXCEEDED.value,
)
"""What can become of a command that stood in line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer. Times are seconds since the rush began.

    Who has to wait is told the `position` of their job; who has not, the `outcome`: what
    was done, or why not, as the API names it.
    """

    at: float
    http_status: int
    job_id: str | None = None
    position: int | None = None
    ahead: int | None = None
    outcome: str | None = None
    booking_id: str | None = None
    holder: tuple[str, int] | None = None
    """User and number of tickets of the booking in the answer."""

    @property
    def is_done(self) -> bool:
        """Whether the buyer knows what became of the command."""
        return self.outcome is not None


@dataclass(slots=True, kw_only=True)
class Command:
    """A booking or a cancellation under one Idempotency-Key, however often it was sent."""

    kind: CommandKind
    user_id: str
    ticket_count: int = 0
    cancels: str | None = None
    """The booking that a cancellation gives back."""
    sent_at: float
    told: list[Told] = field(default_factory=list)

    @property
    def job_id(self) -> str | None:
        """The job that it became, if its buyer was told."""
        return next((told.job_id for told in self.told if told.job_id is not None), None)

    @property
    def outcome(self) -> str | None:
        """What became of it, as far as its buyer was told."""
        return self.told[-1].outcome if self.told else None

    @property
    def is_accepted(self) -> bool:
        """Whether its buyer was told that it got a place in line, or what the rules made of it there."""
        return self.job_id is not None or self.outcome in BY_THE_RULES

    @property
    def booking_id(self) -> str | None:
        """The booking that it made or gave back."""
        return self.told[-1].booking_id if self.told else None

    @property
    def tickets_gained(self) -> int:
        """Tickets that its buyer was told to have by it."""
        return self.ticket_count if self.outcome == OutcomeCode.BOOKED else 0

    @property
    def tickets_given_back(self) -> int:
        """Tickets that its buyer was told to have no more."""
        return self.ticket_count if self.outcome == OutcomeCode.CANCELLED else 0

    @property
    def asked(self) -> Mapping[str, object]:
        """What the ledger must say that was asked for."""
        if self.kind is CommandKind.BOOK:
            return {"user_id": self.user_id, "ticket_count": self.ticket_count}
        return {"booking_id": self.cancels}


@dataclass(slots=True)
class Journal:
    """All commands of all buyers, with the sums that can be watched while they grow."""

    commands: list[Command] = field(default_factory=list)
    decided: int = 0
    """Commands that have stood in line and are answered."""
    newest_position: int = 0
    applied_position: int = 0
    """As far as the line has come, by what anybody was told."""
    outcomes: Counter[str] = field(default_factory=Counter)
    placed_after: list[float] = field(default_factory=list)
    """Seconds from each command to its place in line."""
    answered_after: list[float] = field(default_factory=list)
    """Seconds from each command to its outcome."""
    put_off: Counter[str] = field(default_factory=Counter)
    """Requests that had to be sent again, by reason."""
    tickets_left: int | None = None
    """As the event itself said last."""

    def send(self, command: Command) -> None:
        """A command is sent for the first time."""
        self.commands.append(command)

    def hear(self, command: Command, told: Told) -> None:
        """A command is answered."""
        if told.position is not None:
            self._see_position(command, told)
        command.told.append(told)
        if told.outcome is not None:
            self._see_outcome(command, told)

    def _see_position(self, command: Command, told: Told) -> None:
        assert told.position is not None
        if not command.told:
            self.placed_after.append(told.at - command.sent_at)
        done = told.position if told.is_done else told.position - (told.ahead or 0) - 1
        self._see_line(told.position, done)

    def _see_line(self, position: int, applied_position: int) -> None:
        self.newest_position = max(self.newest_position, position)
        self.applied_position = max(self.applied_position, applied_position)

    def _see_outcome(self, command: Command, told: Told) -> None:
        assert told.outcome is not None
        self.outcomes[told.outcome] += 1
        self.answered_after.append(told.at - command.sent_at)
        if told.outcome in BY_THE_RULES:
            self.decided += 1
            self._see_line(self.decided, self.decided)


_DONE: Mapping[CommandKind, str] = {
    CommandKind.BOOK: OutcomeCode.BOOKED.value,
    CommandKind.CANCEL: OutcomeCode.CANCELLED.value,
}


def told_of(kind: CommandKind, at: float, http_status: int, document: Any) -> Told:
    """Read an answer: a job, a booking in its final form, or a problem."""
    if not isinstance(document, dict):
        return Told(at=at, http_status=http_status, outcome=f"status-{http_status}")
    if "done" in document:
        return _told_of_job(kind, at, http_status, document)
    if http_status < 300:
        return Told(
            at=at,
            http_status=http_status,
            outcome=_DONE[kind],
            booking_id=document["id"],
            holder=_holder(document),
        )
    return Told(at=at, http_status=http_status, outcome=reason_of(http_status, document))


def reason_of(http_status: int, document: Any) -> str:
    """Why a request was refused: the type of a problem, or what another service says instead."""
    members = document if isinstance(document, dict) else {}
    said = members.get("type") or members.get("detail")
    if isinstance(said, str):
        return said.replace(" ", "-")
    return "invalid-request" if http_status == 422 else f"status-{http_status}"


def _told_of_job(kind: CommandKind, at: float, http_status: int, job: Mapping[str, Any]) -> Told:
    outcome = None
    if job["done"]:
        has_succeeded = job["status"] == JobStatus.SUCCEEDED
        outcome = _DONE[kind] if has_succeeded else (job["error"] or {}).get("type", job["status"])
    return Told(
        at=at,
        http_status=http_status,
        job_id=job["id"],
        position=job["position"],
        ahead=job["ahead"],
        outcome=outcome,
        booking_id=job["booking_id"],
        holder=_holder(job["booking"]) if job["booking"] else None,
    )


def _holder(booking: Mapping[str, Any]) -> tuple[str, int]:
    return booking["user_id"], booking["ticket_count"]
