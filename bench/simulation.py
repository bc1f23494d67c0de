"""The road of a command, simulated: processes take turns on processors, wait for the disk and for others.

Times come from `bench/cost_model.py`. There is no chance in it, so it gives the same each time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from bench.cost_model import Costs
from shared import limits
from shared.settings import Settings

SLICE_SECONDS = 0.001
"""How long a process keeps a processor before the next has its turn."""

LINGER_COMMANDS = (20, 250)
"""Batches of so many commands wait for more: see worker/stretch.py."""

WARM_UP_SECONDS = 0.5

_SETTINGS = Settings(database_url="postgresql://", redis_url="redis://")
BATCH_MAX = _SETTINGS.batch_commands_max
LINGER_SECONDS = _SETTINGS.linger_ms / 1000

Steps = Generator[simpy.Event, Any, Any]


@dataclass(slots=True, kw_only=True, eq=False)
class Command:
    """One client's command, and when it is accepted and done."""

    accepted: simpy.Event
    done: simpy.Event


@dataclass(slots=True)
class Line:
    """What waits for one event, with the event that a sleeping consumer waits for."""

    commands: deque[Command] = field(default_factory=deque)
    wake: simpy.Event | None = None


class Machine:
    """Processors that all processes share, and the processes that can do one thing at a time."""

    def __init__(self, costs: Costs, *, cores: int, lines: int = 1, client_threads: int = 2) -> None:
        self.environment = simpy.Environment()
        self.costs = costs
        self.lines = [Line() for _ in range(lines)]
        self.applied = 0
        self._cores = simpy.Resource(self.environment, cores)
        self._api, self._valkey = simpy.Resource(self.environment), simpy.Resource(self.environment)
        self._clients = simpy.Resource(self.environment, client_threads)
        self._gathered: deque[tuple[Command, Line]] = deque()
        self._sending = False

    def client(self, line: Line, *, wait: bool) -> Steps:
        """One request, from its leaving to its answer."""
        command = Command(accepted=self.environment.event(), done=self.environment.event())
        yield from self._compute(self._clients, self.costs.client / 2)
        yield from self._compute(self._api, self.costs.api / 2)
        self._gathered.append((command, line))
        if not self._sending:
            self.environment.process(self._send())
        yield command.done if wait else command.accepted
        yield from self._compute(self._api, self.costs.api / 2)
        yield from self._compute(self._clients, self.costs.client / 2)

    def _send(self) -> Steps:
        """The gatherer: one call at a time, and one fsync for all that came during the last."""
        self._sending = True
        while self._gathered:
            count = min(len(self._gathered), limits.ENQUEUE_BATCH_MAX)
            group = [self._gathered.popleft() for _ in range(count)]
            yield from self._on_valkey(count * self.costs.valkey_accept)
            for command, line in group:
                line.commands.append(command)
                command.accepted.succeed()
                if line.wake is not None:
                    line.wake.succeed()
                    line.wake = None
        self._sending = False

    def worker(self, line: Line) -> Steps:
        """One worker that works a line off, and sleeps while it is empty."""
        while True:
            yield from self.drain([line])
            if not line.commands:
                line.wake = self.environment.event()
                yield line.wake

    def drain(self, lines: Sequence[Line]) -> Steps:
        """One worker that works these lines off, one after the other, and ends."""
        interpreter = simpy.Resource(self.environment)
        for line in lines:
            yield from self._work_off(line, interpreter)

    def _work_off(self, line: Line, interpreter: simpy.Resource) -> Steps:
        """A long line: one batch is written while that before is completed and that behind is decided.

        A short one: one after the other.
        """
        completing: simpy.Process | None = None
        batch = yield from self._decide_next(line, interpreter)
        while batch:
            is_long = len(batch) == BATCH_MAX
            writing = self.environment.process(self._write(len(batch)))
            following = (yield from self._decide_next(line, interpreter)) if is_long else []
            yield writing
            if completing is not None:
                yield completing
                completing = None
            if is_long:
                completing = self.environment.process(self._complete(batch, interpreter))
            else:
                yield from self._complete(batch, interpreter)
                if LINGER_COMMANDS[0] <= len(line.commands) < LINGER_COMMANDS[1]:
                    yield self.environment.timeout(LINGER_SECONDS)
            batch = following or (yield from self._decide_next(line, interpreter))
        if completing is not None:
            yield completing

    def _decide_next(
        self, line: Line, interpreter: simpy.Resource
    ) -> Generator[simpy.Event, Any, list[Command]]:
        batch = [line.commands.popleft() for _ in range(min(len(line.commands), BATCH_MAX))]
        if batch:
            yield from self._compute(interpreter, self._half_of_worker(len(batch)))
        return batch

    def _write(self, count: int) -> Steps:
        costs = self.costs
        # A session of PostgreSQL is a process of its own.
        yield from self._compute(
            simpy.Resource(self.environment), costs.postgres_batch + count * costs.postgres
        )
        yield self.environment.timeout(costs.fsync)

    def _complete(self, batch: list[Command], interpreter: simpy.Resource) -> Steps:
        yield from self._compute(interpreter, self._half_of_worker(len(batch)))
        yield from self._on_valkey(len(batch) * self.costs.valkey_complete)
        self.applied += len(batch)
        for command in batch:
            command.done.succeed()

    def _half_of_worker(self, count: int) -> float:
        """What a worker computes for a batch before it is written, and as much after it."""
        return (self.costs.worker_batch + count * self.costs.worker) / 2

    def _on_valkey(self, seconds: float) -> Steps:
        """A script, and the fsync after it, during which Valkey does nothing else."""
        with self._valkey.request() as turn:
            yield turn
            yield from self._compute(None, seconds)
            yield self.environment.timeout(self.costs.fsync)

    def _compute(self, process: simpy.Resource | None, seconds: float) -> Steps:
        """Use a processor for so long, in slices; a process (None: held already) does one thing at a time."""
        if process is not None:
            with process.request() as turn:
                yield turn
                yield from self._compute(None, seconds)
            return
        left = seconds
        while left > 1e-9:
            with self._cores.request() as core:
                yield core
                yield self.environment.timeout(min(left, SLICE_SECONDS))
            left -= SLICE_SECONDS


def _filled(machine: Machine, commands: int) -> None:
    for line in machine.lines:
        line.commands.extend(
            Command(accepted=machine.environment.event(), done=machine.environment.event())
            for _ in range(commands)
        )


def drained_per_second(costs: Costs, *, cores: int, workers: int = 1, lines: int = 1) -> float:
    """Commands per second from full lines, each worker with its share of them."""
    commands = 40_000 // lines
    machine = Machine(costs, cores=cores, lines=lines)
    _filled(machine, commands)
    processes = [
        machine.environment.process(machine.drain(machine.lines[each::workers])) for each in range(workers)
    ]
    machine.environment.run(simpy.AllOf(machine.environment, processes))
    return commands * lines / float(machine.environment.now)


def booked_per_second(costs: Costs, *, cores: int, connections: int = 256, seconds: float = 1.5) -> float:
    """Accepted and applied on one hot event, from the first request until its line is empty."""
    machine = Machine(costs, cores=cores)
    machine.environment.process(machine.worker(machine.lines[0]))
    clients = [machine.environment.process(_again(machine, seconds)) for _ in range(connections)]
    machine.environment.run(simpy.AllOf(machine.environment, clients))
    asked = _asked(clients)
    while machine.applied < asked:
        machine.environment.step()
    return asked / float(machine.environment.now)


def accepted_per_second(costs: Costs, *, cores: int, connections: int = 256, seconds: float = 1.0) -> float:
    """Answers of 202 with no worker."""
    machine = Machine(costs, cores=cores)
    clients = [machine.environment.process(_again(machine, seconds)) for _ in range(connections)]
    machine.environment.run(simpy.AllOf(machine.environment, clients))
    return _asked(clients) / float(machine.environment.now)


def _asked(clients: Sequence[simpy.Process]) -> int:
    """How many requests they made in all, now that they have ended."""
    return sum(int(client.value or 0) for client in clients)


def _again(machine: Machine, seconds: float) -> Steps:
    asked = 0
    while machine.environment.now < seconds:
        yield from machine.client(machine.lines[0], wait=False)
        asked += 1
    return asked


def steady_seconds(costs: Costs, *, cores: int, per_second: int = 1_000, seconds: float = 3.0) -> list[float]:
    """From each request's time to leave to its result, in order; the warm-up is left out."""
    machine = Machine(costs, cores=cores, client_threads=1)
    machine.environment.process(machine.worker(machine.lines[0]))
    times: list[float] = []

    def send(due: float) -> Steps:
        yield machine.environment.timeout(due)
        yield from machine.client(machine.lines[0], wait=True)
        if due >= WARM_UP_SECONDS:
            times.append(float(machine.environment.now) - due)

    clients = [machine.environment.process(send(n / per_second)) for n in range(int(per_second * seconds))]
    machine.environment.run(simpy.AllOf(machine.environment, clients))
    return sorted(times)


def stampede_seconds(costs: Costs, *, cores: int, clients: int = 10_000) -> float:
    """From the moment at which all ask until all have their result."""
    machine = Machine(costs, cores=cores, client_threads=1)
    machine.environment.process(machine.worker(machine.lines[0]))
    asking = [
        machine.environment.process(machine.client(machine.lines[0], wait=True)) for _ in range(clients)
    ]
    machine.environment.run(simpy.AllOf(machine.environment, asking))
    return float(machine.environment.now)
