"""Concurrent calls sent together, for an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeAlias, TypeVar, cast

from shared.errors import OnsaleError, TemporarilyUnavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_Asked: TypeAlias = tuple[Question, Callable[[Answer | Exception], None]]
"""A question, and who is to be told its answer."""

_SIZES = 2
"""Under load a small call comes between large ones, from what came while their answers were handed out."""


class Gatherer(Generic[Question, Answer]):
    """Sends what concurrent tasks ask in one call (a group commit).

    While one call is on its way the next questions collect, so that under load one round trip serves many.
    While few are on their way a second call need not wait for the first.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | OnsaleError]]],
        *,
        group_max: int,
        waiting_max: int,
        too_many: TemporarilyUnavailable,
        beside_max: int = 0,
    ) -> None:
        """`send` answers each question, in order, with what is given or raised to the one who asked.

        `too_many` is raised to who asks when `waiting_max` others wait to be sent. A second call leaves
        beside a first while calls have no more than `beside_max` questions.
        """
        self._send = send
        self._group_max = group_max
        self._waiting_max = waiting_max
        self._too_many = too_many
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._beside_max = beside_max
        self._senders: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._last_sizes: deque[int] = deque([group_max], maxlen=_SIZES)

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
        if not self._senders or (len(self._senders) == 1 and self._asked and self._is_calm()):
            self._senders.add(asyncio.create_task(self._send_waiting()))

    async def _send_waiting(self) -> None:
        """Call until nobody waits, or until what is on its way beside is too much; that one goes on then."""
        try:
            while self._waiting and (not self._asked or self._is_calm()):
                count = min(len(self._waiting), self._group_max)
                self._last_sizes.append(count)
                self._asked += count
                try:
                    await self._send_group([self._waiting.popleft() for _ in range(count)])
                finally:
                    self._asked -= count
        finally:
            # Here and not when the task has ended: who asks in between would count on it.
            self._senders.discard(cast(asyncio.Task[None], asyncio.current_task()))

    def _is_calm(self) -> bool:
        return max(self._last_sizes) <= self._beside_max

    def _take_waiting(self) -> list[_Asked[Question, Answer]]:
        taken = [*self._waiting]
        self._waiting.clear()
        return taken

    async def _send_group(self, group: list[_Asked[Question, Answer]]) -> None:
        try:
            answers = await self._send([question for question, _ in group])
        except TemporarilyUnavailable as error:
            # Those who wait behind would find the same, one time limit after the other.
            _fail_all([*group, *self._take_waiting()], error)
            return
        except asyncio.CancelledError:
            # The process waits no longer; who asked without a task has nobody else to hear it from.
            _fail_all([*group, *self._take_waiting()], type(self._too_many)("the process ends"))
            raise
        except Exception as error:
            _fail_all(group, error)
            return
        for (_, tell), answer in zip(group, answers, strict=True):
            tell(answer)


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
