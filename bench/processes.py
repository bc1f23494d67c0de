"""Child processes of a measurement: started on loopback, and always stopped, by their own id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from local.open_files import allow_open_files

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.05
LOG_TAIL_CHARACTERS = 2_000
OPEN_FILES_BESIDES = 1_000
"""What a process has open beside its clients' connections."""

Process = subprocess.Popen[bytes]


class BenchmarkError(Exception):
    """What makes a figure impossible or worthless; the message is for the person who ran it."""


def allow_clients(count: int, say: Callable[[str], None]) -> None:
    """Let this process, and those that it starts from now on, hold so many connections.

    Where the system forbids it, that is said before anything is measured, and what needs fewer goes on.
    """
    wanted = count + OPEN_FILES_BESIDES
    allowed = allow_open_files(wanted)
    if allowed < wanted:
        say(f"Here a program may open {allowed:,} files only; {count:,} clients at once will not find room.")


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Process]:
    """Run a program for the length of the block.

    It gets a process group of its own: Ctrl-C reaches the benchmark alone, which then stops its
    children in the reverse of the order in which it started them.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def run_to_end(command: Sequence[str], environment: Mapping[str, str], log: Path, seconds_max: float) -> None:
    """Run a program to its end.

    Raises:
        BenchmarkError: it failed or took too long.
    """
    with running(command, environment, log) as process:
        try:
            code = process.wait(timeout=seconds_max)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{' '.join(command)} took more than {seconds_max:.0f} s") from error
    if code != 0:
        raise BenchmarkError(f"{' '.join(command)} ended with {code}:\n{_tail(log)}")


def await_http(url: str, process: Process, log: Path) -> None:
    """Wait until a URL answers at all.

    Raises:
        BenchmarkError: the process ended or the time is up; the message has the end of its log.
    """
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(f"the server ended with {process.returncode}:\n{_tail(log)}")
        try:
            httpx.get(url, timeout=1.0)
            return
        except httpx.TransportError:
            time.sleep(POLL_SECONDS)
    raise BenchmarkError(f"{url} did not answer within {START_SECONDS_MAX:.0f} s:\n{_tail(log)}")


def check_alive(processes: Mapping[str, Process], logs: Path) -> None:
    """Raise BenchmarkError, with the end of its log, if one of these processes has ended."""
    for name, process in processes.items():
        if process.poll() is not None:
            raise BenchmarkError(f"{name} ended with {process.returncode}:\n{_tail(logs / f'{name}.log')}")


def free_port() -> int:
    """A port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: Process) -> None:
    try:
        process.terminate()
        process.wait(timeout=STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _kill_group(process)


def _kill_group(process: Process) -> None:
    """End what is left of the process and its children; the group's id is the id of its first process."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
