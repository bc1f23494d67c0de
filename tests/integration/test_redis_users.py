"""Redis with the users that `docker-compose up` gives it: who may what, and that no command is lost by it."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from local.servers import ValkeyServer
from shared.database.engine import Database
from shared.domain import OutcomeCode
from shared.line.connections import connect
from shared.settings import Settings
from tests.builders import (
    apply_waiting,
    book,
    create_event,
    outcomes_in_ledger,
    queue_length,
    seed,
    submit,
    violations,
)


class ValkeyWithUsers(ValkeyServer):
    """Valkey that only lets in who has a password."""

    @property
    def url(self) -> str:
        """Where the API and the workers connect."""
        password = (self.data_directory.parent / "redis" / "password").read_text().strip()
        return f"redis://onsale:{password}@127.0.0.1:{self.port}/0"


@pytest.fixture
def guarded(project_root: Path, tmp_path: Path) -> Iterator[ValkeyWithUsers]:
    script = runpy.run_path(str(project_root / "deploy/make_secrets.py"))
    for name in (*script["PASSWORDS"], "redis_server"):
        (tmp_path / name).mkdir()
    script["main"](tmp_path)
    users = str(tmp_path / "redis_server" / "users.acl")
    with ValkeyWithUsers(tmp_path / "data", settings={"aclfile": users}) as server:
        yield server


def test_accepted_commands_outlive_a_kill_of_a_redis_with_users(
    guarded: ValkeyWithUsers, settings: Settings, database: Database
) -> None:
    own = settings.model_copy(update={"redis_url": guarded.url})
    event = create_event(database)
    seed(own, event)
    submit(own, [book(event.id, f"user-{number}") for number in range(3)])
    guarded.kill()
    guarded.start()
    with connect(own) as client:
        assert queue_length(client, event.id) == 3
        apply_waiting(own, database, client, event.id)
    booked = [(position, outcome) for position, _, outcome in outcomes_in_ledger(database, event.id)]
    assert booked == [(position, OutcomeCode.BOOKED) for position in (1, 2, 3)]
    assert violations(database) == []


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/0", "redis://default:guess@127.0.0.1:{port}/0"])
def test_nobody_gets_in_without_a_password(guarded: ValkeyWithUsers, url: str) -> None:
    with (
        redis.Redis.from_url(url.format(port=guarded.port)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_the_dashboards_user_sees_what_is_rqs_and_not_the_line(guarded: ValkeyWithUsers) -> None:
    password = (guarded.data_directory.parent / "dashboard_redis" / "password").read_text().strip()
    url = f"redis://dashboard:{password}@127.0.0.1:{guarded.port}/0"
    with redis.Redis.from_url(url) as client:
        assert client.smembers("rq:queues") == set()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("onsale:anything")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushdb()
