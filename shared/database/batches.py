"""The SQL of a batch: what opens its transaction, and all that it writes, each in one round trip.

The time of a small batch goes into round trips and into planning. So its rows travel as arrays in the text of
one request, which for a large one is about as quick as COPY, and the server keeps its statements' plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Column, Connection, make_url

from shared.database.prepared import Prepared, Statement, run
from shared.database.statements import EVENT_COLUMNS
from shared.database.tables import bookings, ledger
from shared.domain import BookingStatus
from shared.records import BookingRecord, EventRecord

_POSTGRESQL = make_url("postgresql+psycopg2://").get_dialect()()


def _types(columns: Iterable[Column[Any]]) -> dict[str, str]:
    """The types of columns as PostgreSQL names them."""
    return {column.name: column.type.compile(dialect=_POSTGRESQL) for column in columns}


_EVENT_TYPES = _types(EVENT_COLUMNS)
_EVENT_NAMES = tuple(_EVENT_TYPES)
_BOOKING_TYPES = _types(bookings.columns)

# The columns of the ledger, in the order of `shared.seals.ledger_line`.
_LEDGER_TYPES = _types(
    ledger.columns[name]
    for name in (
        "job_id",
        "event_id",
        "position",
        "kind",
        "payload",
        "outcome",
        "detail",
        "booking_id",
        "accepted_at",
        "applied_at",
        "trace",
    )
)
_LEDGER_TEXTS = frozenset({"payload", "detail", "trace"})
"""Columns whose values may have characters that mean something in the text of an array."""
_OF_THE_BATCH = frozenset({"event_id", "applied_at"})
"""Columns that have one value in all rows of a batch."""

_UNCHANGING = frozenset({"id", "created_at"})
_EXPECTED_NAMES = [name for name in _EVENT_NAMES if name not in _UNCHANGING]

_TYPES = {
    **_EVENT_TYPES,
    "event_id": _EVENT_TYPES["id"],
    "user_ids": f"{_BOOKING_TYPES['user_id']}[]",
    "cancelled": f"{_BOOKING_TYPES['id']}[]",
    "made_ids": f"{_BOOKING_TYPES['id']}[]",
    "made_user_ids": f"{_BOOKING_TYPES['user_id']}[]",
    "made_ticket_counts": f"{_BOOKING_TYPES['ticket_count']}[]",
    "made_statuses": f"{_BOOKING_TYPES['status']}[]",
    **{
        f"ledger_{name}": type if name in _OF_THE_BATCH else f"{type}[]"
        for name, type in _LEDGER_TYPES.items()
    },
    **{f"expected_{name}": _EVENT_TYPES[name] for name in _EXPECTED_NAMES},
}

_EVENT_PARAMETERS = (
    "name",
    "total_tickets",
    "sales_open_at",
    "sales_closed",
    "available_tickets",
    "applied_position",
    "fencing_token",
    "updated_at",
    "ledger_digest",
    "seal",
)

# A statement of its own before the read, which so sees what was committed while this one waited.
_LOCK_EVENT = Prepared("onsale_lock_event", "SELECT FROM events WHERE id = %(event_id)s FOR UPDATE", _TYPES)

_HOLDINGS = """
    SELECT CAST(json_object_agg(held.user_id, held.tickets) AS text)
    FROM (SELECT user_id, sum(ticket_count) AS tickets FROM bookings
          WHERE event_id = %(event_id)s AND user_id = ANY(%(user_ids)s) AND status = 'active'
          GROUP BY user_id) AS held
"""

_READ_EVENT = Prepared(
    "onsale_read_event",
    f"""
SELECT {", ".join(f"events.{name}" for name in _EVENT_NAMES)}, ({_HOLDINGS})
FROM events WHERE id = %(event_id)s
""",  # noqa: S608 (names of columns)
    _TYPES,
)

_READ_HOLDINGS = Prepared("onsale_read_holdings", _HOLDINGS, _TYPES)

# A text that is no number is how a statement can refuse to go on, and say why.
_EXPECT_EVENT = Prepared(
    "onsale_expect_event",
    f"""
SELECT CAST(CASE (
    SELECT ROW({", ".join(_EXPECTED_NAMES)})
        IS NOT DISTINCT FROM ROW({", ".join(f"%(expected_{name})s" for name in _EXPECTED_NAMES)})
    FROM events WHERE id = %(event_id)s FOR UPDATE
) WHEN true THEN '1' ELSE 'the event is not as it was remembered' END AS bigint)
""",  # noqa: S608 (names of columns)
    _TYPES,
)

_CANCEL_BOOKINGS = Prepared(
    "onsale_cancel_bookings",
    f"""
UPDATE bookings SET status = '{BookingStatus.CANCELLED}', updated_at = %(updated_at)s
WHERE id = ANY(%(cancelled)s)
""",  # noqa: S608 (a constant)
    _TYPES,
)

# Tickets that are added or taken away become available or cease to be.
_CHANGE_EVENT = Prepared(
    "onsale_change_event",
    """
UPDATE events SET name = %(name)s, total_tickets = %(total_tickets)s,
    available_tickets = available_tickets + %(total_tickets)s - total_tickets,
    sales_open_at = %(sales_open_at)s, sales_closed = %(sales_closed)s
WHERE id = %(event_id)s
""",
    _TYPES,
)

_INSERT_BOOKINGS = Prepared(
    "onsale_insert_bookings",
    """
INSERT INTO bookings (id, user_id, ticket_count, status, event_id, created_at, updated_at)
SELECT *, %(event_id)s, %(updated_at)s, %(updated_at)s
FROM unnest(%(made_ids)s, %(made_user_ids)s, %(made_ticket_counts)s, %(made_statuses)s)
""",
    _TYPES,
)

_LEDGER_VALUES = ", ".join(
    f"%(ledger_{name})s" if name in _OF_THE_BATCH else f"each.{name}" for name in _LEDGER_TYPES
)
_LEDGER_ARRAYS = [name for name in _LEDGER_TYPES if name not in _OF_THE_BATCH]
_LEDGER_ROWS = f"unnest({', '.join(f'%(ledger_{name})s' for name in _LEDGER_ARRAYS)})"
_INSERT_LEDGER = Prepared(
    "onsale_insert_ledger",
    f"""
INSERT INTO ledger ({", ".join(_LEDGER_TYPES)}) SELECT {_LEDGER_VALUES}
FROM {_LEDGER_ROWS} AS each ({", ".join(_LEDGER_ARRAYS)})
""",  # noqa: S608 (names of columns)
    _TYPES,
)

_UPDATE_EVENT = Prepared(
    "onsale_update_event",
    """
UPDATE events SET fencing_token = %(fencing_token)s, updated_at = %(updated_at)s,
    ledger_digest = %(ledger_digest)s, seal = %(seal)s,
    applied_position = CASE WHEN available_tickets = %(available_tickets)s THEN %(applied_position)s
        ELSE CAST('the database counts ' || available_tickets || ' tickets left, unlike the rules' AS bigint)
    END
WHERE id = %(event_id)s
""",
    _TYPES,
)

PREPARED = (
    _LOCK_EVENT,
    _READ_EVENT,
    _READ_HOLDINGS,
    _EXPECT_EVENT,
    _CANCEL_BOOKINGS,
    _CHANGE_EVENT,
    _INSERT_BOOKINGS,
    _INSERT_LEDGER,
    _UPDATE_EVENT,
)
"""What a connection prepares on which batches are applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWrites:
    """What a batch writes: its event as it is afterwards, sealed, and the rows of the other tables.

    `cancelled` are bookings of earlier batches. `changed`: the terms of the event are not those of before.
    All of it happens at one time, that of the event's update.
    """

    event: EventRecord
    changed: bool
    cancelled: Sequence[str]
    made: Sequence[BookingRecord]
    ledger_lines: Sequence[str]


def lock_and_read(event_id: str, user_ids: Iterable[str]) -> Statement:
    """How a batch begins: hold the event's row until the end, and read it with the tickets of these users."""
    return Statement(
        [_LOCK_EVENT, _READ_EVENT], {"event_id": event_id, "user_ids": _text_array(list(user_ids))}
    )


def event_and_holdings(rows: Sequence[tuple[Any, ...]]) -> tuple[EventRecord | None, dict[str, int]]:
    """What `lock_and_read` found: the event, if there is one, and the tickets of the users who have some."""
    if not rows:
        return None, {}
    [(*values, holdings)] = rows
    columns = dict(zip(_EVENT_NAMES, values, strict=True))
    columns |= {name: bytes(columns[name]) for name in ("ledger_digest", "seal")}
    event = EventRecord(**{**columns, "id": str(columns["id"])})
    return event, _holdings(holdings)


def read_holdings(event_id: str, user_ids: Iterable[str]) -> Statement:
    """The tickets of these users, as far as they are committed; nothing is locked."""
    return Statement([_READ_HOLDINGS], {"event_id": event_id, "user_ids": _text_array(list(user_ids))})


def holdings_of(rows: Sequence[tuple[Any, ...]]) -> dict[str, int]:
    """What `read_holdings` found: the tickets of the users who have some."""
    [(holdings,)] = rows
    return _holdings(holdings)


def write_all(writes: BatchWrites) -> Statement:
    """How a batch ends, together with the commit. The tickets of its event are counted by the database.

    What is given back or added is written first: others of the batch may have been sold it. A total is
    lowered after what was given back and before what was sold, so that the count stays in its bounds. Where
    the database counts other tickets than the rules, it refuses the batch.
    """
    event = writes.event
    parts = [_INSERT_LEDGER, _UPDATE_EVENT]
    parameters = _ledger_parameters(writes.ledger_lines) | _event_parameters(event)
    if writes.made:
        parts.insert(0, _INSERT_BOOKINGS)
        parameters |= _booking_parameters(writes.made)
    if writes.changed:
        parts.insert(0, _CHANGE_EVENT)
    if writes.cancelled:
        parts.insert(0, _CANCEL_BOOKINGS)
        parameters["cancelled"] = _array(writes.cancelled)
    return Statement(parts, parameters)


def write_all_if(expected: EventRecord, writes: BatchWrites) -> Statement:
    """A whole batch that nothing was read for: refused unless its event is still as it was expected to be.

    The lock is held from that look at the event until the end, as by `lock_and_read`.
    """
    rest = write_all(writes)
    expectation = {f"expected_{name}": getattr(expected, name) for name in _EXPECTED_NAMES}
    return Statement([_EXPECT_EVENT, *rest.parts], {**rest.parameters, **expectation})


def insert_ledger(connection: Connection, lines: Sequence[str]) -> None:
    """Add ledger rows alone, as `shared.seals.ledger_line` writes them.

    A second row for a job or a position is refused by the database.
    """
    run(connection, Statement([_INSERT_LEDGER], _ledger_parameters(lines)))


def _holdings(found: str | None) -> dict[str, int]:
    return orjson.loads(found) if found else {}


def _event_parameters(event: EventRecord) -> dict[str, object]:
    return {"event_id": event.id} | {name: getattr(event, name) for name in _EVENT_PARAMETERS}


def _booking_parameters(made: Sequence[BookingRecord]) -> dict[str, object]:
    return {
        "made_ids": _array([record.id for record in made]),
        "made_user_ids": _text_array([record.user_id for record in made]),
        "made_ticket_counts": _array([str(record.ticket_count) for record in made]),
        "made_statuses": _array([record.status for record in made]),
    }


def _ledger_parameters(lines: Sequence[str]) -> dict[str, object]:
    columns = zip(_LEDGER_TYPES, zip(*(_values(line) for line in lines), strict=True), strict=True)
    return {f"ledger_{name}": _ledger_parameter(name, column) for name, column in columns}


def _ledger_parameter(name: str, column: Sequence[str]) -> str:
    if name in _OF_THE_BATCH:
        return column[0]
    return _text_array(column) if name in _LEDGER_TEXTS else _array(column)


def _values(ledger_line: str) -> list[str]:
    """The columns of a line; one without a trace ends before it."""
    values = ledger_line.split("\t")
    return values if len(values) == len(_LEDGER_TYPES) else [*values, ""]


def _array(values: Sequence[str]) -> str:
    """The text of an array of ids, numbers, times or codes, in which nothing needs quotes; empty is NULL."""
    filled = values if all(values) else [value or "NULL" for value in values]
    return "{" + ",".join(filled) + "}"


def _text_array(values: Sequence[str]) -> str:
    """The text of an array of any texts; empty is NULL."""
    return "{" + ",".join([_quoted(value) if value else "NULL" for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
