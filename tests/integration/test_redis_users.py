"""Redis as `docker-compose up` sets it, and its users: who may what, and that no command is lost by it."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml

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
        return self.url_of("onsale", "redis")

    def url_of(self, user: str, secret: str) -> str:
        """Where this user connects, with the password from this folder."""
        password = (self.data_directory.parent / secret / "password").read_text().strip()
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/0"


def compose_settings(project_root: Path) -> dict[str, str]:
    """What the compose file sets, but for the places of files."""
    services = yaml.safe_load((project_root / "docker-compose.yml").read_text())["services"]
    command = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", services["redis"]["command"])
    _, *words = shlex.split(command)
    settings = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    return {name: value for name, value in settings.items() if name not in ("dir", "aclfile")}


@pytest.fixture
def guarded(project_root: Path, tmp_path: Path) -> Iterator[ValkeyWithUsers]:
    script = runpy.run_path(str(project_root / "deploy/make_secrets.py"))
    for name in (*script["PASSWORDS"], "redis_server"):
        (tmp_path / name).mkdir()
    script["main"](tmp_path)
    users = str(tmp_path / "redis_server" / "users.acl")
    settings = {**compose_settings(project_root), "aclfile": users}
    with ValkeyWithUsers(tmp_path / "data", settings=settings) as server:
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
    with redis.Redis.from_url(guarded.url_of("dashboard", "dashboard_redis")) as client:
        assert client.smembers("rq:queues") == set()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("onsale:anything")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushdb()


def test_the_operator_backs_up_and_promotes_and_no_process_of_ours_can(guarded: ValkeyWithUsers) -> None:
    with redis.Redis.from_url(guarded.url_of("operator", "redis_operator")) as client:
        assert client.config_set("auto-aof-rewrite-percentage", 0)
        assert client.info("persistence")["aof_rewrite_in_progress"] == 0
        assert client.replicaof("NO", "ONE")
    for user, secret in (("onsale", "redis"), ("dashboard", "dashboard_redis")):
        with redis.Redis.from_url(guarded.url_of(user, secret)) as client:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.config_set("auto-aof-rewrite-percentage", 0)
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.replicaof("NO", "ONE")


def test_redis_has_a_bound_of_its_own_past_which_it_refuses(guarded: ValkeyWithUsers) -> None:
    with redis.Redis.from_url(guarded.url) as client:
        # Without a bound of its own there would be nothing to compare with, and the kernel would end it.
        assert client.info("memory")["maxmemory"] == 2 * 1024**3
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
