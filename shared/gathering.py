"""Concurrent calls sent together, for an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from shared.errors import OnsaleError, TemporarilyUnavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_Asked: TypeAlias = tuple[Question, Callable[[Answer | Exception], None]]
"""A question, and who is to be told its answer."""

Told: TypeAlias = Sequence[Answer | OnsaleError] | Exception
"""What has come of a call: an answer to each of its questions, or why there is none."""

Send: TypeAlias = Callable[[Sequence[Question], Callable[[Told[Answer]], None]], None]
"""Sends questions in one call, and tells once what has come of it, but not before it has returned."""


class Gatherer(Generic[Question, Answer]):
    """Sends what is asked at the same time in one call (a group commit).

    While as many calls are on their way as may be, the next questions collect, so that under load one round
    trip serves many.
    """

    def __init__(
        self,
        send: Send[Question, Answer],
        *,
        group_max: int,
        waiting_max: int,
        too_many: TemporarilyUnavailable,
        calls_max: int = 1,
    ) -> None:
        """`send` has each question answered, in order, with what is given or raised to the one who asked.

        `too_many` is raised to who asks when `waiting_max` others wait to be sent. No more than `calls_max`
        calls of no more than `group_max` questions are on their way at a time.
        """
        self._send = send
        self._group_max = group_max
        self._waiting_max = waiting_max
        self._too_many = too_many
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._calls_max = calls_max
        self._calls = 0
        self._is_due = False

    async def ask(self, question: Question) -> Answer:
        """The answer to this question.

        Raises:
            OnsaleError: the answer is one.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.ask_then(question, partial(_settle, answer))
        return await answer

    def ask_then(self, question: Question, tell: Callable[[Answer | Exception], None]) -> None:
        """Ask without a task that waits: `tell` is called with the answer, or what would be raised.

        It must not raise: others wait for theirs.

        Raises:
            TemporarilyUnavailable: too many wait; nobody is told then.
        """
        if len(self._waiting) >= self._waiting_max:
            raise type(self._too_many)(str(self._too_many))
        self._waiting.append((question, tell))
        if not self._is_due and self._calls < self._calls_max:
            # Not at once: what else is asked in this turn of the event loop goes with it.
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._send_waiting)

    def _send_waiting(self) -> None:
        self._is_due = False
        while self._waiting and self._calls < self._calls_max:
            count = min(len(self._waiting), self._group_max)
            group = [self._waiting.popleft() for _ in range(count)]
            self._calls += 1
            try:
                self._send([question for question, _ in group], partial(self._told, group))
            except Exception as error:
                self._told(group, error)

    def _told(self, group: Sequence[_Asked[Question, Answer]], told: Told[Answer]) -> None:
        """Tell everybody of a call what has come of it, and let the next leave.

        Where others wait, both in a turn of their own: what those who are told go on to do would come before
        the next call is written, which is written at the end of a turn.
        """
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._hand_out, group, told)
        else:
            self._hand_out(group, told)

    def _hand_out(self, group: Sequence[_Asked[Question, Answer]], told: Told[Answer]) -> None:
        self._calls -= 1
        if isinstance(told, TemporarilyUnavailable):
            # Those who wait behind would find the same, one time limit after the other.
            _fail_all([*group, *self._take_waiting()], told)
        elif isinstance(told, Exception):
            _fail_all(group, told)
        else:
            for (_, tell), answer in zip(group, told, strict=True):
                tell(answer)
        self._send_waiting()

    def _take_waiting(self) -> list[_Asked[Question, Answer]]:
        taken = [*self._waiting]
        self._waiting.clear()
        return taken


class InTasks(Generic[Question, Answer]):
    """Sends questions by a coroutine, each call in a task."""

    def __init__(
        self,
        send: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | OnsaleError]]],
        *,
        ended: TemporarilyUnavailable,
    ) -> None:
        """`ended` is told where a task is cancelled, as when the process ends: who asked may have no other
        way to learn it.
        """
        self._send = send
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, questions: Sequence[Question], tell: Callable[[Told[Answer]], None]) -> None:
        """Send them, and tell what has come of it."""
        task = asyncio.get_running_loop().create_task(self._send_and_tell(questions, tell))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_and_tell(
        self, questions: Sequence[Question], tell: Callable[[Told[Answer]], None]
    ) -> None:
        try:
            answers = await self._send(questions)
        except asyncio.CancelledError:
            tell(self._ended)
            raise
        except Exception as error:
            tell(error)
        else:
            tell(answers)


def _fail_all(group: Iterable[_Asked[Question, Answer]], error: Exception) -> None:
    for _, tell in group:
        tell(_copy(error))


def _settle(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    """A client that hung up has cancelled its future; nobody waits for the answer then."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _copy(error: Exception) -> Exception:
    """Each who asked gets an exception of their own: raising one twice mixes up its tracebacks."""
    return type(error)(str(error)) if isinstance(error, OnsaleError) else error
