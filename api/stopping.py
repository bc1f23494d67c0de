"""What is done when the process is asked to end: traffic goes elsewhere, then open answers are ended."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Draining:
    """Whether the process was asked to end; it serves on for a while, but is not ready any more."""

    has_begun: bool = False


@contextmanager
def on_stop_signal(call: Callable[[], None], draining: Draining, seconds: float) -> Iterator[None]:
    """When the process is told to stop: drain for so many seconds, call something in the event loop, end.

    While it drains, `/ready` says so and whoever sends traffic stops to. A second signal ends the wait.
    uvicorn ends the lifespan only after the last answer; a stream would keep it waiting. A server that runs
    in a thread gets no signals, and nothing is changed for it.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def end(number: int) -> None:
        call()
        before[number](number, None)

    def handle(number: int, _frame: FrameType | None) -> None:
        wait = 0.0 if draining.has_begun else seconds
        draining.has_begun = True
        loop.call_soon_threadsafe(loop.call_later, wait, end, number)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    handled = [number for number, handler in before.items() if callable(handler)]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            if signal.getsignal(number) is handle:
                signal.signal(number, before[number])
