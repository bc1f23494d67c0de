"""Child processes that end when they are told to, and at the latest when their parent does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

STOP_SECONDS_MAX = 20.0
"""How long a child may take to end before it is killed."""

_PR_SET_PDEATHSIG = 1


def spawn(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    working_directory: Path | None = None,
    signal_at_parent_death: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that the terminal's Ctrl-C reaches only its parent.

    Call it from the main thread: the child gets its signal when the thread that started it ends.
    Output goes to the file `log`, or where the parent's goes.
    """
    output = log.open("ab") if log else None
    try:
        return subprocess.Popen(
            [str(part) for part in command],
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            cwd=working_directory,
            start_new_session=True,
            preexec_fn=_die_with_parent(signal_at_parent_death),
        )
    finally:
        if output:
            output.close()


def stop(process: subprocess.Popen[bytes], with_signal: signal.Signals = signal.SIGTERM) -> None:
    """End a child and wait for it; one that doesn't listen is killed."""
    if process.poll() is not None:
        return
    process.send_signal(with_signal)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with_parent(with_signal: signal.Signals) -> Callable[[], None] | None:
    """Linux tells a child that asks of its parent's death; elsewhere a killed parent leaves children."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(with_signal))
        if os.getppid() != parent:
            os._exit(1)

    return ask
