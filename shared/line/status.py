"""What an operator watches of the line, read from Redis when Prometheus asks and remembered for a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, cast

import redis
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared import limits, metrics
from shared.clock import Clock, parse_time
from shared.errors import LineUnavailable
from shared.line import keys
from shared.line.connections import line_errors
from shared.line.scripts import ScriptName, script_source
from shared.line.webhook_jobs import QUEUE_NAME, SLOW_QUEUE_NAME
from shared.log import log_event

logger = logging.getLogger(__name__)

OTHER_EVENTS = "other"
"""The label of all events that are not told one by one."""

_SERVERS = 5
_FIXED = 10
_PER_LINE = 3


class LineStatus(Collector):
    """Shows the line to Prometheus. For several threads; Redis is asked once a moment, however many ask."""

    def __init__(self, client: redis.Redis, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._script = client.register_script(script_source(ScriptName.LINE_STATUS))
        self._lock = threading.Lock()
        self._shown: list[Metric] = []
        self._read_again_at = 0.0

    def collect(self) -> Iterable[Metric]:
        """The line as of a moment ago. If Redis does not answer, that is all that it says."""
        with self._lock:
            now = self._clock.monotonic_seconds()
            if now >= self._read_again_at:
                self._shown = list(self._read())
                self._read_again_at = now + limits.LINE_STATUS_SECONDS
            return self._shown

    def _read(self) -> Iterator[Metric]:
        try:
            with line_errors():
                arguments: list[int | str] = [limits.LINES_TOLD_MAX, QUEUE_NAME, SLOW_QUEUE_NAME]
                found = cast(list[Any], self._script(args=arguments))
                memory = self._client.info("memory")
                keys_held = self._client.dbsize()
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "metrics don't show the line", reason=error)
            yield _gauge(metrics.REDIS_UP, 0)
            return
        yield _gauge(metrics.REDIS_UP, 1)
        yield _gauge(metrics.REDIS_MEMORY_BYTES, memory["used_memory"])
        yield _gauge(metrics.REDIS_MEMORY_MAX_BYTES, memory["maxmemory"])
        yield _gauge(metrics.REDIS_KEYS, keys_held)
        yield from _told(found)


def leave_verify_result(client: redis.Redis, clock: Clock, violations: int) -> None:
    """Let `/metrics` show what `verify` found.

    Raises:
        LineUnavailable: Redis does not answer.
    """
    fields: dict[Any, Any] = {"violations": violations, "seconds": f"{clock.now().timestamp():.0f}"}
    with line_errors(), client.pipeline(transaction=True) as pipeline:
        pipeline.hset(keys.VERIFIED, mapping=fields)
        pipeline.expire(keys.VERIFIED, limits.VERIFY_RESULT_TTL_SECONDS)
        pipeline.execute()


def _told(found: list[Any]) -> Iterator[Metric]:
    waiting, consumed, workers, telling, now = found[:_SERVERS]
    results, violations, verified_at, others, oldest = found[_SERVERS:_FIXED]
    seconds = float(now)
    events = _family(metrics.LINE_EVENTS, "state")
    events.add_metric(["waiting"], waiting)
    events.add_metric(["consumed"], consumed)
    yield events
    yield _gauge(metrics.WORKERS, workers)
    yield _gauge(metrics.WEBHOOK_WORKERS, telling)
    yield _gauge(metrics.RESULTS_KEPT, results)
    if violations:
        yield _gauge(metrics.VERIFY_VIOLATIONS, float(violations))
        yield _gauge(metrics.VERIFY_TIME_SECONDS, float(verified_at))
    commands = _family(metrics.LINE_COMMANDS, "event")
    waits = _family(metrics.LINE_OLDEST_WAIT_SECONDS, "event")
    for index in range(_FIXED, len(found), _PER_LINE):
        event_id, length, accepted_at = found[index : index + _PER_LINE]
        commands.add_metric([event_id.decode()], length)
        waits.add_metric([event_id.decode()], _waited(accepted_at, seconds))
    commands.add_metric([OTHER_EVENTS], others)
    waits.add_metric([OTHER_EVENTS], _waited(oldest, seconds))
    yield commands
    yield waits


def _waited(accepted_at: bytes, now_seconds: float) -> float:
    """By two clocks, of the API and of Redis; nobody has waited for less than nothing."""
    try:
        return max(0.0, now_seconds - parse_time(accepted_at.decode()).timestamp())
    except ValueError:
        return 0.0


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, metrics.READ_FROM_REDIS[name], value=value)


def _family(name: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, metrics.READ_FROM_REDIS[name], labels=[label])
