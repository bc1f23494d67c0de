"""Wait for a result for as long as the client does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from starlette.types import Receive

from shared.records import JobResult

HangUps = Callable[[asyncio.Future[JobResult]], AbstractContextManager[None]]
"""For a block that awaits a future: cancels it when the client hangs up, also if it has already."""


async def wait_for_result(
    reply: asyncio.Future[JobResult], hang_ups: HangUps, seconds: float
) -> JobResult | None:
    """The result, or None if it does not come in time or nobody waits for it any more.

    Nobody does when the client has hung up, or when the process is to end. Each of these cancels the reply.
    """
    limit = asyncio.get_running_loop().call_later(seconds, reply.cancel)
    try:
        with hang_ups(reply):
            return await reply
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None
    finally:
        limit.cancel()


def hang_ups_of(receive: Receive) -> HangUps:
    """As an application learns of them; that takes a task, which receives as long as the block lasts."""

    @contextmanager
    def cancel(reply: asyncio.Future[JobResult]) -> Iterator[None]:
        listener = asyncio.ensure_future(_until_hang_up(receive))
        listener.add_done_callback(partial(_end, reply))
        try:
            yield
        finally:
            listener.cancel()

    return cancel


async def _until_hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _end(reply: asyncio.Future[JobResult], listener: asyncio.Future[None]) -> None:
    """The client has hung up, or what it still sends can't be received."""
    if listener.cancelled():
        return
    error = listener.exception()
    if error is None:
        reply.cancel()
    elif not reply.done():
        reply.set_exception(error)
