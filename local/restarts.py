"""How often a child may be restarted."""

from __future__ import annotations

from collections import deque

RESTARTS_MAX = 5
RESTARTS_SECONDS = 60.0


class RestartBudget:
    """Allows at most RESTARTS_MAX restarts within any RESTARTS_SECONDS."""

    def __init__(self) -> None:
        self._moments: deque[float] = deque(maxlen=RESTARTS_MAX)

    def spend(self, now_seconds: float) -> bool:
        """Ask for one restart at this moment of a monotonic clock; whether it is allowed."""
        if len(self._moments) == RESTARTS_MAX and now_seconds - self._moments[0] < RESTARTS_SECONDS:
            return False
        self._moments.append(now_seconds)
        return True
