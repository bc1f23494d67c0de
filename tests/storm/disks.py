"""Small disks in memory, which can be filled up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DISK_BYTES = 1_500_000_000
MOUNT_SECONDS_MAX = 10.0
_BALLOON = "balloon"
_BLOCK_BYTES = 1_000_000
_LAST_BLOCK_BYTES = 4_096
_FILLINGS = 3


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of its own on this folder, where that is possible; gives whether it is."""
    folder.mkdir()
    is_mounted = os.geteuid() == 0 and _mount(folder)
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=MOUNT_SECONDS_MAX)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """The disk of this folder has no room left until the end of the block."""
    balloon = folder / _BALLOON
    try:
        with balloon.open("wb") as file:
            # The server may free some room meanwhile.
            for _ in range(_FILLINGS):
                _blow_up(file.fileno(), _BLOCK_BYTES)
                _blow_up(file.fileno(), _LAST_BLOCK_BYTES)
        yield
    finally:
        balloon.unlink(missing_ok=True)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=MOUNT_SECONDS_MAX)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _blow_up(descriptor: int, block_bytes: int) -> None:
    """Take all the room there is, to within a block."""
    with suppress(OSError):
        while True:
            size = os.fstat(descriptor).st_size
            os.posix_fallocate(descriptor, size, block_bytes)
