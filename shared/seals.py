"""Digests that show a change of what was written: of a ledger as a whole, and of an event's row. Pure.

Each ledger row is chained to those before it (a hash chain, as in Haber and Stornetta, 1991); the event's row
keeps the newest link and, in its seal, a digest of all its own columns. They show what was changed by mistake
or by hand. They hold no secret, so they do not stop somebody who computes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256

import orjson
from msgspec.structs import replace

from shared.clock import format_time
from shared.domain import SaleTerms
from shared.records import EventRecord, LedgerRecord


def _canonical(document: object) -> str:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def ledger_line(record: LedgerRecord) -> str:
    """The one text form of a ledger row: what is stored, and what the digest is made of.

    The columns in the order of the table, separated by tabs, empty where there is nothing. No column
    contains a tab: JSON escapes it, a trace has none. The trace, which a later version brought, stands
    there where it is set, so that earlier digests stay valid.
    """
    columns: tuple[str, ...] = (
        record.job_id,
        record.event_id,
        str(record.position),
        record.kind,
        "" if record.payload is None else _canonical(record.payload),
        record.outcome,
        _canonical(record.detail) if record.detail else "",
        record.booking_id or "",
        format_time(record.accepted_at),
        format_time(record.applied_at),
    )
    if record.trace is not None:
        columns += (record.trace,)
    return "\t".join(columns)


def empty_ledger_digest(event_id: str) -> bytes:
    """The digest of a ledger without rows."""
    return sha256(event_id.encode()).digest()


def extended_digest(digest: bytes, lines: Iterable[str]) -> bytes:
    """The digest of a ledger after these rows, given the one before them."""
    for line in lines:
        digest = sha256(digest + line.encode()).digest()
    return digest


def sealed(event: EventRecord) -> EventRecord:
    """The same event with the seal that its other columns give.

    Columns that later versions brought count where they are set, so that earlier seals stay valid.
    """
    columns: tuple[object, ...] = (
        event.id,
        event.name,
        event.total_tickets,
        event.available_tickets,
        event.max_tickets_per_user,
        event.applied_position,
        event.fencing_token,
        format_time(event.created_at),
        format_time(event.updated_at),
        event.ledger_digest.hex(),
    )
    if event.organiser_id is not None:
        columns += ("organiser_id", event.organiser_id)
    if event.sales_open_at is not None:
        columns += ("sales_open_at", format_time(event.sales_open_at))
    if event.sales_closed:
        columns += ("sales_closed",)
    if event.archived_at is not None:
        columns += ("archived_at", format_time(event.archived_at))
    return replace(event, seal=sha256(_canonical(columns).encode()).digest())


def new_event(
    *, id: str, terms: SaleTerms, created_at: datetime, organiser_id: str | None = None
) -> EventRecord:
    """An event with all its tickets for sale and an empty ledger, sealed."""
    return sealed(
        EventRecord(
            id=id,
            name=terms.name,
            total_tickets=terms.total_tickets,
            available_tickets=terms.total_tickets,
            max_tickets_per_user=terms.max_tickets_per_user,
            sales_open_at=terms.sales_open_at,
            sales_closed=terms.sales_closed,
            organiser_id=organiser_id,
            applied_position=0,
            fencing_token=0,
            created_at=created_at,
            updated_at=created_at,
            ledger_digest=empty_ledger_digest(id),
            seal=b"",
        )
    )
