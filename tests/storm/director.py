"""Runs a storm from the first start to the verdict."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx

from tests.storm.clients import Client, SaleEvent, ask_for_the_rest, run_clients
from tests.storm.cluster import Cluster
from tests.storm.faults import FaultKind, Target, fault_sequence, possible_faults
from tests.storm.journal import Journal
from tests.storm.loop_thread import LoopThread
from tests.storm.recovery import RECOVERY_SECONDS_MAX, Probe
from tests.storm.verdict import Evidence, Verdict, judge, read_evidence

CALM_SHARE = 0.1
CALM_SECONDS_MIN = 3.0
PAUSE_SECONDS_MAX = 0.5
POLL_SECONDS = 0.02
PROGRESS_SECONDS = 1.0
READY_SECONDS_MAX = 60.0
PROBE_END_SECONDS_MAX = RECOVERY_SECONDS_MAX + 30.0
CLIENTS_END_SECONDS_MAX = 90.0
LINES_END_SECONDS_MAX = 60.0
LAST_ANSWERS_SECONDS_MAX = 120.0
LAST_ASKERS = 20
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
    """What a storm is: how many seconds, calm at the end included, and who comes to it."""

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
    recovery_seconds: Mapping[str, Sequence[float]]
    """By fault: the seconds until a booking was applied again, for each time."""
    left_out: Sequence[str]
    refused_for_now: int
    cut_off: int
    verdict: Verdict


def run_storm(options: StormOptions, folder: Path, say: Say) -> StormResult:
    """Run it in this folder, which keeps the logs; `say` gets a line about every second.

    Raises:
        UnknownFault: no fault has the name that was asked for.
    """
    with LoopThread() as loop:
        with Cluster(folder, loop) as cluster:
            storm = Storm(options, cluster, loop, say)
            evidence = storm.run()
        storm.complain(LEAKED, cluster.leaked_processes())
    storm.complain(STRANGE, storm.journal.strange_answers)
    return StormResult(
        options=options,
        cores=len(os.sched_getaffinity(0)),
        recovery_seconds=storm.recovery_seconds,
        left_out=storm.left_out,
        refused_for_now=storm.journal.refused_for_now,
        cut_off=storm.journal.cut_off,
        verdict=judge(evidence, storm.violations),
    )


class UnknownFault(Exception):
    """No fault has this in its name."""


class Storm:
    """Clients and faults over a cluster that runs, and what is seen of it."""

    def __init__(self, options: StormOptions, cluster: Cluster, loop: LoopThread, say: Say) -> None:
        self.journal = Journal()
        self.recovery_seconds: dict[str, list[float]] = {}
        self.violations: dict[str, list[str]] = {}
        possible, self.left_out = possible_faults(cluster)
        self._kinds = [kind for kind in possible if options.fault is None or options.fault in kind.name]
        if not self._kinds:
            names = ", ".join(kind.name for kind in possible)
            raise UnknownFault(f"no fault has {options.fault!r} in its name; there are: {names}")
        self._options = options
        self._cluster = cluster
        self._loop = loop
        self._say = say
        self._foreign_job_ids: set[str] = set()
        self._clients_work: Future[None] | None = None
        self._started_at = time.monotonic()
        self._doing = "the API starts"
        self._next_progress_at = 0.0

    def run(self) -> Evidence:
        """From the first event to the last answer; gives what the ledger has then."""
        self._say(f"seed {self._options.seed}, {len(self._kinds)} kinds of faults, {self._cluster.folder}")
        events = self._put_on_sale()
        probe_event = self._make_event("Probe", PROBE_TICKETS)
        event_ids = [*(event.id for event in events), probe_event]
        target = Target(self._cluster, self._loop, event_ids, self._foreign_job_ids)
        with self._clients_at_work(events):
            self._raise_faults(target, Probe(probe_event, self._cluster.api_ports, self.journal))
        self._await_empty_lines(event_ids)
        self._ask_for_the_rest(events)
        self._verify()
        return read_evidence(
            self._cluster.postgres.url,
            self.journal.commands,
            foreign_job_ids=self._foreign_job_ids,
            waiting_job_ids=self._cluster.waiting_job_ids(event_ids),
        )

    def complain(self, what: str, lines: Sequence[str]) -> None:
        """Note what is wrong, if anything."""
        if lines:
            self.violations.setdefault(what, []).extend(lines)

    def _put_on_sale(self) -> list[SaleEvent]:
        sales = [SALES[number % len(SALES)] for number in range(self._options.events)]
        return [
            SaleEvent(id=self._make_event(f"Event {number}", tickets), total_tickets=tickets, users=users)
            for number, (tickets, users) in enumerate(sales, start=1)
        ]

    def _make_event(self, name: str, total_tickets: int) -> str:
        """Waits for the API, which may only be starting."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                answer = httpx.post(
                    f"http://127.0.0.1:{self._cluster.api_ports[0]}/events",
                    json={"name": name, "total_tickets": total_tickets},
                    trust_env=False,
                )
                return str(answer.raise_for_status().json()["id"])
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                self._tend_for(POLL_SECONDS)

    @contextmanager
    def _clients_at_work(self, events: Sequence[SaleEvent]) -> Iterator[None]:
        stopping = asyncio.Event()
        clients = self._make_clients(events, self._options.clients)
        self._clients_work = work = self._loop.submit(run_clients(clients, stopping))
        try:
            yield
            self._loop.call(_set(stopping))
            self._doing = "the clients see their last command through"
            self._tend_until(work, CLIENTS_END_SECONDS_MAX)
        finally:
            work.cancel()

    def _make_clients(self, events: Sequence[SaleEvent], count: int) -> list[Client]:
        return [
            Client(
                f"client-{number}",
                Random(f"{self._options.seed}-{number}"),
                events,
                self._cluster.api_ports,
                self.journal,
            )
            for number in range(count)
        ]

    def _raise_faults(self, target: Target, probe: Probe) -> None:
        """One fault after the other until the calm at the end, each with its recovery."""
        seconds = self._options.seconds
        self._started_at = time.monotonic()
        ends_at = self._started_at + seconds
        calm_at = ends_at - max(CALM_SHARE * seconds, min(CALM_SECONDS_MIN, seconds))
        random = Random(self._options.seed)
        for kind in fault_sequence(self._kinds, random):
            if time.monotonic() >= calm_at:
                break
            # Drawn before anything happens: the sequence does not depend on what becomes of it.
            hold_seconds = random.uniform(*kind.hold_seconds)
            pause_seconds = random.uniform(0, PAUSE_SECONDS_MAX)
            own_random = Random(random.getrandbits(64))
            self._raise_fault(kind, hold_seconds, own_random, target, probe)
            self._tend_for(pause_seconds)
        self._doing = "calm"
        self._tend_for(ends_at - time.monotonic())

    def _raise_fault(
        self, kind: FaultKind, hold_seconds: float, random: Random, target: Target, probe: Probe
    ) -> None:
        """Do it, hold it, undo it, and note the seconds from then until a booking was applied."""
        self._doing = kind.name
        with ExitStack() as stack:
            healed_at = time.monotonic()
            stack.enter_context(kind.inject(target, random))
            if hold_seconds:
                self._tend_for(hold_seconds)
                stack.close()
                healed_at = time.monotonic()
        recovery = self._loop.submit(probe.seconds_until_applied(healed_at))
        self._tend_until(recovery, PROBE_END_SECONDS_MAX)
        self._note_recovery(kind, recovery.result())

    def _note_recovery(self, kind: FaultKind, seconds: float | None) -> None:
        if seconds is None:
            limit = f"{RECOVERY_SECONDS_MAX:.0f} s"
            self.complain(NOT_RECOVERED, [f"{kind.name}: no booking was applied within {limit}"])
            seconds = RECOVERY_SECONDS_MAX
        self.recovery_seconds.setdefault(kind.name, []).append(seconds)
        self._doing = f"{kind.name}, recovered in {seconds:.2f} s"
        self._show_progress()

    def _await_empty_lines(self, event_ids: Sequence[str]) -> None:
        self._doing = "the lines are worked off"
        deadline = time.monotonic() + LINES_END_SECONDS_MAX
        while unfinished := self._cluster.unfinished_lines(event_ids):
            if time.monotonic() > deadline:
                self.complain(STUCK, unfinished)
                return
            self._tend_for(POLL_SECONDS)

    def _ask_for_the_rest(self, events: Sequence[SaleEvent]) -> None:
        """Everyone who was told of a job can learn what became of it, now that nothing waits any more."""
        self._doing = "the last answers are asked for"
        unanswered = [command for command in self.journal.commands if not command.is_answered]
        work = ask_for_the_rest(
            self._make_clients(events, LAST_ASKERS),
            unanswered,
            deadline=time.monotonic() + LAST_ANSWERS_SECONDS_MAX,
        )
        self._tend_until(self._loop.submit(work), LAST_ANSWERS_SECONDS_MAX + CLIENTS_END_SECONDS_MAX)

    def _verify(self) -> None:
        status, output = self._cluster.run_program("verify")
        if status != 0:
            self.complain(NOT_VERIFIED, output.splitlines() or [f"exit code {status}"])

    def _tend_until(self, work: Future[Any], seconds_max: float) -> None:
        """Keep everything running until this is done, and raise what it raised."""
        deadline = time.monotonic() + seconds_max
        while not work.done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._doing}: this took more than {seconds_max:.0f} s")
            self._tend_for(POLL_SECONDS)
        work.result()

    def _tend_for(self, seconds: float) -> None:
        """Keep everything running for so long. Raises what ended the clients, if something did."""
        deadline = time.monotonic() + seconds
        while True:
            self._cluster.tend()
            if self._clients_work is not None and self._clients_work.done():
                self._clients_work.result()
            self._show_progress_if_due()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_SECONDS))

    def _show_progress_if_due(self) -> None:
        if time.monotonic() >= self._next_progress_at:
            self._show_progress()

    def _show_progress(self) -> None:
        self._next_progress_at = time.monotonic() + PROGRESS_SECONDS
        elapsed = time.monotonic() - self._started_at
        sent, wrong = len(self.journal.commands), sum(map(len, self.violations.values()))
        state = f", {wrong} things wrong" if wrong else ""
        self._say(f"{elapsed:4.0f} of {self._options.seconds:.0f} s, {sent:,} sent{state}: {self._doing}")


async def _set(event: asyncio.Event) -> None:
    event.set()
