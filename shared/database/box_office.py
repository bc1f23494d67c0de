"""What a box office reads of an event's ledger: a bounded stretch, by its index of positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from shared import limits
from shared.database.statements import ledger_record
from shared.database.tables import ledger
from shared.domain import OutcomeCode
from shared.records import EventRecord, LedgerRecord

_MEDIAN, _NEARLY_ALL = 0.5, 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long commands took from acceptance until they were applied, in seconds: half of them, and 99 %."""

    commands: int
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What became of an event's commands, up to a position."""

    position: int = 0
    outcomes: Mapping[OutcomeCode, int] = field(default_factory=dict)

    def plus(self, outcomes: Mapping[OutcomeCode, int], *, position: int) -> Counted:
        """These, and what was found from there up to that position."""
        both = self.outcomes.keys() | outcomes.keys()
        return Counted(
            position=position,
            outcomes={code: self.outcomes.get(code, 0) + outcomes.get(code, 0) for code in both},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """What PostgreSQL holds of an event. `counted` may not have come to its end yet."""

    event: EventRecord
    counted: Counted
    latency: Latency | None
    entries: Sequence[LedgerRecord]


def read_sale(
    connection: Connection,
    event: EventRecord,
    *,
    before: Sale | None,
    counted: Counted,
    count_max: int,
    now: datetime,
) -> Sale:
    """A sale as it is, by what was known `before`; of one in which nothing happens nothing is read.

    The ledger is counted on from `counted`, so many rows at most.
    """
    if before is not None and before.event.applied_position == event.applied_position:
        entries, has_latency = before.entries, before.latency is not None
    else:
        entries, has_latency = newest_entries(connection, event.id, count=limits.BOX_OFFICE_ENTRIES), True
    return Sale(
        event=event,
        counted=_count_on(connection, event, counted, count_max),
        latency=_latest(connection, event, now) if has_latency else None,
        entries=entries,
    )


def count_outcomes(
    connection: Connection, event_id: str, *, after_position: int, until_position: int
) -> dict[OutcomeCode, int]:
    """What became of the commands at these positions; without gaps, they bound what is read."""
    rows = connection.execute(
        select(ledger.c.outcome, func.count())
        .where(
            ledger.c.event_id == event_id,
            ledger.c.position > after_position,
            ledger.c.position <= until_position,
        )
        .group_by(ledger.c.outcome)
    )
    return {OutcomeCode(outcome): count for outcome, count in rows}


def latency(
    connection: Connection, event_id: str, *, after_position: int, applied_after: datetime
) -> Latency | None:
    """That of the commands behind this position, of those applied since; None if there are none."""
    took = func.extract("epoch", ledger.c.applied_at - ledger.c.accepted_at)
    count, p50, p99 = connection.execute(
        select(
            func.count(),
            *(func.percentile_cont(share).within_group(took) for share in (_MEDIAN, _NEARLY_ALL)),
        ).where(
            ledger.c.event_id == event_id,
            ledger.c.position > after_position,
            ledger.c.applied_at > applied_after,
        )
    ).one()
    # By two clocks, of the API and of the worker; nothing is applied before it was accepted.
    return Latency(commands=count, p50_seconds=max(p50, 0.0), p99_seconds=max(p99, 0.0)) if count else None


def newest_entries(connection: Connection, event_id: str, *, count: int) -> Sequence[LedgerRecord]:
    """The end of an event's ledger, the newest first."""
    statement = (
        select(ledger).where(ledger.c.event_id == event_id).order_by(ledger.c.position.desc()).limit(count)
    )
    return [ledger_record(row) for row in connection.execute(statement)]


def _count_on(connection: Connection, event: EventRecord, counted: Counted, count_max: int) -> Counted:
    """After a restore the ledger may end before what was counted; then all is counted anew."""
    if counted.position > event.applied_position:
        counted = Counted()
    until = min(event.applied_position, counted.position + count_max)
    if until == counted.position:
        return counted
    found = count_outcomes(connection, event.id, after_position=counted.position, until_position=until)
    return counted.plus(found, position=until)


def _latest(connection: Connection, event: EventRecord, now: datetime) -> Latency | None:
    return latency(
        connection,
        event.id,
        after_position=event.applied_position - limits.BOX_OFFICE_LATENCY_ROWS_MAX,
        applied_after=now - timedelta(seconds=limits.BOX_OFFICE_LATENCY_SECONDS),
    )
