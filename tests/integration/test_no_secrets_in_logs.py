"""Passwords of PostgreSQL and Redis appear in no output, whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PASSWORD = "s3cret-pw"  # short, since long texts are shown in part only
SECONDS_MAX = 60


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
    project_root: Path, command: list[str], database_url: str, redis_url: str
) -> None:
    environment = os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=project_root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = process.communicate(timeout=6)
    except subprocess.TimeoutExpired:
        # Those that go on by themselves have tried a few times by now.
        process.terminate()
        printed, _ = process.communicate(timeout=SECONDS_MAX)
    assert printed or command == ["worker", "alive"]
    assert PASSWORD not in printed
