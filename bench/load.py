"""The load: `wrk` with bench/booking.lua, many clients that book on one event as fast as they can."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchmarkError

SCRIPT = Path(__file__).with_name("booking.lua")
THREADS_MAX = 2
REQUEST_TIMEOUT_SECONDS = 10
INSTALL_SECONDS_MAX = 300
RESULT_MARK = "RESULT "
HOW_TO_INSTALL = "wrk is missing; install it with: apt-get update && apt-get install wrk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the clients saw."""

    seconds: float
    accepted: int
    refused: int


def ensure_wrk() -> str:
    """The version of wrk, installed first where that is possible.

    Raises:
        BenchmarkError: it is missing and can't be installed; the message says how to.
    """
    if shutil.which("wrk") is None:
        _install_wrk()
    banner = subprocess.run(["wrk", "--version"], capture_output=True, text=True, timeout=10, check=False)
    return banner.stdout.split(" Copyright")[0].strip()


def book_for(seconds: int, *, connections: int, base_url: str, event_id: str) -> Load:
    """Book on one event for a while, each connection sending its next booking after the last answer.

    Raises:
        BenchmarkError: connections broke or requests timed out, so that the count is not to be trusted.
    """
    output = _run_wrk(seconds, connections, base_url, f"/events/{event_id}/bookings")
    result = json.loads(output[output.rindex(RESULT_MARK) + len(RESULT_MARK) :])
    if result["broken"]:
        raise BenchmarkError(f"{result['broken']} requests were lost or timed out:\n{output}")
    return Load(
        seconds=result["seconds"],
        accepted=result["answers"] - result["refused"],
        refused=result["refused"],
    )


def _run_wrk(seconds: int, connections: int, base_url: str, path: str) -> str:
    command = [
        "wrk",
        f"--threads={min(THREADS_MAX, connections)}",
        f"--connections={connections}",
        f"--duration={seconds}s",
        f"--timeout={REQUEST_TIMEOUT_SECONDS}s",
        f"--script={SCRIPT}",
        base_url,
        "--",
        path,
    ]
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + 2 * REQUEST_TIMEOUT_SECONDS,
        check=False,
    )
    if finished.returncode != 0 or RESULT_MARK not in finished.stdout:
        raise BenchmarkError(f"wrk failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def _install_wrk() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchmarkError(HOW_TO_INSTALL)
    print("Installing wrk with apt-get …", flush=True)
    # A fresh image has no lists of packages, or lists of packages that are gone.
    _apt_get("update")
    _apt_get("install", "--yes", "--no-install-recommends", "wrk")


def _apt_get(*arguments: str) -> None:
    finished = subprocess.run(
        ["apt-get", *arguments], capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
    )
    if finished.returncode != 0:
        raise BenchmarkError(f"{HOW_TO_INSTALL}\n{finished.stderr.strip()}")
