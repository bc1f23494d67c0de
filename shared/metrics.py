"""Every metric by name, and the one way in which they are written out.

`docs/metrics.md` says the same for who reads them; a test compares the two. Instruments are kept here and
counted up where things happen. With `PROMETHEUS_MULTIPROC_DIR` set, prometheus-client keeps them in files of
that folder, and any process writes out the sum of all.
"""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MutexValue, ValueClass

from shared.domain import CommandKind, OutcomeCode

CONTENT_TYPE = CONTENT_TYPE_LATEST

IS_SHARED = ValueClass is not MutexValue
"""Whether several processes add up their instruments."""

_REGISTRY = CollectorRegistry()

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PHASE_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_WAIT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_GROUP_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)

REQUEST_SECONDS = Histogram(
    "onsale_http_request_seconds",
    "Time from a request to the head of its answer, by method, route and class of status.",
    ("method", "route", "status"),
    buckets=_REQUEST_SECONDS,
    registry=_REGISTRY,
)
REQUESTS_REFUSED = Counter(
    "onsale_http_refusals_total",
    "Requests that were answered with a problem, by its type.",
    ("reason",),
    registry=_REGISTRY,
)
COMMANDS_ACCEPTED = Counter(
    "onsale_commands_accepted_total",
    "Commands that were given a position in line, by kind.",
    ("kind",),
    registry=_REGISTRY,
)
ENQUEUE_SECONDS = Histogram(
    "onsale_enqueue_seconds",
    "Time until Redis had commands that were sent together, as durably as it is set to.",
    buckets=_PHASE_SECONDS,
    registry=_REGISTRY,
)
COMMANDS_APPLIED = Counter(
    "onsale_commands_applied_total",
    "Commands that were applied, by outcome; a redelivery does not count again.",
    ("outcome",),
    registry=_REGISTRY,
)
BATCH_COMMANDS = Histogram(
    "onsale_batch_commands",
    "Commands applied in one transaction.",
    buckets=_GROUP_SIZES,
    registry=_REGISTRY,
)
BATCH_WAIT_SECONDS = Histogram(
    "onsale_batch_wait_seconds",
    "How long the first command of a batch was in line when it had been applied.",
    buckets=_WAIT_SECONDS,
    registry=_REGISTRY,
)
PHASE_SECONDS = Histogram(
    "onsale_phase_seconds",
    "Time in a phase of a worker's round: claim, where it did not sleep before; lock, prefetch, rules and"
    " write of the transaction (with its commit), of which a small batch that is decided from memory has only"
    " the last two, and one that is decided while the one before is written at most the last three;"
    " complete.",
    ("phase",),
    buckets=_PHASE_SECONDS,
    registry=_REGISTRY,
)
_BATCHES_FROM_MEMORY = Counter(
    "onsale_batches_from_memory_total",
    "Batches decided without reading, by outcome: written, or refused by PostgreSQL and then read.",
    ("outcome",),
    registry=_REGISTRY,
)
BATCHES_WRITTEN_FROM_MEMORY = _BATCHES_FROM_MEMORY.labels("written")
BATCHES_REFUSED_FROM_MEMORY = _BATCHES_FROM_MEMORY.labels("refused")
_BATCHES_AHEAD = Counter(
    "onsale_batches_ahead_total",
    "Batches decided while the one before was written, by outcome: written, or refused by PostgreSQL and then"
    " read.",
    ("outcome",),
    registry=_REGISTRY,
)
BATCHES_WRITTEN_AHEAD = _BATCHES_AHEAD.labels("written")
BATCHES_REFUSED_AHEAD = _BATCHES_AHEAD.labels("refused")
CLAIMS = Counter("onsale_claims_total", "Claims on events.", registry=_REGISTRY)
TAKEOVERS = Counter(
    "onsale_takeovers_total",
    "Claims on events whose consumer had let its claim pass.",
    registry=_REGISTRY,
)
CLAIMS_GIVEN_UP = Counter(
    "onsale_claims_given_up_total",
    "Claims that ended without progress, by reason: stale, locked, blocked or database.",
    ("reason",),
    registry=_REGISTRY,
)
REDIS_ERRORS = Counter("onsale_redis_errors_total", "Calls of Redis that failed.", registry=_REGISTRY)
DATABASE_ERRORS = Counter(
    "onsale_database_errors_total",
    "Transactions that failed, by reason: unavailable, locked or refused (but not one decided before).",
    ("reason",),
    registry=_REGISTRY,
)

LINE_COMMANDS = "onsale_line_commands"
LINE_OLDEST_WAIT_SECONDS = "onsale_line_oldest_wait_seconds"
LINE_EVENTS = "onsale_line_events"
REDIS_UP = "onsale_redis_up"
REDIS_MEMORY_BYTES = "onsale_redis_memory_bytes"
REDIS_MEMORY_MAX_BYTES = "onsale_redis_memory_max_bytes"
REDIS_KEYS = "onsale_redis_keys"
RESULTS_KEPT = "onsale_results_kept"
WORKERS = "onsale_workers"
WEBHOOK_WORKERS = "onsale_webhook_workers"
VERIFY_VIOLATIONS = "onsale_verify_violations"
VERIFY_TIME_SECONDS = "onsale_verify_time_seconds"

READ_FROM_REDIS: dict[str, str] = {
    LINE_COMMANDS: "Commands that wait, for the longest lines by event, for all others as event=other.",
    LINE_OLDEST_WAIT_SECONDS: "How long the first in line has waited, for the same events.",
    LINE_EVENTS: "Events with work, by state: waiting for a consumer, or consumed.",
    REDIS_UP: "1 if Redis answered when it was asked for what follows, else 0.",
    REDIS_MEMORY_BYTES: "Memory that Redis uses.",
    REDIS_MEMORY_MAX_BYTES: "Memory that Redis may use; 0 means that it has no bound of its own.",
    REDIS_KEYS: "Keys in Redis: mostly commands that wait and results until they expire.",
    RESULTS_KEPT: "Results that Redis still keeps, of the events with work that were looked at.",
    WORKERS: "Workers that are alive, as RQ's list has them.",
    WEBHOOK_WORKERS: "Processes that tell webhooks and are alive.",
    VERIFY_VIOLATIONS: "Violations that the last `python -m worker verify` found.",
    VERIFY_TIME_SECONDS: "When it ended, in seconds since 1970.",
}
"""Gauges that are read from Redis when they are asked for; all processes show the same."""

# Known from the start: what is first seen with a count has not grown, as far as an alert can tell.
for _reason in ("line-full", "temporarily-unavailable", "internal-error"):
    REQUESTS_REFUSED.labels(_reason)
for _reason in ("stale", "locked", "blocked", "database"):
    CLAIMS_GIVEN_UP.labels(_reason)
for _reason in ("unavailable", "locked", "refused"):
    DATABASE_ERRORS.labels(_reason)
KIND_COUNTERS = {kind.value: COMMANDS_ACCEPTED.labels(kind.value).inc for kind in CommandKind}
COUNT_UNKNOWN_KIND = KIND_COUNTERS[CommandKind.UNKNOWN]
OUTCOME_COUNTERS = {outcome: COMMANDS_APPLIED.labels(outcome.value).inc for outcome in OutcomeCode}


def exposition(*collectors: Collector) -> bytes:
    """All instruments, and what these collectors add, as Prometheus reads them."""
    shown = CollectorRegistry()
    if IS_SHARED:
        MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
    else:
        shown.register(_REGISTRY)
        ProcessCollector(registry=shown)
    for collector in collectors:
        shown.register(collector)
    return generate_latest(shown)


def instruments() -> dict[str, str]:
    """Name and meaning of every metric of ours."""
    counted = {
        family.name + ("_total" if family.type == "counter" else ""): family.documentation
        for family in _REGISTRY.collect()
    }
    return counted | READ_FROM_REDIS
