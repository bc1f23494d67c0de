"""A batch in PostgreSQL: exactly once, in turn, whole or not at all."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing

import pytest
from msgspec.structs import replace
from psycopg2.extensions import connection as PostgresConnection
from sqlalchemy import text
from sqlalchemy.event import listens_for

from shared.clock import SystemClock
from shared.database import batches, statements
from shared.database.batches import BatchWrites
from shared.database.engine import Database
from shared.database.prepared import Statement
from shared.domain import CancelBooking, CommandKind, OutcomeCode, UnreadableCommand
from shared.errors import DatabaseUnavailable, EventLocked, OutOfTurn, StaleClaim, WriteRefused
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand, cancel_payload
from shared.line.consumer import NO_CLAIM
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import assert_books_balance, booking, create_event, outcomes_in_ledger, tamper
from tests.faults.boundaries import Boundaries, no_action, watch_database
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database

CLOCK = SystemClock()


@pytest.fixture
def event(database: Database) -> EventRecord:
    return create_event(database)


def cancellation(position: int, booking_id: str) -> WaitingCommand:
    return WaitingCommand(
        command=CancelBooking(id=new_id(), booking_id=booking_id),
        kind=CommandKind.CANCEL,
        payload=cancel_payload(booking_id),
        position=position,
        accepted_at=CLOCK.now(),
    )


def apply(
    database: Database, event: EventRecord, waiting: Sequence[WaitingCommand], token: int = NO_CLAIM
) -> AppliedBatch:
    return apply_to_database(database, CLOCK, event.id, waiting, token)


def outcomes(batch: AppliedBatch) -> list[str]:
    return [result["outcome"] for _, result in batch.results]


def test_a_batch_writes_bookings_ledger_and_event_together(database: Database, event: EventRecord) -> None:
    batch = apply(database, event, [booking(1, "ann", 2), booking(2, "bob"), booking(3, "ann")])
    assert outcomes(batch) == ["booked", "booked", "user-limit-exceeded"]
    assert batch.applied_position == 3
    assert batch.view is not None
    assert batch.view["available_tickets"] == 7
    assert_books_balance(database, event.id)


def test_a_redelivered_batch_gives_the_recorded_outcomes_and_changes_nothing(
    database: Database, event: EventRecord
) -> None:
    first = booking(1, "ann", 2)
    waiting = [
        first,
        booking(2, "ann"),
        cancellation(3, first.command.id),
        cancellation(4, first.command.id),
        booking(5, "bob"),
    ]
    once = apply(database, event, waiting)
    again = apply(database, event, waiting)
    assert again.results == once.results
    assert again.entries == []
    assert_books_balance(database, event.id)


def test_a_batch_may_hold_applied_commands_and_fresh_ones(database: Database, event: EventRecord) -> None:
    waiting = [booking(position, f"user{position}") for position in range(1, 6)]
    apply(database, event, waiting[:2])
    batch = apply(database, event, waiting)
    assert outcomes(batch) == ["booked"] * 5
    assert [position for position, _, _ in outcomes_in_ledger(database, event.id)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("positions", [[2], [1, 3], [5, 6]])
def test_commands_out_of_turn_are_refused_as_a_whole(
    database: Database, event: EventRecord, positions: list[int]
) -> None:
    with pytest.raises(OutOfTurn):
        apply(database, event, [booking(position) for position in positions])
    assert outcomes_in_ledger(database, event.id) == []


def test_a_position_that_was_given_twice_stays_with_the_first(database: Database, event: EventRecord) -> None:
    apply(database, event, [booking(1, "ann")])
    batch = apply(database, event, [booking(1, "bob"), booking(2, "cid")])
    assert outcomes(batch) == ["position-taken", "booked"]
    assert_books_balance(database, event.id)


def test_a_command_with_a_lost_position_is_applied_where_it_stands_once(
    database: Database, event: EventRecord
) -> None:
    waiting = [booking(1, "ann"), booking(None, "bob"), booking(3, "cid")]
    apply(database, event, waiting)
    assert apply(database, event, waiting).entries == []
    assert [id for _, id, _ in outcomes_in_ledger(database, event.id)] == [
        command.command.id for command in waiting
    ]


def test_an_older_token_than_the_row_has_seen_is_stale(database: Database, event: EventRecord) -> None:
    apply(database, event, [booking(1)], token=7)
    with pytest.raises(StaleClaim) as caught:
        apply(database, event, [booking(2, "bob")], token=6)
    assert caught.value.newest_token == 7
    assert len(apply(database, event, [booking(2, "bob")], token=8).entries) == 1


def test_a_cancellation_in_a_later_batch_shows_the_booking_as_it_was_made(
    database: Database, event: EventRecord
) -> None:
    made = booking(1, "ann", 2)
    [(_, booked)] = apply(database, event, [made]).results
    [(_, cancelled)] = apply(database, event, [cancellation(2, made.command.id)]).results
    assert cancelled["detail"]["booking"]["created_at"] == booked["applied_at"]
    assert cancelled["detail"]["booking"]["status"] == "cancelled"
    assert_books_balance(database, event.id)


def test_the_booking_of_another_event_cannot_be_cancelled_here(
    database: Database, event: EventRecord
) -> None:
    other = create_event(database)
    made = booking(1)
    apply(database, other, [made])
    batch = apply(database, event, [cancellation(1, made.command.id)])
    assert outcomes(batch) == ["booking-not-found"]
    assert_books_balance(database, other.id)


def test_commands_for_an_event_that_is_gone_fail_once_each_with_a_ledger_row(
    database: Database, event: EventRecord
) -> None:
    gone = replace(event, id=new_id())
    waiting = [booking(1), booking(2)]
    assert outcomes(apply(database, gone, waiting)) == ["event-not-found"] * 2
    assert apply(database, gone, waiting).entries == []
    assert len(outcomes_in_ledger(database, gone.id)) == 2


def test_commands_for_an_event_that_is_gone_are_known_again_whatever_their_position(
    database: Database, event: EventRecord
) -> None:
    gone = replace(event, id=new_id())
    waiting = [booking(2), booking(3)]
    first = apply(database, gone, waiting)
    again = apply(database, gone, waiting)
    assert again.results == first.results
    assert again.entries == []


def test_an_unreadable_command_has_its_row_and_its_reason(database: Database, event: EventRecord) -> None:
    unreadable = replace(
        booking(1),
        command=UnreadableCommand(id=new_id(), reason="odd"),
        kind=CommandKind.UNKNOWN,
        payload=None,
    )
    [(_, result)] = apply(database, event, [unreadable]).results
    assert result["status"] == "failed"
    assert result["detail"] == {"reason": "odd"}
    assert [outcome for _, _, outcome in outcomes_in_ledger(database, event.id)] == [
        OutcomeCode.COMMAND_UNREADABLE
    ]


def test_awkward_user_ids_are_kept_to_the_letter(database: Database, event: EventRecord) -> None:
    awkward = ['"', "a,b", "\\N", "\\.", "O'Hara", "üñí-💥", " spaces ", "NULL", "a\\nb", "tab\t{new\nline}"]
    waiting = [booking(position, user_id) for position, user_id in enumerate(awkward, start=1)]
    apply(database, event, waiting)
    with database.transaction() as connection:
        found = statements.find_bookings(connection, [command.command.id for command in waiting])
        held = statements.active_tickets_by_user(connection, event.id, awkward)
    assert [found[command.command.id].user_id for command in waiting] == awkward
    assert held == dict.fromkeys(awkward, 1)


def test_a_batch_waits_for_the_row_lock_no_longer_than_it_may(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    """Nothing is written that would wait too: it was applied before."""
    applied = [booking(1)]
    apply(database, event, applied)
    impatient = Database(settings.model_copy(update={"lock_timeout_ms": 50}), connections_max=1)
    with database.transaction() as connection:
        statements.lock_event(connection, event.id)
        with pytest.raises(EventLocked):
            apply(impatient, event, applied)
    assert apply(impatient, event, applied).entries == []
    impatient.close()


def test_a_batch_of_bookings_is_two_requests(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    """Neither of them from the driver itself, which would tidy up behind the last."""
    boundaries = Boundaries(no_action)
    watched = Database(settings, connections_max=1)
    watch_database(watched, boundaries)
    apply(watched, event, [booking(1)])
    boundaries.watching = True
    apply(watched, event, [booking(2, "bob"), booking(3, "cid")])
    assert [name for name in boundaries.names if name.startswith("before")] == [
        "before BEGIN;EXECUTE onsale_begin",
        "before EXECUTE onsale_insert_bookings",
    ]
    with database.transaction() as connection:
        last = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE query LIKE 'EXECUTE onsale_insert_bookings%' AND state = 'idle'"
        )
        assert connection.execute(text(last)).scalar_one() >= 1
    watched.close()


def test_a_kept_plan_goes_by_the_index_though_the_tables_were_small_when_it_was_made(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    apply(database, event, [booking(1), booking(2, "bob")])
    tamper(database, "ANALYZE bookings")
    worker = Database(settings, connections_max=1)
    [read_event] = [each.name for each in batches.PREPARED if "read_event" in each.name]
    explained = f"EXPLAIN EXECUTE {read_event} ('{event.id}', '{{ann,bob}}')"
    with worker.transaction_from(Statement([explained]), prepares=batches.PREPARED) as transaction:
        plan = "\n".join(line for (line,) in transaction.rows)
    assert "bookings_active_idx" in plan
    assert "Seq Scan" not in plan
    assert "$2" in plan, "planned for these users alone"
    worker.close()


def test_behind_a_pooler_statements_are_sent_as_text(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    """The next transaction gets another place at the server, where somebody else has prepared already."""
    pooled = Database(settings, connections_max=1)

    @listens_for(pooled.engine_by_hand, "connect")
    def prepare_as_another_client_did(connection: PostgresConnection, _record: object) -> None:
        with closing(connection.cursor()) as cursor:
            cursor.execute(f"PREPARE {batches.PREPARED[0].name} AS SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        apply(pooled, event, [booking(1)])
    assert len(apply(pooled, event, [booking(1)]).entries) == 1
    assert len(apply(pooled, event, [booking(2)]).entries) == 1
    assert_books_balance(database, event.id)
    pooled.close()


def test_behind_a_pooler_what_was_prepared_may_be_gone(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    pooled = Database(settings, connections_max=1)
    with pooled.transaction_from(Statement(["DEALLOCATE ALL"]), prepares=batches.PREPARED):
        pass
    with pytest.raises(DatabaseUnavailable):
        apply(pooled, event, [booking(1)])
    assert len(apply(pooled, event, [booking(1)]).entries) == 1
    assert_books_balance(database, event.id)
    pooled.close()


def test_behind_a_pooler_one_connection_finds_out_for_all(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    pooled = Database(settings, connections_max=2)
    forget = Statement(["DEALLOCATE ALL"])
    with (
        pooled.transaction_from(forget, prepares=batches.PREPARED),
        pooled.transaction_from(forget, prepares=batches.PREPARED),
    ):
        pass
    with pytest.raises(DatabaseUnavailable):
        apply(pooled, event, [booking(1)])
    assert len(apply(pooled, event, [booking(1)]).entries) == 1
    pooled.close()


def test_a_plan_that_a_migration_has_spoilt_is_made_anew(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    worker = Database(settings, connections_max=1)
    apply(worker, event, [booking(1)])
    change = "ALTER TABLE events ALTER COLUMN organiser_id TYPE"
    tamper(database, f"{change} varchar")
    try:
        with pytest.raises(DatabaseUnavailable, match="cached plan"):
            apply(worker, event, [booking(2)])
        assert len(apply(worker, event, [booking(2)]).entries) == 1
    finally:
        worker.close()
        tamper(database, f"{change} text")


def test_the_database_itself_refuses_to_oversell(database: Database, event: EventRecord) -> None:
    with pytest.raises(WriteRefused, match="events_available_tickets_check"):
        tamper(database, "UPDATE events SET available_tickets = -1")


def test_a_connection_lost_while_writing_is_replaced(
    settings: Settings, database: Database, event: EventRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = Database(settings.model_copy(update={"lease_seconds": 1.0}), connections_max=1)
    write_all = batches.write_all

    def write_too_late(writes: BatchWrites) -> Statement:
        time.sleep(2.0)
        return write_all(writes)

    waiting = [booking(1), booking(2, "bob")]
    with monkeypatch.context() as patched:
        patched.setattr(batches, "write_all", write_too_late)
        with pytest.raises(DatabaseUnavailable):
            apply(impatient, event, waiting)
    assert outcomes_in_ledger(database, event.id) == []
    assert len(apply(impatient, event, waiting).entries) == 2
    assert_books_balance(database, event.id)
    impatient.close()


def test_a_batch_after_which_the_database_counts_other_tickets_than_the_rules_is_refused(
    database: Database, event: EventRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all = batches.write_all

    def write_what_was_miscounted(writes: BatchWrites) -> Statement:
        miscounted = replace(writes.event, available_tickets=5)
        return write_all(dataclasses.replace(writes, event=miscounted))

    monkeypatch.setattr(batches, "write_all", write_what_was_miscounted)
    with pytest.raises(WriteRefused, match="the database counts 9 tickets left, unlike the rules"):
        apply(database, event, [booking(1)])
    assert outcomes_in_ledger(database, event.id) == []


def test_what_a_constraint_refuses_is_not_taken_for_an_outage(database: Database, event: EventRecord) -> None:
    made = booking(1, "ann")
    tamper(
        database,
        "UPDATE events SET available_tickets = 0, total_tickets = 1;"
        f"INSERT INTO bookings VALUES ('{made.command.id}', '{event.id}', 'ann', 2, 'active', now(), now())",
    )
    with pytest.raises(WriteRefused, match="available_tickets"):
        apply(database, event, [cancellation(1, made.command.id)])
