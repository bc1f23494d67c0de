"""What is done at once when the process is asked to end, before the answers that are open are finished."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop_signal(call: Callable[[], None]) -> Iterator[None]:
    """Call something in the event loop when the process is told to stop, and then who was told before.

    uvicorn ends the lifespan only after the last answer; a stream would keep it waiting. A server that runs
    in a thread gets no signals, and nothing is changed for it.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        before[number](number, frame)

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
