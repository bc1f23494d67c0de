"""Calls that are sent together: in order, bounded, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shared.errors import EventNotFound, LineUnavailable, OnsaleError
from shared.gathering import Gatherer, InTasks


class Server:
    """Answers by doubling, one group at a time, when it is let."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.answering = asyncio.Event()
        self.error: Exception | None = None
        self.calls: InTasks[int, int] = InTasks(self.send, ended=LineUnavailable("the process ends"))

    async def send(self, questions: Sequence[int]) -> list[int | OnsaleError]:
        self.groups.append(list(questions))
        await self.answering.wait()
        if self.error is not None:
            raise self.error
        return [EventNotFound() if question < 0 else question * 2 for question in questions]

    def gatherer(self, *, waiting_max: int = 100, calls_max: int = 1) -> Gatherer[int, int]:
        return Gatherer(
            self.calls,
            group_max=3,
            waiting_max=waiting_max,
            too_many=LineUnavailable("too many"),
            calls_max=calls_max,
        )


async def some_turns() -> None:
    """Of the event loop: more than a call needs to leave."""
    for _ in range(5):
        await asyncio.sleep(0)


async def ask_all(gatherer: Gatherer[int, int], questions: Sequence[int]) -> list[int | BaseException]:
    return await asyncio.gather(*(gatherer.ask(each) for each in questions), return_exceptions=True)


def test_what_is_asked_meanwhile_goes_together() -> None:
    async def run() -> None:
        server = Server()
        gatherer = server.gatherer()
        first = asyncio.create_task(gatherer.ask(1))
        while not server.groups:
            await asyncio.sleep(0)
        rest = asyncio.create_task(ask_all(gatherer, [2, 3, 4, 5]))
        await asyncio.sleep(0)
        server.answering.set()
        assert await first == 2
        assert await rest == [4, 6, 8, 10]
        assert server.groups == [[1], [2, 3, 4], [5]]

    asyncio.run(run())


def test_as_many_calls_leave_beside_each_other_as_may_be() -> None:
    async def run() -> None:
        server = Server()
        gatherer = server.gatherer(calls_max=2)
        asked = []
        for number in (1, 2, 3, 4):
            asked.append(asyncio.create_task(gatherer.ask(number)))
            await some_turns()
        assert server.groups == [[1], [2]]
        server.answering.set()
        assert [await each for each in asked] == [2, 4, 6, 8]
        assert server.groups == [[1], [2], [3, 4]]

    asyncio.run(run())


def test_who_asks_when_the_last_call_is_over_is_not_forgotten() -> None:
    async def run() -> None:
        server = Server()
        server.answering.set()
        gatherer = server.gatherer(calls_max=2)
        for number in range(20):
            assert await asyncio.wait_for(gatherer.ask(number), 5) == number * 2

    asyncio.run(run())


def test_who_does_not_wait_is_told() -> None:
    async def run() -> None:
        server = Server()
        gatherer = server.gatherer(waiting_max=2)
        told: list[int | Exception] = []
        gatherer.ask_then(1, told.append)
        await some_turns()
        gatherer.ask_then(-1, told.append)
        gatherer.ask_then(2, told.append)
        with pytest.raises(LineUnavailable, match="too many"):
            gatherer.ask_then(3, told.append)
        server.answering.set()
        await some_turns()
        assert [told[0], told[2]] == [2, 4]
        assert isinstance(told[1], EventNotFound)
        server.error = LineUnavailable("away")
        gatherer.ask_then(4, told.append)
        await some_turns()
        assert isinstance(told[3], LineUnavailable)
        assert len(told) == 4

    asyncio.run(run())


def test_when_the_process_ends_everybody_is_told() -> None:
    async def run() -> None:
        server = Server()
        gatherer = server.gatherer()
        told: list[int | Exception] = []
        gatherer.ask_then(1, told.append)
        await some_turns()
        gatherer.ask_then(2, told.append)
        [call] = server.calls._tasks
        call.cancel()
        await some_turns()
        assert [str(each) for each in told] == ["the process ends"] * 2
        assert all(isinstance(each, LineUnavailable) for each in told)

    asyncio.run(run())


def test_each_gets_an_answer_of_their_own() -> None:
    async def run() -> None:
        server = Server()
        server.answering.set()
        answers = await ask_all(server.gatherer(), [1, -1, 2])
        assert (answers[0], answers[2]) == (2, 4)
        assert isinstance(answers[1], EventNotFound)

    asyncio.run(run())


@pytest.mark.parametrize("error", [LineUnavailable("gone"), RuntimeError("a defect")])
def test_a_failure_leaves_nobody_waiting(error: Exception) -> None:
    async def run() -> None:
        server = Server()
        server.error = error
        server.answering.set()
        gatherer = server.gatherer()
        answers = await asyncio.wait_for(ask_all(gatherer, range(10)), 5)
        assert all(type(answer) is type(error) for answer in answers)
        server.error = None
        assert await gatherer.ask(4) == 8

    asyncio.run(run())


def test_a_server_that_is_away_is_asked_once_for_all_who_wait() -> None:
    async def run() -> None:
        server = Server()
        server.error = LineUnavailable("gone")
        server.answering.set()
        await ask_all(server.gatherer(), range(10))
        assert len(server.groups) == 1

    asyncio.run(run())


def test_too_many_are_refused_at_once() -> None:
    async def run() -> None:
        server = Server()
        gatherer = server.gatherer(waiting_max=2)
        waiting = asyncio.create_task(ask_all(gatherer, [1, 2]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        more = [asyncio.create_task(gatherer.ask(each)) for each in (3, 4, 5)]
        done, _ = await asyncio.wait(more, return_when=asyncio.FIRST_EXCEPTION)
        assert any(isinstance(task.exception(), LineUnavailable) for task in done)
        server.answering.set()
        await waiting
        await asyncio.gather(*more, return_exceptions=True)

    asyncio.run(run())
