"""What a box office shows of a sale, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from shared import limits
from shared.clock import format_time
from shared.database.box_office import Latency, Sale
from shared.domain import OutcomeCode
from shared.line.standing import Standing
from shared.records import EventRecord, EventView, LedgerView, event_view, ledger_view


class SalesState(StrEnum):
    """What a buyer who comes now meets with."""

    OPEN = "open"
    NOT_OPEN_YET = "not-open-yet"
    CLOSED = "closed"
    SOLD_OUT = "sold-out"


class LineDocument(TypedDict):
    """The line as JSON."""

    length: int
    oldest_wait_seconds: float
    drain_rate: float | None
    accepted_position: int | None
    applied_position: int | None


class LatencyDocument(TypedDict):
    """How long commands took, as JSON."""

    p50_seconds: float
    p99_seconds: float
    commands: int
    over_seconds: float


class BoxOfficeDocument(TypedDict):
    """A snapshot of a sale as JSON."""

    at: str
    not_answering: list[str]
    event: EventView
    sales: str
    sold_tickets: int
    line: LineDocument | None
    applied_position: int
    counted_position: int
    outcomes: dict[str, dict[str, int]]
    latency: LatencyDocument | None
    entries: list[LedgerView]
    demo: bool


def box_office_document(
    sale: Sale, standing: Standing | None, *, at: datetime, not_answering: Sequence[str], demo: bool
) -> BoxOfficeDocument:
    """Show a sale. Of a server that is not answering now it has what it said last."""
    event = sale.event
    return {
        "at": format_time(at),
        "not_answering": list(not_answering),
        "event": event_view(event),
        "sales": sales_state(event, at).value,
        "sold_tickets": event.total_tickets - event.available_tickets,
        "line": None if standing is None else _line(standing, at),
        "applied_position": event.applied_position,
        "counted_position": sale.counted.position,
        "outcomes": _by_status(sale.counted.outcomes),
        "latency": None if sale.latency is None else _latency(sale.latency),
        "entries": [ledger_view(entry) for entry in sale.entries],
        "demo": demo,
    }


def sales_state(event: EventRecord, at: datetime) -> SalesState:
    """How sales stand: what the organiser has decided comes before what is left."""
    if event.sales_closed:
        return SalesState.CLOSED
    if event.sales_open_at is not None and at < event.sales_open_at:
        return SalesState.NOT_OPEN_YET
    return SalesState.OPEN if event.available_tickets else SalesState.SOLD_OUT


def _line(standing: Standing, at: datetime) -> LineDocument:
    first = standing.first_accepted_at
    return {
        "length": standing.length,
        "oldest_wait_seconds": 0.0 if first is None else round(max((at - first).total_seconds(), 0.0), 3),
        "drain_rate": standing.drain_rate,
        "accepted_position": standing.accepted_position,
        "applied_position": standing.applied_position,
    }


def _latency(latency: Latency) -> LatencyDocument:
    return {
        "p50_seconds": round(latency.p50_seconds, 6),
        "p99_seconds": round(latency.p99_seconds, 6),
        "commands": latency.commands,
        "over_seconds": limits.BOX_OFFICE_LATENCY_SECONDS,
    }


def _by_status(outcomes: Mapping[OutcomeCode, int]) -> dict[str, dict[str, int]]:
    """Counts by status of the job and outcome: a refusal by the rules is among the `rejected`."""
    grouped: dict[str, dict[str, int]] = {}
    for code in OutcomeCode:
        if outcomes.get(code):
            grouped.setdefault(code.job_status.value, {})[code.value] = outcomes[code]
    return grouped
