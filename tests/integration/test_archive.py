"""An event that is over: into a file that `verify` checks, and out of the servers."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import text

from local.servers import PostgresServer
from shared.clock import SystemClock
from shared.database import removal, statements
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.domain import OutcomeCode
from shared.errors import ArchiveRefused, ArchiveUnreadable, DatabaseUnavailable, MigrationRefused
from shared.line.codec import book_payload, cancel_payload, change_payload
from shared.line.repair import LineRepair
from shared.records import CommandPayload, EventRecord
from shared.seals import sealed
from shared.settings import Settings
from tests.builders import (
    apply_waiting,
    create_event,
    in_new_database,
    outcomes_in_ledger,
    seed,
    submission,
    submit,
    tamper,
    violations,
)
from worker.__main__ import main
from worker.archive import Archivist
from worker.operations import verify_archive

BOOKINGS = 40
COMMANDS = BOOKINGS + 5


class ClockAhead(SystemClock):
    """A clock that is two days ahead of the machine's."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=2)


@pytest.fixture
def archivist(database: Database, redis_client: redis.Redis) -> Archivist:
    return Archivist(database, LineRepair(redis_client), ClockAhead(), report=lambda line: None)


@pytest.fixture
def event(settings: Settings, database: Database, redis_client: redis.Redis) -> EventRecord:
    """One that is over: bookings, a cancellation, a refusal, changes, the last of which closes the sales."""
    event = create_event(database, total_tickets=60)
    seed(settings, event)
    bookings = [submission(event.id, book_payload(f"user{number}", 1)) for number in range(BOOKINGS)]
    others: Sequence[CommandPayload] = (
        change_payload(name="Renamed \u2603", total_tickets=45),
        cancel_payload(bookings[3].job_id),
        cancel_payload(bookings[3].job_id),
        change_payload(sales_closed=True),
        book_payload("late", 1),
    )
    submit(settings, [*bookings, *(submission(event.id, payload) for payload in others)])
    apply_waiting(settings, database, redis_client, event.id)
    return find(database, event.id)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "event.jsonl.gz"


def find(database: Database, event_id: str) -> EventRecord:
    with database.transaction() as connection:
        event = statements.find_event(connection, event_id)
    assert event is not None
    return event


def lines_in(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path: Path, documents: list[dict[str, Any]]) -> None:
    """An archive as somebody would write it who knows the format, the digest too."""
    lines = [json.dumps(document).encode() + b"\n" for document in documents[:-1]]
    end = documents[-1]["end"] | {"sha256": sha256(b"".join(lines)).hexdigest()}
    path.write_bytes(gzip.compress(b"".join(lines) + json.dumps({"end": end}).encode() + b"\n"))


def rows(database: Database, event_id: str) -> tuple[int, int]:
    with database.transaction() as connection:
        counts = [
            connection.execute(text(f"SELECT count(*) FROM {table} WHERE event_id = '{event_id}'"))
            for table in ("ledger", "bookings")
        ]
        return int(counts[0].scalar_one()), int(counts[1].scalar_one())


def test_an_event_that_is_over_goes_into_a_file_that_can_be_checked_without_servers(
    archivist: Archivist,
    database: Database,
    event: EventRecord,
    path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archivist.export(event.id, path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["verify", "--archive", str(path)]) == 0
    assert f"{COMMANDS} commands and {BOOKINGS} bookings checked: 0 violations" in capsys.readouterr().out
    assert rows(database, event.id) == (COMMANDS, BOOKINGS)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_the_command_exports_and_says_why_it_does_not_remove(
    settings: Settings, database: Database, event: EventRecord, path: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
        }
        command = [sys.executable, "-m", "worker", "archive", event.id, "--to", str(path), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    exported = run()
    assert (exported.returncode, exported.stdout.count("\n")) == (0, 1), exported
    refused = run("--remove")
    assert refused.returncode == 1
    assert "it can be removed after" in refused.stderr
    assert rows(database, event.id) == (COMMANDS, BOOKINGS)


def test_the_same_event_gives_the_same_file(archivist: Archivist, event: EventRecord, path: Path) -> None:
    archivist.export(event.id, path)
    again = path.with_name("again")
    archivist.export(event.id, again)
    assert again.read_bytes() == path.read_bytes()


CHANGES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "a booking changes hands": lambda lines: lines[-2]["booking"].update(user_id="eve"),
    "a booking is left out": lambda lines: (lines.pop(-2), lines[-1]["end"].update(bookings=BOOKINGS - 1)),
    "a refusal becomes a booking": lambda lines: lines[COMMANDS]["ledger"].update(outcome="booked"),
    "two commands change places": lambda lines: lines.insert(2, lines.pop(1)),
    "a command is applied at another time": lambda lines: lines[5]["ledger"].update(
        applied_at="2026-01-01T00:00:00.000000Z"
    ),
    "the event gets another name": lambda lines: lines[0]["event"].update(name="Another"),
    "a count is wrong": lambda lines: lines[-1]["end"].update(commands=7),
    "a row has a column too many": lambda lines: lines[5]["ledger"].update(seat="A1"),
    "a row has text for a number": lambda lines: lines[5]["ledger"].update(position="5"),
    "a row has an unknown outcome": lambda lines: lines[5]["ledger"].update(outcome="given-away"),
    "a row is no object": lambda lines: lines[5].update(ledger=[1]),
    "the version is of later": lambda lines: lines[0].update(version=2),
    "the event is missing": lambda lines: lines.pop(0),
    "something follows the end": lambda lines: lines.insert(-1, {"end": lines[-1]["end"]}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_that_somebody_changed_is_found_out(
    archivist: Archivist,
    database: Database,
    event: EventRecord,
    path: Path,
    change: Callable[[list[dict[str, Any]]], object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    archivist.export(event.id, path)
    documents = lines_in(path)
    write(path, documents)
    assert verify_archive(path) == 0
    change(documents)
    write(path, documents)
    assert verify_archive(path) == 1
    with pytest.raises((ArchiveRefused, ArchiveUnreadable)):
        archivist.remove(event.id, path)
    assert rows(database, event.id) == (COMMANDS, BOOKINGS)


def test_a_file_that_is_damaged_or_cut_off_is_found_out(
    archivist: Archivist, event: EventRecord, path: Path
) -> None:
    archivist.export(event.id, path)
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[: len(whole) // 2],
        whole[:-1],
        b"not gzip",
        bytes([*whole[:200], whole[200] ^ 1, *whole[201:]]),
        gzip.compress(gzip.decompress(whole).rsplit(b"\n", 2)[0]),
        gzip.compress(b"x" * 2_000_000),
    ):
        path.write_bytes(damaged)
        assert verify_archive(path) == 1
    assert verify_archive(path.with_name("missing")) == 1


def test_an_event_that_is_not_over_is_refused_with_what_to_do(
    archivist: Archivist,
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    path: Path,
) -> None:
    still_open = create_event(database)
    with pytest.raises(ArchiveRefused, match="close them first"):
        archivist.export(still_open.id, path)
    submit(settings, [submission(event.id, book_payload("later", 1))])
    with pytest.raises(ArchiveRefused, match="1 commands wait"):
        archivist.export(event.id, path)
    apply_waiting(settings, database, redis_client, event.id)
    path.write_text("something else")
    with pytest.raises(ArchiveRefused, match="name another file"):
        archivist.export(event.id, path)
    with pytest.raises(ArchiveRefused, match="there is no event"):
        archivist.export("01a206d1-0000-7000-8000-000000000001", path.with_name("new"))


def test_what_happened_after_the_export_is_not_removed(
    archivist: Archivist,
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    path: Path,
) -> None:
    archivist.export(event.id, path)
    submit(settings, [submission(event.id, book_payload("later", 1))])
    apply_waiting(settings, database, redis_client, event.id)
    with pytest.raises(ArchiveRefused, match="something happened"):
        archivist.remove(event.id, path)
    assert rows(database, event.id) == (COMMANDS + 1, BOOKINGS)
    other = create_event(database)
    with pytest.raises(ArchiveRefused, match="name the file of this one"):
        archivist.remove(other.id, path)


def test_an_event_is_not_removed_while_its_clients_may_still_ask_again(
    database: Database, redis_client: redis.Redis, event: EventRecord, path: Path
) -> None:
    archivist = Archivist(database, LineRepair(redis_client), SystemClock(), report=lambda line: None)
    with pytest.raises(ArchiveRefused, match="it can be removed after"):
        archivist.remove(event.id, path)
    assert find(database, event.id).archived_at is None
    assert rows(database, event.id) == (COMMANDS, BOOKINGS)


def test_an_event_is_not_removed_before_its_webhooks_have_read_its_ledger(
    archivist: Archivist, database: Database, event: EventRecord, path: Path
) -> None:
    tamper(
        database,
        "INSERT INTO webhooks (id, event_id, url, types, secret, cursor_position, cursor_available_tickets,"
        f" created_at) VALUES (gen_random_uuid(), '{event.id}', 'https//a', '{{booking.created}}', '', 44, 0,"
        " now())",
    )
    with pytest.raises(ArchiveRefused, match="has not been told all"):
        archivist.remove(event.id, path)
    assert rows(database, event.id) == (COMMANDS, BOOKINGS)
    tamper(database, f"UPDATE webhooks SET cursor_position = {COMMANDS}")
    archivist.remove(event.id, path)
    assert rows(database, event.id) == (0, 0)


def test_an_archived_event_leaves_nothing_but_a_trace(
    archivist: Archivist,
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.limits.ARCHIVE_STEP_ROWS", 7)
    monkeypatch.setattr("shared.limits.REPAIR_STEP", 7)
    other = create_event(database)
    archivist.remove(event.id, path)
    assert rows(database, event.id) == (0, 0)
    trace = find(database, event.id)
    assert trace.archived_at is not None
    assert trace.ledger_digest == event.ledger_digest
    keys = [key for key in redis_client.scan_iter("*") if b"rq:worker" not in key]
    assert [key for key in keys if event.id.encode() in key or key.startswith(b"rq:job:")] == []
    assert violations(database) == []
    assert verify_archive(path) == 0
    assert find(database, other.id) == other
    with pytest.raises(ArchiveRefused, match="was archived at"):
        archivist.export(event.id, path.with_name("again"))
    archivist.remove(event.id, path)


def test_an_archived_event_takes_no_command_and_says_so(
    archivist: Archivist,
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    path: Path,
    api: httpx.Client,
) -> None:
    body = {"user_id": "user1", "ticket_count": 1}
    keyed = {"Idempotency-Key": "order-4711"}
    first = api.post(f"/events/{event.id}/bookings", json=body, headers=keyed)
    assert first.status_code == 202
    apply_waiting(settings, database, redis_client, event.id)
    archivist.remove(event.id, path)
    answers = [
        api.get(f"/events/{event.id}"),
        api.get(f"/events/{event.id}/bookings"),
        api.get(f"/events/{event.id}/ledger"),
        api.post(f"/events/{event.id}/bookings", json=body),
        api.post(f"/events/{event.id}/bookings", json=body, headers=keyed),
        api.patch(f"/events/{event.id}", json={"sales_closed": False}),
        api.get(f"/events/{event.id}/webhooks"),
        api.post(
            f"/events/{event.id}/webhooks",
            json={"url": "https://onsale.example/", "types": ["booking.created"]},
        ),
    ]
    assert {(each.status_code, each.json()["type"]) for each in answers} == {(410, "event-archived")}
    assert api.get("/events").json()["items"] == []
    assert "archived" in api.get(first.headers["Location"]).json()["detail"]
    assert redis_client.exists(f"onsale:event:{event.id}", f"onsale:order:{event.id}") == 0
    assert rows(database, event.id) == (0, 0)


def test_a_removal_that_was_interrupted_is_told_by_verify_and_taken_up_again(
    archivist: Archivist,
    database: Database,
    event: EventRecord,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.limits.ARCHIVE_STEP_ROWS", 7)
    remove_ledger_rows, steps = removal.remove_ledger_rows, 0

    def cut_off_at_the_third(*arguments: Any) -> int:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise DatabaseUnavailable
        return remove_ledger_rows(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(removal, "remove_ledger_rows", cut_off_at_the_third)
        with pytest.raises(DatabaseUnavailable):
            archivist.remove(event.id, path)
    [told] = violations(database)
    assert "rows of it are left" in told
    archivist.remove(event.id, path)
    assert rows(database, event.id) == (0, 0)
    assert violations(database) == []


def test_a_command_that_was_accepted_too_late_fails_and_is_kept(
    archivist: Archivist,
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    path: Path,
) -> None:
    archivist.remove(event.id, path)
    # An API process that read the event before it was marked tells Redis of it afterwards.
    seed(settings, event)
    late = submission(event.id, book_payload("late", 1))
    submit(settings, [late])
    apply_waiting(settings, database, redis_client, event.id)
    assert outcomes_in_ledger(database, event.id) == [
        (COMMANDS + 1, late.job_id, OutcomeCode.EVENT_NOT_FOUND)
    ]
    assert violations(database) == []
    archivist.remove(event.id, path)
    assert rows(database, event.id) == (1, 0)


def test_the_trace_is_sealed(
    archivist: Archivist, database: Database, event: EventRecord, path: Path
) -> None:
    archivist.remove(event.id, path)
    trace = find(database, event.id)
    assert sealed(trace) == trace
    tamper(database, "UPDATE events SET archived_at = archived_at - interval '1 second'")
    assert len(violations(database)) == 1
    tamper(database, f"UPDATE events SET archived_at = NULL WHERE id = '{event.id}'")
    assert violations(database)


def test_an_earlier_version_is_not_let_near_an_archived_event(
    postgres: PostgresServer, settings: Settings
) -> None:
    url = in_new_database(postgres, "archived")
    migrate(url)
    database = Database(settings.model_copy(update={"database_url": url}), connections_max=1)
    create_event(database)
    tamper(database, "UPDATE events SET archived_at = now()")
    database.close()
    with pytest.raises(MigrationRefused, match="1 events are archived"):
        migrate(url, "0003")
