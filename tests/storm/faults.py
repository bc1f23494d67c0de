"""Every fault of a storm: a name, how long it holds, and how it is done and undone."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from random import Random

import redis

from shared.domain import CommandKind
from shared.errors import OnsaleError
from shared.identifiers import new_id
from shared.line import keys
from shared.line.codec import COMMAND_VERSION, JOB_FUNCTION
from shared.line.producer import Submission
from shared.records import CommandPayload
from tests.builders import submit
from tests.storm.clocks import CACHE_SECONDS, STEP_SECONDS, ClockOf
from tests.storm.cluster import LEASE_SECONDS, Cluster, Program
from tests.storm.disks import filled
from tests.storm.loop_thread import LoopThread
from tests.storm.proxy import Proxy, Traffic

DELETE_STEP_KEYS = 1_000
OVERSIZED_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Target:
    """What the faults are done to."""

    cluster: Cluster
    loop: LoopThread
    event_ids: Sequence[str]
    foreign_job_ids: set[str]
    """Commands that a fault put in line, which the ledger may show though no client sent them."""


Injection = Callable[[Target, Random], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A fault that can happen. `hold_seconds` are the shortest and the longest time until it is undone."""

    name: str
    inject: Injection
    hold_seconds: tuple[float, float] = (0.0, 0.0)


@contextmanager
def _kill_worker(target: Target, random: Random) -> Iterator[None]:
    random.choice(target.cluster.workers).signal(signal.SIGKILL)
    yield


@contextmanager
def _kill_api(target: Target, random: Random) -> Iterator[None]:
    random.choice(target.cluster.apis).signal(signal.SIGKILL)
    yield


@contextmanager
def _kill_valkey(target: Target, _random: Random) -> Iterator[None]:
    target.cluster.valkey.kill()
    yield


@contextmanager
def _crash_postgres(target: Target, _random: Random) -> Iterator[None]:
    target.cluster.postgres.kill()
    yield


@contextmanager
def _freeze(program: Program) -> Iterator[None]:
    program.signal(signal.SIGSTOP)
    yield
    program.signal(signal.SIGCONT)


def _freeze_worker(target: Target, random: Random) -> AbstractContextManager[None]:
    return _freeze(random.choice(target.cluster.workers))


def _freeze_api(target: Target, random: Random) -> AbstractContextManager[None]:
    return _freeze(random.choice(target.cluster.apis))


@contextmanager
def _disturb(loop: LoopThread, proxy: Proxy, traffic: Traffic) -> Iterator[None]:
    loop.call(proxy.switch(traffic))
    yield
    loop.call(proxy.switch(Traffic.FLOWS))


def _disturb_redis(traffic: Traffic) -> Injection:
    return lambda target, _random: _disturb(target.loop, target.cluster.redis_proxy, traffic)


def _disturb_postgres(traffic: Traffic) -> Injection:
    return lambda target, _random: _disturb(target.loop, target.cluster.database_proxy, traffic)


@contextmanager
def _flush_scripts(target: Target, _random: Random) -> Iterator[None]:
    with suppress(redis.RedisError), target.cluster.redis_client() as client:
        client.script_flush()
    yield


@contextmanager
def _delete_derived_keys(target: Target, _random: Random) -> Iterator[None]:
    """Results and projections: all that PostgreSQL can tell again."""
    with suppress(redis.RedisError), target.cluster.redis_client() as client:
        for pattern in (f"{keys.RQ_RESULTS}*", f"{keys.EVENT}*"):
            found = list(client.scan_iter(pattern, count=DELETE_STEP_KEYS))
            for start in range(0, len(found), DELETE_STEP_KEYS):
                client.delete(*found[start : start + DELETE_STEP_KEYS])
    yield


def _fill_valkey_disk(target: Target, _random: Random) -> AbstractContextManager[None]:
    return filled(target.cluster.valkey_disk)


def _fill_postgres_disk(target: Target, _random: Random) -> AbstractContextManager[None]:
    return filled(target.cluster.postgres_disk)


def _step_clock(whose: ClockOf) -> Injection:
    def inject(target: Target, random: Random) -> AbstractContextManager[None]:
        return target.cluster.clocks.stepped(whose, random.choice((-STEP_SECONDS, STEP_SECONDS)))

    return inject


@contextmanager
def _push_foreign_jobs(target: Target, random: Random) -> Iterator[None]:
    """What other programs, or ones that are newer than this, may put into a queue of RQ."""
    event_id = random.choice(target.event_ids)
    with suppress(redis.RedisError), target.cluster.redis_client() as client:
        for data in (
            json.dumps(("os.system", None, ("true",), {})).encode(),
            json.dumps((JOB_FUNCTION, None, (event_id, {"v": COMMAND_VERSION + 1}), {})).encode(),
            random.randbytes(OVERSIZED_BYTES),
            b"",
        ):
            _push_job(client, event_id, data)
        # An id without a job, and one that isn't even text.
        client.rpush(_queue(event_id), new_id(), random.randbytes(40))
    yield


@contextmanager
def _line_up_unreadable_commands(target: Target, random: Random) -> Iterator[None]:
    """Commands in the line itself that this version can't read."""
    event_id = random.choice(target.event_ids)
    unreadable: list[CommandPayload] = [
        {"v": COMMAND_VERSION + 1, "kind": CommandKind.BOOK.value, "user_id": "ann", "ticket_count": 1},
        {"v": COMMAND_VERSION, "kind": "steal", "user_id": "x" * OVERSIZED_BYTES, "ticket_count": 1},
        {"v": COMMAND_VERSION, "kind": CommandKind.BOOK.value, "user_id": "ann", "ticket_count": -1},
    ]
    for payload in unreadable:
        # The line for RQ's tools names it where the kind is not that of a booking.
        payload.setdefault("booking_id", "")
        submission = Submission(job_id=new_id(), event_id=event_id, payload=payload)
        target.foreign_job_ids.add(submission.job_id)
        # Where Redis is away as well, there is nobody to give it to.
        with suppress(OnsaleError):
            submit(target.cluster.settings, [submission])
    yield


def _push_job(client: redis.Redis, event_id: str, data: bytes) -> None:
    job_id = new_id()
    client.hset(
        f"{keys.RQ_JOB}{job_id}",
        mapping={
            "data": data,
            "created_at": "2026-01-01T00:00:00.000000Z",
            "origin": keys.queue_name(event_id),
            "status": "queued",
        },
    )
    client.rpush(_queue(event_id), job_id)


def _queue(event_id: str) -> str:
    return keys.RQ_QUEUE + keys.queue_name(event_id)


@contextmanager
def _do_nothing(_target: Target, _random: Random) -> Iterator[None]:
    yield


_NOTHING = FaultKind("no fault, for comparison", _do_nothing)
_PROCESSES = (
    FaultKind("kill -9 a worker", _kill_worker),
    FaultKind("kill -9 an API process", _kill_api),
    FaultKind("kill -9 Valkey", _kill_valkey),
    FaultKind("immediate stop of PostgreSQL", _crash_postgres),
    FaultKind("freeze a worker past its claim", _freeze_worker, (1.5 * LEASE_SECONDS, 3 * LEASE_SECONDS)),
    FaultKind("freeze an API process", _freeze_api, (0.5, 3.0)),
)
_NETWORK = (
    FaultKind("cut the connections to Redis", _disturb_redis(Traffic.CUT), (0.0, 2.0)),
    FaultKind("stall the connections to Redis", _disturb_redis(Traffic.STALLED), (0.5, 4.0)),
    FaultKind("slow down the connections to Redis", _disturb_redis(Traffic.SLOW), (1.0, 3.0)),
    FaultKind("cut the connections to PostgreSQL", _disturb_postgres(Traffic.CUT), (0.0, 2.0)),
    FaultKind("stall the connections to PostgreSQL", _disturb_postgres(Traffic.STALLED), (0.5, 4.0)),
    FaultKind("slow down the connections to PostgreSQL", _disturb_postgres(Traffic.SLOW), (1.0, 3.0)),
)
_DATA = (
    FaultKind("SCRIPT FLUSH", _flush_scripts),
    FaultKind("delete results and projections", _delete_derived_keys),
    FaultKind("foreign jobs in a queue", _push_foreign_jobs),
    FaultKind("unreadable commands in a line", _line_up_unreadable_commands),
)
_DISKS = (
    FaultKind("disk full under Valkey", _fill_valkey_disk, (1.0, 2.5)),
    FaultKind("disk full under PostgreSQL", _fill_postgres_disk, (1.0, 2.5)),
)
_CLOCKS = tuple(
    FaultKind(f"clock of {whose} an hour off", _step_clock(whose), (CACHE_SECONDS + 0.5, 4.0))
    for whose in ClockOf
)
TWO_AT_ONCE = "two of these at once"


def possible_faults(cluster: Cluster) -> tuple[list[FaultKind], list[str]]:
    """The faults that can be done on this machine, and for those that can't, why not."""
    kinds = [*_PROCESSES, *_NETWORK, *_DATA]
    left_out = []
    if cluster.has_small_disks:
        kinds += _DISKS
    else:
        left_out.append("full disks: only root can mount a small disk to fill")
    if cluster.clocks.can_be_stepped:
        kinds += _CLOCKS
    else:
        left_out.append("clock steps: libfaketime is missing (Debian's package faketime)")
    return [_NOTHING, *kinds, _both_of(kinds)], left_out


def _both_of(kinds: Sequence[FaultKind]) -> FaultKind:
    @contextmanager
    def inject(target: Target, random: Random) -> Iterator[None]:
        with ExitStack() as stack:
            for kind in random.sample(kinds, 2):
                stack.enter_context(kind.inject(target, random))
            yield

    return FaultKind(TWO_AT_ONCE, inject, (0.5, 3.0))


def fault_sequence(kinds: Sequence[FaultKind], random: Random) -> Iterator[FaultKind]:
    """Without end: all of them in some order, then all of them in another."""
    while True:
        yield from random.sample(kinds, len(kinds))
