"""GET /events/{id}/box-office: what an organiser is shown, from one reader for all who watch."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import event as sqlalchemy_event

from local.servers import PostgresServer, ValkeyServer
from shared import limits
from shared.api_keys import Role
from shared.clock import SystemClock
from shared.database import api_keys, box_office
from shared.database.engine import Database
from shared.database.roles import API
from shared.identifiers import new_id
from shared.line.codec import cancel_payload, change_payload
from shared.records import EventRecord
from shared.settings import Authentication, Settings
from tests.builders import (
    UNKNOWN_ID,
    apply_waiting,
    book,
    create_event,
    make_key,
    outcomes_in_ledger,
    own_client,
    seed,
    submission,
    submit,
    tamper,
    wait_until,
)
from tests.serving import ONE_WRITE, SERVE, Serving, api_process, serving, told

QUICK: dict[str, Any] = {"stream_position_seconds": 0.05, "stream_heartbeat_seconds": 0.2}
Document = dict[str, Any]


def on_sale(settings: Settings, database: Database, **terms: Any) -> EventRecord:
    """An event that Redis knows too."""
    event = create_event(database, **terms)
    seed(settings, event)
    return event


def path_of(event: EventRecord) -> str:
    return f"/events/{event.id}/box-office"


def shown_once(client: httpx.Client, event: EventRecord) -> Document:
    with client.stream("GET", path_of(event), params={"snapshots": 1}) as answer:
        (shown,) = (each for each in told(answer) if each.name)
    return shown.job


@contextmanager
def watching(client: httpx.Client, event: EventRecord) -> Iterator[Iterator[Document]]:
    """The snapshots of a stream, each followed by those that come later."""
    with own_client(client) as own, own.stream("GET", path_of(event)) as answer:
        yield (each.job for each in told(answer) if each.name)


def first_with(snapshots: Iterator[Document], holds: Callable[[Document], bool]) -> Document:
    return next(each for each in snapshots if holds(each))


def nothing_is_held(api: Serving) -> bool:
    return api.context.box_office_streams.taken == api.context.box_offices.watched == 0


def a_sale_with_everything(settings: Settings, database: Database, client: redis.Redis) -> EventRecord:
    """Ten tickets: two bookings of two, one cancelled, refusals of each kind, and sales that are closed."""
    event = on_sale(settings, database, total_tickets=4)
    first, second = book(event.id, "ann", 2), book(event.id, "bob", 2)
    cancelled = submission(event.id, cancel_payload(first.job_id))
    again = submission(event.id, cancel_payload(first.job_id))
    closed = submission(event.id, change_payload(sales_closed=True))
    commands = [first, second, book(event.id, "eve"), cancelled, again, book(event.id, "bob"), closed]
    submit(settings, [*commands, book(event.id, "dan"), book(event.id, "fay")])
    apply_waiting(settings, database, client, event.id)
    return event


def test_the_numbers_are_those_of_the_ledger(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis
) -> None:
    event = a_sale_with_everything(settings, database, redis_client)
    with serving(settings, database_url=logins[API]) as api:
        shown = shown_once(api.client, event)
        ledger = api.client.get(f"/events/{event.id}/ledger").json()["items"]
        seen = api.client.get(f"/events/{event.id}").json()
    assert shown["event"] == seen
    assert (shown["sold_tickets"], shown["event"]["available_tickets"]) == (2, 2)
    assert shown["sales"] == "closed"
    assert shown["outcomes"] == {
        "succeeded": {"booked": 2, "cancelled": 1, "changed": 1},
        "rejected": {
            "not-enough-tickets": 1,
            "already-cancelled": 1,
            "user-limit-exceeded": 1,
            "sales-closed": 2,
        },
    }
    counts = [count for by_code in shown["outcomes"].values() for count in by_code.values()]
    assert sum(counts) == len(outcomes_in_ledger(database, event.id)) == len(ledger) == 9
    assert shown["applied_position"] == shown["counted_position"] == 9
    assert shown["entries"] == ledger[::-1]
    assert shown["latency"]["commands"] == 9
    assert 0 <= shown["latency"]["p50_seconds"] <= shown["latency"]["p99_seconds"]
    assert shown["line"]["length"] == 0
    assert shown["line"]["accepted_position"] == shown["line"]["applied_position"] == 9
    assert (shown["not_answering"], shown["demo"]) == ([], False)


def test_the_line_is_shown_as_it_stands(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = on_sale(settings, database)
    with serving(settings, **QUICK) as api, watching(api.client, event) as snapshots:
        before = first_with(snapshots, lambda shown: shown["line"] is not None)
        assert (before["line"]["length"], before["line"]["oldest_wait_seconds"]) == (0, 0.0)
        assert before["latency"] is None
        submit(settings, [book(event.id, f"user{i}") for i in range(3)])
        waiting = first_with(snapshots, lambda shown: shown["line"]["length"] == 3)
        longer = next(snapshots)
        assert 0 < waiting["line"]["oldest_wait_seconds"] < longer["line"]["oldest_wait_seconds"]
        assert (waiting["line"]["accepted_position"], waiting["applied_position"]) == (3, 0)
        apply_waiting(settings, database, redis_client, event.id)
        after = first_with(snapshots, lambda shown: shown["applied_position"] == 3)
        assert (after["sold_tickets"], after["outcomes"]) == (3, {"succeeded": {"booked": 3}})
        assert first_with(snapshots, lambda shown: shown["line"]["length"] == 0)["line"]["drain_rate"] > 0


def test_the_state_of_sales_is_what_a_buyer_meets_with(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    soon = SystemClock().now() + timedelta(days=1)
    later, few = on_sale(settings, database, sales_open_at=soon), on_sale(settings, database, total_tickets=1)
    with serving(settings) as api:
        assert shown_once(api.client, later)["sales"] == "not-open-yet"
        assert shown_once(api.client, few)["sales"] == "open"
        submit(settings, [book(few.id, "ann")])
        apply_waiting(settings, database, redis_client, few.id)
        wait_until(lambda: shown_once(api.client, few)["sales"] == "sold-out")


def test_a_long_ledger_is_counted_in_steps_and_only_once(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOX_OFFICE_COUNTED_AT_ONCE_MAX", 4)
    event = a_sale_with_everything(settings, database, redis_client)
    with serving(settings, **QUICK) as api:
        with watching(api.client, event) as snapshots:
            positions = [next(snapshots)["counted_position"] for _ in range(3)]
        assert positions == [4, 8, 9]
        wait_until(lambda: nothing_is_held(api))
        # Who comes again finds what was counted before.
        assert shown_once(api.client, event)["counted_position"] == 9


def test_after_a_restore_all_is_counted_anew(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = a_sale_with_everything(settings, database, redis_client)
    with serving(settings, **QUICK) as api, watching(api.client, event) as snapshots:
        assert next(snapshots)["counted_position"] == 9
        tamper(
            database,
            f"DELETE FROM ledger WHERE event_id = '{event.id}' AND position > 2;"
            f"UPDATE events SET applied_position = 2 WHERE id = '{event.id}'",
        )
        shown = first_with(snapshots, lambda each: each["applied_position"] == 2)
    assert shown["outcomes"] == {"succeeded": {"booked": 2}}
    assert [entry["position"] for entry in shown["entries"]] == [2, 1]


def test_many_who_watch_one_event_cost_one_reader(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event, other = on_sale(settings, database), on_sale(settings, database)

    async def watch_all(api: Serving) -> tuple[list[bytes], int]:
        bounds = httpx.Limits(max_connections=100)
        async with (
            httpx.AsyncClient(base_url=api.client.base_url, limits=bounds, verify=False) as client,
            asyncio.TaskGroup() as group,
        ):
            streams = [
                group.create_task(client.get(path_of(event), params={"snapshots": 20})) for _ in range(50)
            ]
            await client.get(path_of(other), params={"snapshots": 20})
        return [stream.result().content for stream in streams], transactions

    transactions = 0

    def count(_: object) -> None:
        nonlocal transactions
        transactions += 1

    with serving(settings, **QUICK) as api:
        sqlalchemy_event.listen(api.context.database.engine, "begin", count)
        told_to_each, begun = asyncio.run(watch_all(api))
        assert all(answer.count(b"event: snapshot") == 20 for answer in told_to_each)
        # One for each who comes, to see that the event is there, and one for each look of the one reader;
        # if each of the 51 had a reader, it would be 20 each.
        assert begun - 51 < 51 * 20 / 4
        wait_until(lambda: nothing_is_held(api))


def test_nothing_is_read_when_nobody_watches(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = on_sale(settings, database)
    with serving(settings, **QUICK) as api:
        with watching(api.client, event) as snapshots:
            next(snapshots)
            assert api.context.box_offices._reader is not None
        wait_until(lambda: nothing_is_held(api) and api.context.box_offices._reader is None)
        # And it is read again when somebody comes.
        assert shown_once(api.client, event)["applied_position"] == 0


def test_who_comes_between_two_looks_does_not_wait_for_the_next(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event, other = on_sale(settings, database), on_sale(settings, database)
    with (
        serving(settings, stream_position_seconds=60, stream_heartbeat_seconds=0.1) as api,
        watching(api.client, event) as snapshots,
    ):
        next(snapshots)
        # The client gives up long before the next look at all.
        assert shown_once(api.client, other)["event"]["id"] == other.id


def test_of_a_sale_in_which_nothing_happens_only_its_row_is_read(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = on_sale(settings, database)
    statements: list[str] = []
    with serving(settings, **QUICK) as api, watching(api.client, event) as snapshots:
        next(snapshots)
        engine = api.context.database.engine
        sqlalchemy_event.listen(
            engine, "before_cursor_execute", lambda _c, _u, statement, *_: statements.append(statement)
        )
        for _ in range(3):
            next(snapshots)
    assert statements
    assert not [statement for statement in statements if "ledger" in statement.split("FROM")[-1]]


def test_past_the_bound_of_events_another_is_refused_and_those_watched_are_not(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOX_OFFICE_EVENTS_MAX", 2)
    first, second, third = (on_sale(settings, database) for _ in range(3))
    with serving(settings, **QUICK) as api:
        with ExitStack() as stack:
            open_ones = [stack.enter_context(watching(api.client, each)) for each in (first, second)]
            for snapshots in open_ones:
                next(snapshots)
            refused = api.client.get(path_of(third))
            assert shown_once(api.client, first)["event"]["id"] == first.id
        assert (refused.status_code, refused.json()["type"]) == (503, "temporarily-unavailable")
        assert "box offices" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        wait_until(lambda: nothing_is_held(api))
        assert shown_once(api.client, third)["event"]["id"] == third.id


def test_past_the_bound_of_streams_another_is_refused(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BOX_OFFICE_STREAMS_MAX", 1)
    event = on_sale(settings, database)
    with serving(settings, **QUICK) as api:
        with watching(api.client, event) as snapshots:
            next(snapshots)
            refused = api.client.get(path_of(event))
        assert (refused.status_code, refused.json()["type"]) == (503, "temporarily-unavailable")
        assert "box offices" in refused.json()["detail"]
        wait_until(lambda: nothing_is_held(api))


def test_buyers_in_line_keep_no_organiser_out(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = on_sale(settings, database)
    waiting = book(event.id, "ann")
    submit(settings, [waiting])
    with (
        serving(settings, streams_max=1, **QUICK) as api,
        own_client(api.client) as buyer,
        buyer.stream("GET", f"/jobs/{waiting.job_id}/events") as place,
    ):
        assert place.status_code == 200
        assert api.context.streams.taken == 1
        assert shown_once(api.client, event)["line"]["length"] == 1


def test_what_can_not_be_read_of_one_sale_leaves_the_others_as_they_are(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, other = on_sale(settings, database), on_sale(settings, database)
    read_sale = box_office.read_sale

    def read(connection: Any, record: EventRecord, **known: Any) -> Any:
        if record.id == other.id:
            raise ValueError("'given-away' is not a valid OutcomeCode")
        return read_sale(connection, record, **known)

    monkeypatch.setattr(box_office, "read_sale", read)
    with serving(settings, **QUICK) as api, watching(api.client, event) as snapshots:
        next(snapshots)
        assert list(told(api.client.get(path_of(other)))) == []
        for _ in range(3):
            assert next(snapshots)["event"]["id"] == event.id


def test_a_key_that_is_revoked_sees_no_more(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    key, token = make_key(database, Role.ORGANISER, "acme")
    changes = {"auth": Authentication.REQUIRED, "keys_refresh_seconds": 0.1, **QUICK}
    with serving(settings, **changes) as api:
        api.client.headers["Authorization"] = f"Bearer {token}"
        created = api.client.post("/events", json={"name": "A night", "total_tickets": 5}).json()
        with api.client.stream("GET", f"/events/{created['id']}/box-office") as answer:
            snapshots = (each for each in told(answer) if each.name)
            next(snapshots)
            with database.transaction() as connection:
                assert api_keys.revoke_key(connection, key.id, SystemClock().now())
            # Ends, where a stream that asks no more would go on for minutes.
            for _ in snapshots:
                pass
        wait_until(lambda: nothing_is_held(api))


def test_a_viewer_who_does_not_read_is_hung_up_on_and_keeps_no_process_from_its_end(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_SEND_SECONDS_MAX", 0.3)
    monkeypatch.setattr(limits, "CLOSE_SECONDS_MAX", 0.3)
    event = on_sale(settings, database, total_tickets=20)
    submit(settings, [book(event.id, f"user-{number}-" + "x" * 100) for number in range(20)])
    apply_waiting(settings, database, redis_client, event.id)
    with socket.socket() as viewer:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with serving(settings, http=ONE_WRITE, **QUICK | {"stream_position_seconds": 0.001}) as api:
            viewer.connect(api.address)
            viewer.sendall(f"GET {path_of(event)} HTTP/1.1\r\nHost: onsale\r\n\r\n".encode())
            wait_until(lambda: api.context.box_office_streams.taken == 1)
            wait_until(lambda: nothing_is_held(api))
        # The API has ended, with the viewer still there.
        assert viewer.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("event_id", ["nonsense", UNKNOWN_ID])
def test_an_unknown_event_has_no_box_office(api: httpx.Client, event_id: str) -> None:
    answer = api.get(f"/events/{event_id}/box-office")
    assert (answer.status_code, answer.json()["type"]) == (404, "event-not-found")


@pytest.mark.parametrize("snapshots", ["0", "1001", "many"])
def test_a_number_of_snapshots_has_bounds(api: httpx.Client, snapshots: str) -> None:
    answer = api.get(f"/events/{new_id()}/box-office", params={"snapshots": snapshots})
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert answer.json()["errors"][0]["field"] == "snapshots"


def test_the_box_office_of_an_event_that_is_archived_closes(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = on_sale(settings, database)
    with serving(settings, **QUICK) as api:
        with watching(api.client, event) as snapshots:
            next(snapshots)
            tamper(database, f"UPDATE events SET archived_at = now() WHERE id = '{event.id}'")
            for _ in snapshots:
                pass
        gone = api.client.get(path_of(event))
        assert (gone.status_code, gone.json()["type"]) == (410, "event-archived")


def test_while_redis_is_away_the_line_is_what_it_was_and_the_ledger_goes_on(
    settings: Settings, database: Database, valkey: ValkeyServer, redis_client: redis.Redis
) -> None:
    event = on_sale(settings, database)
    submit(settings, [book(event.id, "ann")])
    with serving(settings, **QUICK) as api, watching(api.client, event) as snapshots:
        assert next(snapshots)["line"]["length"] == 1
        valkey.stop()
        try:
            away = first_with(snapshots, lambda shown: shown["not_answering"] != [])
        finally:
            valkey.start()
        assert (away["not_answering"], away["line"]["length"]) == (["redis"], 1)
        assert first_with(snapshots, lambda shown: shown["not_answering"] == [])["line"]["length"] == 1


def test_while_postgresql_is_away_the_sale_is_what_it_was_and_the_line_goes_on(
    settings: Settings, postgres: PostgresServer, database: Database, redis_client: redis.Redis
) -> None:
    event = a_sale_with_everything(settings, database, redis_client)
    with serving(settings, **QUICK) as api, watching(api.client, event) as snapshots:
        assert next(snapshots)["not_answering"] == []
        database.close()
        postgres.stop()
        try:
            away = first_with(snapshots, lambda shown: shown["not_answering"] != [])
            assert (away["not_answering"], away["sold_tickets"]) == (["postgresql"], 2)
            submit(settings, [book(event.id, "gus")])
            assert first_with(snapshots, lambda shown: shown["line"]["length"] == 1)["sold_tickets"] == 2
        finally:
            postgres.start()
        first_with(snapshots, lambda shown: shown["not_answering"] == [])


def test_a_process_that_is_asked_to_end_closes_its_box_offices(
    settings: Settings, database: Database, redis_client: redis.Redis, project_root: Path
) -> None:
    event = on_sale(settings, database)
    with api_process(settings, SERVE, project_root) as (process, client):
        with client.stream("GET", path_of(event)) as answer:
            events = told(answer)
            assert next(events).name == "snapshot"
            process.send_signal(signal.SIGTERM)
            assert {each.name for each in events} <= {"snapshot"}
        process.wait(timeout=30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_fails_by_a_defect_ends_its_streams_and_the_next_who_comes_has_another(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = on_sale(settings, database)
    with serving(settings, **QUICK) as api:
        with watching(api.client, event) as snapshots:
            next(snapshots)
            with monkeypatch.context() as defect:
                defect.setattr(box_office, "read_sale", lambda *_, **__: 1 / 0)
                for _ in snapshots:
                    pass
        assert shown_once(api.client, event)["event"]["id"] == event.id


def test_demo_mode_is_told(settings: Settings, database: Database, redis_client: redis.Redis) -> None:
    event = on_sale(settings, database)
    with serving(settings, demo=True) as api:
        assert shown_once(api.client, event)["demo"] is True
