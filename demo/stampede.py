"""The stampede itself: everyone is connected, then everyone asks at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.clients import connect, connect_clients
from demo.buyers import Buyer
from demo.errors import DemoError
from demo.figures import Figures, Meter
from demo.journal import Command, Journal
from demo.visitor import Shop, Visitor
from shared.domain import OutcomeCode

PATIENCE_SECONDS = 1.0
"""After how long a patient buyer asks again for what may have been given back."""

LOOK_SECONDS = 0.1
SHOW_SECONDS = 0.2
FAULT_LOOK_SECONDS = 0.005
FAULT_ATTEMPTS_MAX = 50
FAULT_SHARE = 1 / 3
"""How many have got their place in line, as a share of the buyers, when something is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Who is shown the figures, and what is broken in the middle.

    It gives what was done, or None if that is not possible just now; at last it is asked to do what it can.
    """

    show: Callable[[Figures], None]
    break_something: Callable[[bool], str | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stampede:
    """What came of it."""

    journal: Journal
    is_over: bool
    last: Figures


async def run_stampede(
    shop: Shop, buyers: Sequence[Buyer], meter: Meter, seconds_max: float, watching: Watching
) -> Stampede:
    """Let all buyers in at once, and wait until each has its answers or the time is up.

    Raises:
        DemoError: they can't all be connected.
    """
    try:
        clients = await connect_clients(shop.url, len(buyers), shop.answer_seconds_max)
    except OSError as error:
        raise DemoError(
            f"{len(buyers):,} connections can't be opened ({error}); ask for fewer --buyers"
        ) from error
    journal, began_at = meter.journal, time.monotonic()
    visitors = [
        Visitor(shop, client, journal, began_at=began_at, watches=buyer.watches)
        for client, buyer in zip(clients, buyers, strict=True)
    ]
    meter.begin(began_at)
    beside = [
        asyncio.create_task(_show(meter, watching)),
        asyncio.create_task(_look_at_event(shop, journal)),
        asyncio.create_task(_break(meter, len(buyers), watching)),
    ]
    is_over = True
    try:
        async with asyncio.timeout(seconds_max), asyncio.TaskGroup() as group:
            for visitor, buyer in zip(visitors, buyers, strict=True):
                group.create_task(_visit(visitor, buyer))
    except TimeoutError:
        is_over = False
    finally:
        last = meter.read()
        await _end(beside)
        for visitor in visitors:
            visitor.hang_up()
        # A connection is closed in the next turn of the event loop.
        await asyncio.sleep(0)
    return Stampede(journal=journal, is_over=is_over, last=last)


async def _visit(visitor: Visitor, buyer: Buyer) -> None:
    commands = [await visitor.book(buyer.user_id, wish) for wish in buyer.wishes]
    if buyer.is_patient and commands[-1].outcome == OutcomeCode.NOT_ENOUGH_TICKETS:
        await asyncio.sleep(PATIENCE_SECONDS)
        commands.append(await visitor.book(buyer.user_id, 1))
    if buyer.gives_back:
        await _give_back(visitor, commands)


async def _give_back(visitor: Visitor, commands: Sequence[Command]) -> None:
    for command in commands:
        if command.outcome == OutcomeCode.BOOKED and command.booking_id is not None:
            await visitor.cancel(command, command.booking_id)


async def _show(meter: Meter, watching: Watching) -> None:
    while True:
        await asyncio.sleep(SHOW_SECONDS)
        watching.show(meter.read())


async def _look_at_event(shop: Shop, journal: Journal) -> None:
    """Ask the event how many tickets are left, in the crowd as everybody."""
    while True:
        client = None
        try:
            client = await connect(shop.url)
            while True:
                answer = await client.request("GET", f"/events/{shop.event_id}", headers=shop.headers)
                if answer.status == 200:
                    journal.tickets_left = answer.document["available_tickets"]
                await asyncio.sleep(LOOK_SECONDS)
        except OSError:
            await asyncio.sleep(LOOK_SECONDS)
        finally:
            if client is not None:
                client.close()


async def _break(meter: Meter, buyers: int, watching: Watching) -> None:
    if watching.break_something is None:
        return
    while meter.journal.newest_position < buyers * FAULT_SHARE:
        await asyncio.sleep(FAULT_LOOK_SECONDS)
    for attempt in range(1, FAULT_ATTEMPTS_MAX + 1):
        # Not in a thread: what is broken must be written down, even if all is over a moment later.
        done = watching.break_something(attempt == FAULT_ATTEMPTS_MAX)
        if done is not None:
            meter.note_fault(done)
            return
        await asyncio.sleep(FAULT_LOOK_SECONDS)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
