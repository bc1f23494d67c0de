"""`python -m api serve`: what it answers, and what it refuses. How it ends is in test_stopping.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from shared.settings import Settings
from tests.builders import wait_until
from tests.serving import SERVE, api_process

SECONDS_MAX = 60


def test_the_date_of_answers_moves_on(
    settings: Settings, redis_client: redis.Redis, project_root: Path
) -> None:
    with api_process(settings, SERVE, project_root) as (_, client):
        first = client.get("/health")
        assert "server" not in first.headers
        wait_until(lambda: client.get("/health").headers["date"] != first.headers["date"])


def test_its_log_is_its_own_from_the_first_line(
    settings: Settings, redis_client: redis.Redis, project_root: Path
) -> None:
    with api_process(settings, SERVE, project_root, ONSALE_LOG_LEVEL="info") as (process, _):
        process.terminate()
        _, log = process.communicate(timeout=SECONDS_MAX)
    assert log
    assert all(line.startswith(b'{"time":') for line in log.splitlines())


def refused(project_root: Path, *options: str, **environment: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", *SERVE, *options],
        env=os.environ | environment,
        cwd=project_root,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_a_port_that_is_taken_is_told(
    settings: Settings, redis_client: redis.Redis, project_root: Path
) -> None:
    servers = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, told = refused(project_root, "--port", str(port), **servers)
    assert status != 0
    assert "address already in use" in told


def test_it_does_not_begin_open_to_everybody(
    settings: Settings, redis_client: redis.Redis, project_root: Path
) -> None:
    servers = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    status, told = refused(project_root, "--host", "0.0.0.0", **servers)
    assert status != 0
    assert "ONSALE_AUTH=required" in told


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--port", "0x50"], "--port"),
        (["--port", "70000"], "--port"),
        (["--grace-seconds", "-1"], "--grace-seconds"),
    ],
)
def test_an_option_that_cannot_be_is_told(project_root: Path, options: list[str], what: str) -> None:
    status, told = refused(project_root, *options)
    assert status == 2
    assert what in told


def test_a_setting_that_is_missing_is_told(project_root: Path) -> None:
    status, told = refused(project_root, DATABASE_URL="postgresql://nowhere", REDIS_URL="nowhere")
    assert status == 2
    assert told.startswith("REDIS_URL: ")
