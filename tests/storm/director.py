"""Runs a storm from the first start to the verdict."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx

from tests.storm.clients import Client, SaleEvent, ask_for_the_rest, run_clients
from tests.storm.cluster import Cluster
from tests.storm.faults import FaultKind, Target, fault_sequence, possible_faults
from tests.storm.journal import Journal
from tests.storm.loop_thread import LoopThread
from tests.storm.recovery import RECOVERY_SECONDS_MAX, Probe
from tests.storm.verdict import Verdict, judge, read_evidence

CALM_SHARE = 0.1
CALM_SECONDS_MIN = 3.0
PAUSE_SECONDS_MAX = 0.5
READY_SECONDS_MAX = 60.0
CLIENTS_END_SECONDS_MAX = 90.0
LINES_END_SECONDS_MAX = 60.0
LAST_ANSWERS_SECONDS_MAX = 120.0
PROBE_TICKETS = 1_000_000

# Tickets, and how many users share them: one is sold out at once, one never.
SALES = ((20, 400), (1_000_000, 20_000), (300, 150), (2_000, 500), (60, 40))

NOT_RECOVERED = "not recovered"
STUCK = "stuck"
NOT_VERIFIED = "not verified"
LEAKED = "leaked"
STRANGE = "answered strangely"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StormOptions:
    """What a storm is: `seconds` of faults and calm, and who comes to it."""

    seconds: float
    clients: int
    events: int
    seed: int
    fault: str | None = None
    """Only the faults whose name has this in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StormResult:
    """What came of a storm."""

    options: StormOptions
    cores: int
    recovery_seconds: dict[str, list[float]]
    """By fault: the seconds until a booking was applied again, for each time."""
    left_out: Sequence[str]
    refused_for_now: int
    cut_off: int
    verdict: Verdict


@dataclass(slots=True)
class _Course:
    """How a storm has gone so far."""

    journal: Journal = field(default_factory=Journal)
    foreign_job_ids: set[str] = field(default_factory=set)
    recovery_seconds: dict[str, list[float]] = field(default_factory=dict)
    violations: dict[str, list[str]] = field(default_factory=dict)

    def complain(self, what: str, lines: Sequence[str]) -> None:
        if lines:
            self.violations.setdefault(what, []).extend(lines)


def run_storm(options: StormOptions, folder: Path, say: Say) -> StormResult:
    """Run it in this folder, which keeps the logs; gives the verdict and all the figures."""
    course = _Course()
    with LoopThread() as loop:
        with Cluster(folder, loop) as cluster:
            possible, left_out = possible_faults(cluster)
            kinds = [kind for kind in possible if options.fault is None or options.fault in kind.name]
            say(f"seed {options.seed}: {len(kinds)} kinds of faults, logs in {folder}")
            events = _put_on_sale(cluster, options.events)
            probe_event = _make_event(cluster, "Probe", PROBE_TICKETS)
            event_ids = [*(event.id for event in events), probe_event]
            target = Target(cluster, loop, event_ids, course.foreign_job_ids)
            probe = Probe(probe_event, cluster.api_ports, course.journal)
            with _clients_at_work(options, cluster, loop, events, course):
                _raise_faults(options, target, probe, kinds, course, say)
            _await_empty_lines(cluster, event_ids, course)
            _ask_for_the_rest(options, cluster, loop, events, course)
            _verify(cluster, course)
            evidence = read_evidence(cluster.postgres.url, course.journal.commands, course.foreign_job_ids)
        course.complain(LEAKED, cluster.leaked_processes())
    course.complain(STRANGE, course.journal.strange_answers)
    return StormResult(
        options=options,
        cores=len(os.sched_getaffinity(0)),
        recovery_seconds=course.recovery_seconds,
        left_out=left_out,
        refused_for_now=course.journal.refused_for_now,
        cut_off=course.journal.cut_off,
        verdict=judge(evidence, course.violations),
    )


def _put_on_sale(cluster: Cluster, count: int) -> list[SaleEvent]:
    sales = [SALES[number % len(SALES)] for number in range(count)]
    return [
        SaleEvent(id=_make_event(cluster, f"Event {number}", tickets), total_tickets=tickets, users=users)
        for number, (tickets, users) in enumerate(sales, start=1)
    ]


def _make_event(cluster: Cluster, name: str, total_tickets: int) -> str:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        cluster.tend()
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{cluster.api_ports[0]}/events",
                json={"name": name, "total_tickets": total_tickets},
                trust_env=False,
            )
            return str(answer.raise_for_status().json()["id"])
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def _clients_at_work(
    options: StormOptions, cluster: Cluster, loop: LoopThread, events: Sequence[SaleEvent], course: _Course
) -> Iterator[None]:
    clients = _make_clients(options, cluster, events, course)
    stopping = asyncio.Event()
    work = loop.submit(run_clients(clients, stopping))
    try:
        yield
    finally:
        loop.call(_set(stopping))
        _tend_until(cluster, work, CLIENTS_END_SECONDS_MAX)


def _make_clients(
    options: StormOptions, cluster: Cluster, events: Sequence[SaleEvent], course: _Course
) -> list[Client]:
    return [
        Client(
            f"client-{number}",
            Random(f"{options.seed}-{number}"),
            events,
            cluster.api_ports,
            course.journal,
        )
        for number in range(options.clients)
    ]


def _ask_for_the_rest(
    options: StormOptions, cluster: Cluster, loop: LoopThread, events: Sequence[SaleEvent], course: _Course
) -> None:
    """Everyone who was told of a job can learn what became of it, now that nothing waits any more."""
    unanswered = [command for command in course.journal.commands if not command.is_answered]
    clients = _make_clients(options, cluster, events, course)
    _tend_until(cluster, loop.submit(ask_for_the_rest(clients, unanswered)), LAST_ANSWERS_SECONDS_MAX)


async def _set(event: asyncio.Event) -> None:
    event.set()


def _tend_until(cluster: Cluster, work: Future[None] | Future[float | None], seconds_max: float) -> None:
    deadline = time.monotonic() + seconds_max
    while not work.done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"this took more than {seconds_max:.0f} s")
        cluster.tend_for(0.0)
        time.sleep(0.02)
    work.result()


def _raise_faults(
    options: StormOptions,
    target: Target,
    probe: Probe,
    kinds: Sequence[FaultKind],
    course: _Course,
    say: Say,
) -> None:
    """One fault after the other until the calm at the end, each with its recovery."""
    random = Random(options.seed)
    started_at = time.monotonic()
    ends_at = started_at + options.seconds
    calm_at = ends_at - max(CALM_SHARE * options.seconds, min(CALM_SECONDS_MIN, options.seconds))
    for kind in fault_sequence(kinds, random):
        if time.monotonic() >= calm_at:
            break
        # Drawn before anything happens: the sequence does not depend on what becomes of it.
        hold_seconds, pause_seconds = random.uniform(*kind.hold_seconds), random.uniform(0, PAUSE_SECONDS_MAX)
        own_random = Random(random.getrandbits(64))
        seconds = _raise_fault(kind, hold_seconds, own_random, target, probe)
        _note(kind, seconds, course)
        say(_progress(time.monotonic() - started_at, options, course, kind, hold_seconds, seconds))
        target.cluster.tend_for(pause_seconds)
    while time.monotonic() < ends_at:
        target.cluster.tend_for(min(1.0, max(0.0, ends_at - time.monotonic())))


def _raise_fault(
    kind: FaultKind, hold_seconds: float, random: Random, target: Target, probe: Probe
) -> float | None:
    """Do it, hold it, undo it; gives the seconds from then until a booking was applied."""
    with ExitStack() as stack:
        healed_at = time.monotonic()
        stack.enter_context(kind.inject(target, random))
        if hold_seconds:
            target.cluster.tend_for(hold_seconds)
            stack.close()
            healed_at = time.monotonic()
    recovery = target.loop.submit(probe.seconds_until_applied(healed_at))
    _tend_until(target.cluster, recovery, RECOVERY_SECONDS_MAX + 30.0)
    return recovery.result()


def _note(kind: FaultKind, seconds: float | None, course: _Course) -> None:
    if seconds is None:
        course.complain(
            NOT_RECOVERED, [f"no booking was applied in {RECOVERY_SECONDS_MAX:.0f} s: {kind.name}"]
        )
    course.recovery_seconds.setdefault(kind.name, []).append(
        RECOVERY_SECONDS_MAX if seconds is None else seconds
    )


def _progress(
    elapsed: float,
    options: StormOptions,
    course: _Course,
    kind: FaultKind,
    hold_seconds: float,
    seconds: float | None,
) -> str:
    commands = course.journal.commands
    held = f" for {hold_seconds:.1f} s" if hold_seconds else ""
    recovered = "not recovered" if seconds is None else f"recovered in {seconds:.2f} s"
    accepted = sum(command.is_accepted for command in commands)
    return (
        f"{elapsed:4.0f} of {options.seconds:.0f} s, {len(commands)} sent, {accepted} accepted: "
        f"{kind.name}{held}, {recovered}"
    )


def _await_empty_lines(cluster: Cluster, event_ids: list[str], course: _Course) -> None:
    deadline = time.monotonic() + LINES_END_SECONDS_MAX
    while unfinished := cluster.unfinished_lines(event_ids):
        if time.monotonic() > deadline:
            course.complain(STUCK, unfinished)
            return
        cluster.tend_for(0.1)


def _verify(cluster: Cluster, course: _Course) -> None:
    status, output = cluster.run_program("verify")
    if status != 0:
        course.complain(NOT_VERIFIED, output.splitlines() or [f"exit code {status}"])
