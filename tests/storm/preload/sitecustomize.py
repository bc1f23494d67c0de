"""Python loads this at its start in processes whose clock the storm can step.

`time.sleep` asks the system to sleep until a moment of the monotonic clock, and libfaketime makes an invalid
argument of that. Waiting in `select` is the same to the caller.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
