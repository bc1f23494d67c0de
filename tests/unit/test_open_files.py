"""A process may open as many connections as it is asked to hold, if the system lets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource
from local.open_files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))
print(allow_open_files({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("wanted", "hard", "allowed"), [(1_000, 2_000, 1_000), (5_000, 2_000, 2_000), (100, 2_000, 256)]
)
def test_the_limit_is_raised_as_far_as_it_may_be(
    project_root: Path, wanted: int, hard: int, allowed: int
) -> None:
    """In a process of its own, since a limit that was lowered stays low."""
    program = PROGRAM.format(wanted=wanted, hard=hard)
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=project_root, capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [str(allowed), str(allowed)]
