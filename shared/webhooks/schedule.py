"""When a message is tried again, and how long a target that does not take one is left alone. Pure."""

from __future__ import annotations

from datetime import timedelta

RETRY_SECONDS = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""Between the attempts at one message, as standardwebhooks.com suggests: three days in all."""

TRIES_MAX = len(RETRY_SECONDS) + 1

REST_SECONDS = (1, 5, 30, 2 * 60, 5 * 60)
"""After the first failure in a row, whichever the messages, the second, …; from then on the last."""

JITTER_SHARE = 0.2
"""How much longer a wait may be than it says, so that what failed together is not tried together."""


def retry_after(tries: int, chance: float) -> timedelta | None:
    """The wait after a message's failed attempt number `tries`, or None if that was the last one.

    `chance` is a number from 0 to 1 that spreads the waits.
    """
    if tries >= TRIES_MAX:
        return None
    return _spread(RETRY_SECONDS[tries - 1], chance)


def rest_after(failures: int, chance: float) -> timedelta:
    """How long a target is left alone after so many failures in a row."""
    return _spread(REST_SECONDS[min(failures, len(REST_SECONDS)) - 1], chance)


def _spread(seconds: int, chance: float) -> timedelta:
    return timedelta(seconds=seconds * (1 + JITTER_SHARE * chance))
