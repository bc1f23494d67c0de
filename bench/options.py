"""How long and how large a run is, and where it keeps its data."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import REPOSITORY

DATA = REPOSITORY / ".data"
"""On the disk that Onsale uses, not in a /tmp that may be memory, where fsync costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be set on the command line."""

    rounds: int = 3
    seconds: int = 8
    connections: int = 256
    line: int = 100_000
    """Commands in a full line that is drained."""
    growth_rows: int = 5_000_000
    growth_line: int = 1_000_000
    memory_seconds: int = 600
    memory_per_second: int = 5_000
    stampede_clients: int = 10_000


QUICK = Options(rounds=1, seconds=3, line=20_000)


@contextmanager
def scratch() -> Iterator[Path]:
    """A fresh directory for one measurement's data, which PostgreSQL's own user may enter."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=DATA, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
