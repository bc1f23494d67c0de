"""Passwords of PostgreSQL and Redis appear in no output, whatever goes wrong."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import wait_until

PASSWORD = "s3cret-pw"  # short, since long texts are shown in part only
SECONDS_MAX = 60
SECONDS_OF_TRYING = 4


@pytest.mark.parametrize(
    ("database_url", "redis_url"),
    [
        (f"postgresql://onsale:{PASSWORD}@127.0.0.1:1/onsale", f"redis://:{PASSWORD}@127.0.0.1:1/0"),
        (f"mysql://onsale:{PASSWORD}@127.0.0.1:1/onsale", f"http://:{PASSWORD}@127.0.0.1:1/0"),
    ],
    ids=["servers away", "addresses of other kinds"],
)
@pytest.mark.parametrize(
    "command",
    [
        ["worker", "migrate"],
        ["worker", "verify"],
        ["worker", "alive"],
        ["api", "keys", "list"],
        ["uvicorn", "api.main:app", "--port", "0"],
        ["worker"],
        ["worker", "webhooks"],
    ],
    ids=" ".join,
)
def test_no_password_is_printed(
    project_root: Path, tmp_path: Path, command: list[str], database_url: str, redis_url: str
) -> None:
    environment = os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    output = tmp_path / "output"
    with output.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=project_root,
            env=environment,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: process.poll() is not None or output.stat().st_size, SECONDS_MAX)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_OF_TRYING)
    finally:
        process.terminate()
        process.wait(SECONDS_MAX)
    assert output.stat().st_size or command == ["worker", "alive"]
    assert PASSWORD not in output.read_text()
