"""What tests do to processes: freeze them as a whole, and let them go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and its children (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process and its children stand still in the block; the kernel still takes connections for them."""
    stopped = []
    try:
        for each in family(pid):
            os.kill(each, signal.SIGSTOP)
            stopped.append(each)
        yield
    finally:
        for each in reversed(stopped):
            os.kill(each, signal.SIGCONT)
