"""The Prefer header (RFC 7240): how long a client wants to wait for the result."""

from __future__ import annotations

import re

_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,6})\"?$", re.IGNORECASE)


def preferred_wait_seconds(prefer: str | None, *, seconds_max: float) -> float:
    """The seconds of `wait=N`, at most `seconds_max`; 0 if the client did not ask to wait.

    As the RFC has it, a preference that isn't understood is ignored and the first of a kind counts.
    """
    for preference in (prefer or "").split(","):
        match = _WAIT.match(preference.partition(";")[0].strip())
        if match:
            return min(float(match.group(1)), seconds_max)
    return 0.0
