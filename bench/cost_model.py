"""What the simulation takes from our measurements: seconds per command and per batch, by part."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Processor seconds per command, unless named `_batch` (per batch). `fsync` is waited, not computed."""

    client: float
    api: float
    valkey_accept: float
    valkey_complete: float
    worker: float
    worker_batch: float
    postgres: float
    postgres_batch: float
    fsync: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """docs/benchmarks.json and docs/costs.json."""

    benchmarks: dict[str, Any]
    costs: dict[str, dict[str, float]]
    stored: dict[str, int]
    fsync: float

    def accepts_per_second(self) -> float:
        """Of one API process."""
        return float(statistics.median(self.benchmarks["accepts"]["figures"]["per_second"]["Onsale"]))

    def scale(self) -> float:
        """Costs.json and benchmarks.json may be of different moments and machines. An accept costs the API
        process the whole of its time in both, so it tells how much dearer all was in the first."""
        return 1 / self.accepts_per_second() / (self.costs["accepts"]["api"] * 1e-6)

    def of(self, run: str, part: str) -> float:
        """Seconds per command of a part in a run of costs.json, as on the machine of benchmarks.json."""
        return self.costs[run][part] * 1e-6 * self.scale()


def read_measured() -> Measured:
    """Read both files."""
    benchmarks = json.loads((DOCS / "benchmarks.json").read_text())
    costs = json.loads((DOCS / "costs.json").read_text())
    return Measured(
        benchmarks=benchmarks["measures"],
        costs=costs["processor_microseconds"],
        stored=costs["bytes"],
        fsync=benchmarks["machine"]["fsync_us_p50"] * 1e-6,
    )


def costs_of(measured: Measured, clients: str = "accepts", workers: int | None = None) -> Costs:
    """With clients as in `accepts` (202 at once), `steady` or `stampede` (they wait for the result).

    Full batches cost what they did in `drain`, or in `scaling` with so many workers.
    """
    figures = measured.benchmarks["drain" if workers is None else "scaling"]["figures"]
    drain = figures["processor_microseconds"]
    drain = drain if workers is None else drain[str(workers)]
    worker, postgres = drain["workers"] * 1e-6, drain["PostgreSQL"] * 1e-6
    batch = measured.costs["steady"]["commands_in_a_batch"]
    return Costs(
        client=measured.of(clients, "clients"),
        api=measured.of(clients, "api"),
        valkey_accept=measured.of("accepts", "Valkey"),
        valkey_complete=drain["Valkey"] * 1e-6,
        worker=worker,
        worker_batch=max(0.0, measured.of("steady", "workers") - worker) * batch,
        postgres=postgres,
        postgres_batch=max(0.0, measured.of("steady", "PostgreSQL") - postgres) * batch,
        fsync=measured.fsync,
    )
