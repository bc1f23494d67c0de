"""Time from submit to result at a steady rate, and at the moment of a stampede."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import httpx
import uvloop

from bench.clients import ANSWER_SECONDS_MAX, Answer, Client, connect_clients, percentile
from bench.measure import check_tally, tally_of
from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.processes import BenchmarkError
from bench.stack import TICKETS, stack
from bench.targets import USUAL_BEST, Target, synchronous_peer

PER_SECOND = 1_000
PEER_PER_SECOND = 100
CONNECTIONS = 200
WARM_UP_SECONDS = 2
P50_MS, P99_MS = 5.0, 25.0
SHARES = (0.5, 0.9, 0.99, 0.999)
STAMPEDE_TICKETS = 1_000
STAMPEDE_SECONDS = 3.0
ANSWERED_BY_THE_RULES = (201, 400)
WAIT: Mapping[str, str] = MappingProxyType({"Prefer": "wait=30"})


def run_steady(options: Options, say: Callable[[str], None]) -> Outcome:
    """Open loop: requests leave at their time, whether or not earlier ones have been answered."""
    ours: list[list[float]] = []
    peer: list[list[float]] = []
    for number in range(1, options.rounds + 1):
        with scratch() as directory, stack(directory) as onsale:
            onsale.start_api()
            onsale.start_worker()
            ours.append(_steady_at(onsale.target(), onsale.make_event().id, PER_SECOND, options.seconds))
        with scratch() as directory, synchronous_peer(directory, USUAL_BEST) as target:
            made = httpx.post(
                f"{target.base_url}/events", json={"name": "Benchmark", "total_tickets": TICKETS}
            )
            peer.append(_steady_at(target, made.json()["id"], PEER_PER_SECOND, options.seconds))
        p50, p99, of_peer = percentile(ours[-1], 0.5), percentile(ours[-1], 0.99), percentile(peer[-1], 0.5)
        say(f"  round {number}: p50 {p50:.1f} ms, p99 {p99:.1f} ms; synchronous p50 {of_peer:.1f} ms")
    p50, p99 = _median(ours, 0.5), _median(ours, 0.99)
    rows = [
        (name, f"{rate:,}/s", *(f"{_median(times, share):.1f} ms" for share in SHARES))
        for name, rate, times in (
            ("Onsale, `Prefer: wait`", PER_SECOND, ours),
            ("synchronous", PEER_PER_SECOND, peer),
        )
    ]
    return Outcome(
        title="From submit to result at a steady rate",
        explanation=(
            f"{CONNECTIONS} connections; each request has its time to leave, and is timed from then on,"
            " so that a"
            " slow answer counts against those that had to wait behind it (no coordinated omission). The"
            " clients"
            f" share the processor. Medians of the rounds. The synchronous peer: {USUAL_BEST}."
        ),
        columns=("", "arrivals", "p50", "p90", "p99", "p99.9"),
        rows=rows,
        goals=[
            Goal(
                asked=f"p50 ≤ {P50_MS:.0f} ms, p99 ≤ {P99_MS:.0f} ms at {PER_SECOND:,}/s",
                reached=f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                met=p50 <= P50_MS and p99 <= P99_MS,
            )
        ],
        figures={
            "p50_ms": p50,
            "p99_ms": p99,
            "milliseconds": {
                name: {
                    f"p{share * 100:g}": [percentile(times, share) for times in rounds] for share in SHARES
                }
                for name, rounds in (("Onsale", ours), ("synchronous", peer))
            },
            "requests": sum(map(len, ours)),
        },
    )


def _median(rounds: Sequence[list[float]], share: float) -> float:
    return statistics.median(percentile(times, share) for times in rounds)


def _steady_at(target: Target, event_id: str, per_second: int, seconds: int) -> list[float]:
    times = uvloop.run(ask_steadily(target.base_url, event_id, per_second, seconds))
    booked = per_second * (seconds + WARM_UP_SECONDS)
    check_tally(tally_of(target, event_id), booked)
    return times


async def ask_steadily(base_url: str, event_id: str, per_second: int, seconds: int) -> list[float]:
    """Milliseconds from each request's time to leave until its result; the warm-up is left out."""
    free = deque(await connect_clients(base_url, CONNECTIONS))
    released = asyncio.Semaphore(CONNECTIONS)
    answered: list[tuple[float, float, asyncio.Future[Answer]]] = []
    begin = time.monotonic() + 0.1

    # Not a task for each: the less the clients do, the less they disturb what they measure.
    def note(due: float, client: Client, answer: asyncio.Future[Answer]) -> None:
        answered.append((due, time.monotonic(), answer))
        free.append(client)
        released.release()

    async with asyncio.timeout(seconds + WARM_UP_SECONDS + ANSWER_SECONDS_MAX):
        for number in range(per_second * (seconds + WARM_UP_SECONDS)):
            due = begin + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await released.acquire()
            client = free.popleft()
            send_booking(client, event_id, number).add_done_callback(partial(note, due, client))
        for _ in range(CONNECTIONS):
            await released.acquire()
    for client in free:
        client.close()
    for _, _, answer in answered:
        if answer.result().status != 201:
            raise BenchmarkError(f"a booking was answered with {answer.result()}")
    return [(at - due) * 1000 for due, at, _ in answered if due >= begin + WARM_UP_SECONDS]


def send_booking(client: Client, event_id: str, number: int) -> asyncio.Future[Answer]:
    """Ask for one ticket, and for the result."""
    body = {"user_id": f"user{number}", "ticket_count": 1}
    return client.send("POST", f"/events/{event_id}/bookings", body, WAIT)


async def book(client: Client, event_id: str, number: int) -> int:
    """The status of the answer to a booking.

    Raises:
        BenchmarkError: it is neither booked nor refused by the rules.
        TimeoutError: there was no answer.
    """
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        answer = await send_booking(client, event_id, number)
    if answer.status not in ANSWERED_BY_THE_RULES:
        raise BenchmarkError(f"a booking was answered with {answer}")
    return answer.status


def run_stampede(options: Options, say: Callable[[str], None]) -> Outcome:
    """Everyone is connected; then everyone asks at once."""
    clients = options.stampede_clients
    finished: list[float] = []
    median_waits: list[float] = []
    answers: Counter[int] = Counter()
    for number in range(1, options.rounds + 1):
        with scratch() as directory, stack(directory) as onsale:
            onsale.start_api()
            onsale.start_worker()
            event = onsale.make_event(total_tickets=STAMPEDE_TICKETS)
            waits, statuses = uvloop.run(_stampede(onsale.base_url, event.id, clients))
            check_tally(tally_of(onsale.target(), event.id), statuses.count(201))
        finished.append(max(waits))
        median_waits.append(statistics.median(waits))
        answers += Counter(statuses)
        say(f"  round {number}: everyone answered after {finished[-1]:.2f} s, {dict(Counter(statuses))}")
    everyone = statistics.median(finished)
    right = set(answers) <= set(ANSWERED_BY_THE_RULES) and answers[201] == STAMPEDE_TICKETS * options.rounds
    return Outcome(
        title="A stampede",
        explanation=(
            f"{clients:,} clients, each with a connection of its own, ask at the same moment for one of"
            f" {STAMPEDE_TICKETS:,} tickets and wait for the result (`Prefer: wait=30`). One API process, one"
            " worker; the clients share the processor."
        ),
        columns=("clients", "tickets", "booked", "refused", "half answered after", "all answered after"),
        rows=[
            (
                f"{clients:,}",
                f"{STAMPEDE_TICKETS:,}",
                f"{answers[201] // options.rounds:,}",
                f"{answers[400] // options.rounds:,}",
                f"{statistics.median(median_waits):.2f} s",
                f"{everyone:.2f} s",
            )
        ],
        goals=[
            Goal(
                asked=f"everyone has a final answer in {STAMPEDE_SECONDS:.0f} s; no error but refusals",
                reached=f"{everyone:.2f} s; answers {dict(sorted(answers.items()))}",
                met=everyone <= STAMPEDE_SECONDS and right,
            )
        ],
        figures={
            "all_answered_seconds": finished,
            "half_answered_seconds": median_waits,
            "answers": {str(key): value for key, value in answers.items()},
        },
    )


async def _stampede(base_url: str, event_id: str, count: int) -> tuple[list[float], list[int]]:
    clients = await connect_clients(base_url, count)
    begin = time.monotonic()

    async def ask(number: int, client: Client) -> tuple[float, int]:
        status = await book(client, event_id, number)
        return time.monotonic() - begin, status

    answered = await asyncio.gather(*(ask(number, client) for number, client in enumerate(clients)))
    for client in clients:
        client.close()
    return [seconds for seconds, _ in answered], [status for _, status in answered]
