"""What the worker's commands say, and how they exit, when what they need is away; asked of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from shared.database.engine import Database
from shared.settings import Settings
from tests.builders import create_event

DATABASE_AWAY = "postgresql://onsale@127.0.0.1:1/onsale"
REDIS_AWAY = "redis://127.0.0.1:1/0"
FILE_BLOCKS_MAX = 1
"""Of 512 or 1,024 bytes: too few for what `verify` replays, as on a full disk."""


def run(settings: Settings, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def worker_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "worker", *arguments]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["verify"], 2, "not all could be checked: PostgreSQL: "),
        (["migrate"], 1, "PostgreSQL: "),
        (["alive"], 1, "Redis: "),
        (["reconcile"], 1, "Redis: "),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_a_server_that_is_away_is_named_without_a_traceback(
    settings: Settings, arguments: list[str], status: int, said: str
) -> None:
    away = settings.model_copy(update={"database_url": DATABASE_AWAY, "redis_url": REDIS_AWAY})
    done = run(away, *worker_command(*arguments))
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_password_that_is_missing_is_named_without_a_traceback(settings: Settings, tmp_path: Path) -> None:
    done = run(settings, "env", f"ONSALE_PASSWORDS_DIRECTORY={tmp_path}", *worker_command("migrate"))
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_no_violation(settings: Settings, database: Database) -> None:
    create_event(database)
    limited = ["sh", "-c", f'ulimit -f {FILE_BLOCKS_MAX} && exec "$@"', "sh"]
    done = run(settings, *limited, *worker_command("verify"))
    assert done.returncode == 2
    assert "not all could be checked: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["verify", "reconcile", "migrate"])
def test_a_command_says_what_it_found_and_nothing_of_what_it_is_made_of(
    settings: Settings, database: Database, redis_client: redis.Redis, command: str
) -> None:
    done = run(settings, *worker_command(command))
    assert done.returncode == 0
    assert "plugin" not in done.stderr
