"""Python's garbage collector, set for processes that make many objects and few cycles."""

from __future__ import annotations

import gc

_OBJECTS_BEFORE_A_LOOK = 100_000
"""By Python's default a look is taken after 700 new objects: dozens of times in the middle of a batch."""


def calm_collector() -> None:
    """Leave what is there now alone, and look less often. For a process that is ready to work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_A_LOOK)
