"""The embedded servers: their data outlast a stop, a kill and a crash's leavings."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import redis

import local.postgres
from local.servers import PostgresServer, Server, ServerFailed, ValkeyServer, free_port

SERVERS = [PostgresServer, ValkeyServer]


def run_sql(server: PostgresServer, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(server.url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def remember(server: Server, word: str) -> None:
    if isinstance(server, PostgresServer):
        run_sql(server, f"CREATE TABLE memory AS SELECT '{word}'::text AS word")
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("memory", word)


def recall(server: Server) -> object:
    if isinstance(server, PostgresServer):
        return run_sql(server, "SELECT word FROM memory")[0][0]
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return client.get("memory")


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_restart_keeps_port_and_data(kind: type[Server], way: str, tmp_path: Path) -> None:
    with kind(tmp_path / "data") as server:
        remember(server, "kept")
        url, process = server.url, server.process
        getattr(server, way)()
        assert server.pid is None
        server.start()
        assert server.url == url
        assert server.process is not process
        assert recall(server) == "kept"


@pytest.mark.skipif(sys.platform != "linux", reason="preloading is Linux's")
def test_valkey_runs_with_the_quick_allocator(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "data") as server:
        assert "libmimalloc" in Path(f"/proc/{server.pid}/maps").read_text()


@pytest.mark.parametrize("kind", SERVERS)
def test_another_run_finds_the_data_and_settings_go_before_the_defaults(
    kind: type[Server], tmp_path: Path
) -> None:
    with kind(tmp_path / "data") as server:
        remember(server, "kept")
    name = "max_connections" if kind is PostgresServer else "maxclients"
    with kind(tmp_path / "data", settings={name: "37"}) as server:
        assert recall(server) == "kept"
        if isinstance(server, PostgresServer):
            assert run_sql(server, f"SHOW {name}") == [("37",)]
        else:
            with redis.Redis.from_url(server.url) as client:
                assert client.config_get(name) == {name: "37"}


@pytest.mark.parametrize("kind", SERVERS)
def test_starting_and_stopping_twice_is_the_same_as_once(kind: type[Server], tmp_path: Path) -> None:
    server = kind(tmp_path / "data")
    server.stop()
    with server:
        pid = server.pid
        server.start()
        assert server.pid == pid
        server.stop()
        server.stop()
        server.kill()
        assert server.pid is None


def test_a_process_id_that_a_crash_left_behind_is_not_in_the_way(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "data")
    with server:
        remember(server, "kept")
        left_behind = (server.data_directory / "postmaster.pid").read_text()
    # The id now belongs to a process that lives and that has nothing to do with it.
    _, _, rest = left_behind.partition("\n")
    (server.data_directory / "postmaster.pid").write_text(f"{os.getppid()}\n{rest}")
    with server:
        assert recall(server) == "kept"


@pytest.mark.parametrize("kind", SERVERS)
def test_data_are_used_by_one_server_at_a_time(
    kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.server.LOCK_SECONDS_MAX", 0.1)
    with kind(tmp_path / "data") as server:
        with pytest.raises(ServerFailed, match=r"another .* uses"):
            kind(tmp_path / "data").start()
        assert server.pid is not None


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_can_not_start_shows_the_end_of_its_log(kind: type[Server], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = kind(tmp_path / "data", port=taken.getsockname()[1])
        with pytest.raises(ServerFailed, match=r"(?s)ended while it was starting.*[Aa]ddress already in use"):
            server.start()
    assert server.pid is None
    with server:
        remember(server, "works once the port is free")


def test_postgresql_is_durable_and_alone_on_loopback(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "data") as server:
        for name, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "server_encoding": "UTF8",
        }.items():
            assert run_sql(server, f"SHOW {name}") == [(value,)], name
        password_file = tmp_path / "data.password"
        assert password_file.stat().st_mode & 0o777 == 0o600
        wrong = server.url.replace(password_file.read_text(), "wrong")
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(wrong)


def test_a_lost_password_is_said_before_anything_is_started(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "data")
    with server:
        pass
    (tmp_path / "data.password").unlink()
    with pytest.raises(ServerFailed, match=r"data\.password is missing"):
        server.start()
    assert server.pid is None


def test_valkey_writes_each_command_to_disk_and_keeps_jobs_small(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "hash-max-listpack-value": "1024",
            "stream-node-max-bytes": "256",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }.items():
            assert client.config_get(name) == {name: value}


def test_free_ports_are_free_and_not_those_of_outgoing_connections() -> None:
    port = free_port()
    assert 20_000 <= port < 32_000
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


@pytest.mark.parametrize(("memory", "buffers_mb"), [(2**28, 128), (2**30, 256), (2**31, 512), (2**40, 1024)])
def test_postgresql_gets_a_quarter_of_the_memory_for_its_buffers_within_bounds(
    memory: int, buffers_mb: int
) -> None:
    assert local.postgres.buffers_mb(memory) == buffers_mb


def test_postgresql_runs_with_these_buffers(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "data", settings={"shared_buffers": "144MB"}) as server:
        assert run_sql(server, "SHOW shared_buffers") == [("144MB",)]
    wanted = local.postgres.SETTINGS["shared_buffers"]
    with PostgresServer(tmp_path / "data") as server:
        same = f"SELECT pg_size_bytes(current_setting('shared_buffers')) = pg_size_bytes('{wanted}')"
        assert run_sql(server, same) == [(True,)]
