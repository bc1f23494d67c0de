"""`python -m demo` as a person runs it, without a terminal and with a worker killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SECONDS_MAX = 110


@pytest.mark.timeout(SECONDS_MAX + 10)
def test_a_small_demo_survives_its_worker_and_finds_every_answer_true(
    project_root: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "demo.svg"
    command = [sys.executable, "-m", "demo", "--buyers", "300", "--tickets", "50", "--kill-worker"]
    command += ["--compare", "--picture", str(picture)]
    before = {process.pid for process in psutil.process_iter()}
    finished = subprocess.run(
        command,
        cwd=project_root,
        env=os.environ | {"ONSALE_LEASE_SECONDS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    output = finished.stdout
    assert finished.returncode == 0, output + finished.stderr
    assert "killed (SIGKILL)" in output
    for promise in (
        "true   Sold exactly",
        "true   Nobody over the limit",
        "true   First come, first served",
        "true   Every command answered once",
        "true   Everyone answered",
    ):
        assert promise in output
    assert "Verdict: every answer is true." in output
    assert "side by side" in output
    assert "NOT TRUE" not in output
    assert "\x1b" not in output
    assert picture.read_text().startswith("<svg")
    left = [each for each in psutil.process_iter(["cmdline"]) if each.pid not in before and of_the_demo(each)]
    assert left == []


def of_the_demo(process: psutil.Process) -> bool:
    return any(part in " ".join(process.info["cmdline"] or []) for part in ("benchmark-", "bench.peers"))


def test_a_wrong_option_gives_one_clear_line(project_root: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "demo", "--url", "http://127.0.0.1:1", "--kill-worker"],
        cwd=project_root,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert finished.returncode == 2
    [line] = finished.stderr.splitlines()
    assert line.startswith("demo: --workers and --kill-worker are only for an Onsale that the demo starts")
