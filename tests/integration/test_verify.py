"""`verify` finds nothing wrong with what the worker wrote, and finds what someone else changed."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
import redis
from sqlalchemy import text

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.database.tables import bookings, events, ledger
from shared.errors import DatabaseUnavailable
from shared.identifiers import new_id
from shared.line.codec import (
    book_payload,
    cancel_payload,
    change_payload,
    decode_waiting_command,
    encode_job_data,
)
from shared.line.consumer import NO_CLAIM
from shared.line.keys import VERIFIED
from shared.records import CommandPayload, EventRecord
from shared.settings import Settings
from tests.builders import create_event, tamper, violations
from worker.__main__ import main
from worker.batch import apply_to_database
from worker.operations import verify
from worker.verify import Verifier

OPENING = datetime(2026, 11, 23, 10, tzinfo=UTC)
CHANGES = {
    13: change_payload(name="Renamed", total_tickets=14),
    26: change_payload(sales_closed=True),
    27: change_payload(total_tickets=1),
    31: change_payload(sales_closed=False, sales_open_at=OPENING + timedelta(days=1)),
    34: change_payload(sales_open_at=OPENING),
}


@pytest.fixture
def event(database: Database) -> EventRecord:
    """An event with bookings, refusals, cancellations of both kinds, changes and a failed command."""
    event = create_event(database, total_tickets=12)
    random_numbers = random.Random(7)
    ids = [new_id() for _ in range(60)]
    created_at = b"2026-11-23T10:00:00.000000Z"
    waiting = []
    for position, id in enumerate(ids, start=1):
        payload: CommandPayload
        if position in CHANGES:
            payload = CHANGES[position]
        elif position % 4 == 0:
            payload = cancel_payload(ids[random_numbers.randrange(position)])
        else:
            payload = book_payload(f"user{position % 9}", random_numbers.randint(1, 2))
        data = b"spoilt" if position == 30 else encode_job_data(event.id, payload)
        waiting.append(decode_waiting_command(id, data, created_at, str(position).encode()))
    for start in range(0, 60, 7):
        apply_to_database(database, SystemClock(), event.id, waiting[start : start + 7], NO_CLAIM)
    return event


def test_what_the_worker_wrote_is_what_the_rules_give(database: Database, event: EventRecord) -> None:
    with database.transaction() as connection:
        outcomes = connection.execute(text("SELECT DISTINCT outcome FROM ledger")).scalars().all()
    assert set(outcomes) == {
        "booked",
        "cancelled",
        "not-enough-tickets",
        "user-limit-exceeded",
        "already-cancelled",
        "booking-not-found",
        "changed",
        "sales-not-open",
        "sales-closed",
        "total-below-sold",
        "command-unreadable",
    }
    assert violations(database) == []


TAMPERINGS = {
    "a ticket appears": "UPDATE events SET available_tickets = available_tickets + 1",
    "the total grows": "UPDATE events SET total_tickets = total_tickets + 1",
    "the limit grows": "UPDATE events SET max_tickets_per_user = 9",
    "the position is set back": "UPDATE events SET applied_position = applied_position - 1",
    "a booking is removed": "DELETE FROM bookings WHERE id = (SELECT min(id::text)::uuid FROM bookings)",
    "a booking is added": (
        "INSERT INTO bookings SELECT gen_random_uuid(), id, 'eve', 1, 'active', now(), now() FROM events"
    ),
    "a booking changes hands": "UPDATE bookings SET user_id = 'eve' WHERE status = 'active'",
    "a booking grows": "UPDATE bookings SET ticket_count = 3 - ticket_count",
    "a booking is revived": "UPDATE bookings SET status = 'active' WHERE status = 'cancelled'",
    "a booking is ended": "UPDATE bookings SET status = 'cancelled' WHERE status = 'active'",
    "a booking is made older": "UPDATE bookings SET created_at = created_at - interval '1 second'",
    "a booking is touched": "UPDATE bookings SET updated_at = updated_at + interval '1 second'",
    "a booking gets another id": (
        "UPDATE bookings SET id = gen_random_uuid() WHERE id = (SELECT min(id::text)::uuid FROM bookings)"
    ),
    "a ledger row is removed": "DELETE FROM ledger WHERE position = 10",
    "the last ledger row is removed": "DELETE FROM ledger WHERE position = 60",
    "a row is put at the end": "UPDATE ledger SET position = 61 WHERE position = 10",
    "a refusal is put before what it was refused for": (
        "UPDATE ledger SET position = position + 1000;"
        "UPDATE ledger SET position = position - 999;"
        "UPDATE ledger SET position = 1 WHERE position ="
        " (SELECT max(position) FROM ledger WHERE outcome = 'not-enough-tickets')"
    ),
    "a row gets another job": "UPDATE ledger SET job_id = gen_random_uuid() WHERE position = 1",
    "a row gets another kind": "UPDATE ledger SET kind = 'cancel' WHERE position = 1",
    "a row gets another user": (
        "UPDATE ledger SET payload = jsonb_set(payload, '{user_id}', '\"eve\"') WHERE position = 1"
    ),
    "a row loses its payload": "UPDATE ledger SET payload = NULL WHERE position = 1",
    "a row gets another outcome": (
        "UPDATE ledger SET outcome = 'not-enough-tickets' WHERE outcome = 'booked'"
    ),
    "a refusal gets other figures": (
        "UPDATE ledger SET detail = jsonb_set(detail, '{held_tickets}', '7')"
        " WHERE outcome = 'user-limit-exceeded'"
    ),
    "a row names another booking": "UPDATE ledger SET booking_id = gen_random_uuid() WHERE position = 1",
    "a booking is applied at another time": (
        "UPDATE ledger SET applied_at = applied_at + interval '1 hour' WHERE outcome = 'booked'"
    ),
    "a refusal is applied at another time": (
        "UPDATE ledger SET applied_at = applied_at + interval '1 microsecond' WHERE outcome <> 'booked'"
    ),
    "a row is accepted at another time": (
        "UPDATE ledger SET accepted_at = accepted_at - interval '1 microsecond' WHERE position = 5"
    ),
    "a row moves to another event": "UPDATE ledger SET event_id = gen_random_uuid() WHERE position = 60",
    "two rows that could as well come the other way round are swapped": (
        "UPDATE ledger SET position = 1001 WHERE position = 1;"
        "UPDATE ledger SET position = 1 WHERE position = 2;"
        "UPDATE ledger SET position = 2 WHERE position = 1001"
    ),
    "a booking moves to another event": (
        "UPDATE bookings SET event_id = gen_random_uuid() WHERE status = 'active'"
    ),
    "the event gets another name": "UPDATE events SET name = 'Another'",
    "the event gets another id": "UPDATE events SET id = gen_random_uuid()",
    "the event is made older": "UPDATE events SET created_at = created_at - interval '1 second'",
    "the event is touched": "UPDATE events SET updated_at = updated_at + interval '1 second'",
    "the fencing token is set back": "UPDATE events SET fencing_token = fencing_token - 1",
    "the digest of the ledger is lost": "UPDATE events SET ledger_digest = ''",
    "the seal is lost": "UPDATE events SET seal = ''",
    "the event gets another owner": "UPDATE events SET organiser_id = 'eve'",
    "sales open earlier": "UPDATE events SET sales_open_at = sales_open_at - interval '1 second'",
    "sales are closed": "UPDATE events SET sales_closed = NOT sales_closed",
    "the event is called archived": "UPDATE events SET archived_at = now()",
    "the terms before the first change are others": (
        "UPDATE ledger SET detail = jsonb_set(detail, '{terms_before,total_tickets}', '13')"
        " WHERE position = 13"
    ),
    "the terms before the first change are lost": (
        "UPDATE ledger SET detail = detail - 'terms_before' WHERE position = 13"
    ),
    "a command gets a trace": "UPDATE ledger SET trace = 'mine' WHERE position = 60",
    "the event is removed": "DELETE FROM bookings; DELETE FROM events",
}


def test_there_is_a_tampering_for_every_column() -> None:
    """Of what is sold: webhooks only tell of it."""
    for table in (events, bookings, ledger):
        changed = " ".join(each for each in TAMPERINGS.values() if f"UPDATE {table.name} SET" in each)
        for column in table.columns:
            assert f"{column.name} = " in changed, f"{table.name}.{column.name}"


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_tampering_is_found(database: Database, event: EventRecord, statement: str) -> None:
    tamper(database, statement)
    found = violations(database)
    assert found
    assert any(event.id in line or line.startswith("booking ") for line in found)


def test_other_events_are_not_suspected(database: Database, event: EventRecord) -> None:
    other = create_event(database)
    tamper(database, f"UPDATE events SET available_tickets = 0 WHERE id = '{other.id}'")
    assert {line.split()[1].rstrip(":") for line in violations(database)} == {other.id}
    assert violations(database, event.id) == []


def test_a_mistyped_id_is_no_violation_and_wakes_nobody(
    database: Database, settings: Settings, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = new_id()
    assert verify(settings, unknown) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"not all could be checked: there is no event {unknown}\n"
    assert not redis_client.exists(VERIFIED)


def test_bookings_without_their_event_are_a_violation(database: Database, event: EventRecord) -> None:
    tamper(database, "DELETE FROM ledger; DELETE FROM events")
    assert violations(database, event.id) == [f"event {event.id} does not exist, but bookings of it are left"]


def test_what_was_found_before_postgresql_went_away_counts(
    database: Database,
    settings: Settings,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = sorted((create_event(database), create_event(database)), key=lambda each: each.id)
    tamper(database, f"UPDATE events SET available_tickets = 9 WHERE id = '{first.id}'")
    verify_event = Verifier.verify_event

    def lose_the_second(verifier: Verifier, event_id: str) -> None:
        if event_id == second.id:
            raise DatabaseUnavailable
        verify_event(verifier, event_id)

    monkeypatch.setattr(Verifier, "verify_event", lose_the_second)
    assert verify(settings, None) == 1
    said = capsys.readouterr()
    assert "not all could be checked" in said.err
    assert f"event {first.id}: available_tickets is 9" in said.out
    assert redis_client.hget(VERIFIED, "violations") not in (None, b"0")


def test_the_command_says_what_it_found_and_exits_accordingly(
    database: Database,
    event: EventRecord,
    settings: Settings,
    redis_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify(settings, None) == 0
    summary = capsys.readouterr().out
    assert summary.startswith("1 events, 60 commands and ")
    assert summary.endswith(" bookings checked: 0 violations\n")
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM ledger WHERE position = 60"))
    assert verify(settings, event.id) == 1
    assert "applied_position is 60, the rules give 59" in capsys.readouterr().out


def test_a_wrong_event_id_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--event", "first"])
    assert ended.value.code == 2
    assert "must be a UUID" in capsys.readouterr().err
