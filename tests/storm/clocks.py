"""Clocks that can be stepped: of Valkey, an API process and the workers, by Debian's libfaketime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

STEP_SECONDS = 3_600
CACHE_SECONDS = 1
"""How long a process goes on with the old time after a step."""

_SHARED_MEMORY = ("faketime_shm_", "sem.faketime_sem_")
_PRELOAD = Path(__file__).parent / "preload"


class ClockOf(StrEnum):
    """Whose clock."""

    VALKEY = "Valkey"
    API = "an API process"
    WORKERS = "the workers"


class Clocks:
    """One file for each group of processes says by how many seconds its clock is wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = _find_library()
        for whose in ClockOf:
            self._write(whose, 0)

    @property
    def can_be_stepped(self) -> bool:
        """Whether the library is installed."""
        return self._library is not None

    def environment(self, whose: ClockOf) -> Mapping[str, str]:
        """What a process needs in its environment to have this clock."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(whose)),
            "FAKETIME_CACHE_DURATION": str(CACHE_SECONDS),
            # Nobody can step the monotonic clock of a real machine either.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(_PRELOAD),
        }

    @contextmanager
    def stepped(self, whose: ClockOf, seconds: int) -> Iterator[None]:
        """This clock is wrong by so many seconds until the end of the block."""
        self._write(whose, seconds)
        try:
            yield
        finally:
            self._write(whose, 0)

    def remove_traces(self, process_ids: Iterable[int]) -> None:
        """Remove the shared memory that the library leaves behind where a process is killed."""
        for process_id in process_ids:
            for name in _SHARED_MEMORY:
                Path("/dev/shm", f"{name}{process_id}").unlink(missing_ok=True)

    def _file(self, whose: ClockOf) -> Path:
        return self._folder / f"clock-{whose.name.lower()}"

    def _write(self, whose: ClockOf, seconds: int) -> None:
        unfinished = self._file(whose).with_suffix(".unfinished")
        unfinished.write_text(f"{seconds:+d}\n")
        unfinished.replace(self._file(whose))


def _find_library() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
