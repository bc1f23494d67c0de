"""Ends a program when the process that started it is gone, even by SIGKILL.

On Linux the kernel does it: the program starts through this file, which asks for a signal at its parent's
death and then becomes the program. This is a process of its own, not a `preexec_fn`, because Python code
between fork and exec may deadlock where there are threads. Other systems have no such thing; there a program
outlives a parent that gets SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_ISOLATED = ("-I", "-S")


def leash_holds() -> bool:
    """Whether a program started now can be leashed to this process.

    Linux sends the signal when the *thread* that started the program ends. So a program that another thread
    than the main one starts goes without.
    """
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread()


def leashed(command: Sequence[str], death_signal: signal.Signals) -> list[str]:
    """The command that runs `command` so that it gets `death_signal` when this process ends.

    It has the same process id. The leash is lost if the program changes its user.
    """
    if not leash_holds():
        return list(command)
    parent = os.getpid()
    return [sys.executable, *_ISOLATED, __file__, str(death_signal.value), str(parent), *command]


def _become(death_signal: int, parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        # The parent ended before the request, so the signal will never come.
        sys.exit(1)
    # Python ignores these two, and a program would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
