"""Our own processes (API, workers, dashboard) as children of the supervisor."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

from local.errors import ProgramFailed
from local.leash import leashed

KILL_SECONDS_MAX = 10.0


class Program:
    """A program that runs until it is told to stop; its output goes where ours goes."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, stop_seconds_max: float
    ) -> None:
        """Describe the program; `stop_seconds_max` is how long it may take after SIGTERM."""
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._environment = environment
        self._stop_seconds_max = stop_seconds_max

    def start(self) -> None:
        """Start it, and don't wait for anything.

        If this process is killed, so is the program, at once: nothing that is accepted or applied depends on
        a clean end, and its servers end at the same moment.

        Raises:
            ProgramFailed: it isn't there or can't be run.
        """
        try:
            self.process = subprocess.Popen(
                leashed(self._command, signal.SIGKILL),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                # Ctrl-C in the terminal reaches the supervisor alone, which then stops all in order.
                start_new_session=True,
            )
        except OSError as error:
            raise ProgramFailed(f"the {self.name} can't be started: {error}") from error

    def ask_to_stop(self) -> None:
        """Send SIGTERM, and don't wait. Does nothing when it doesn't run."""
        if self.process is not None:
            self.process.terminate()

    def await_stop(self) -> None:
        """Wait for the end of a program that was asked to stop, and force it when that takes too long."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout=self._stop_seconds_max)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=KILL_SECONDS_MAX)

    def stop(self) -> None:
        """Stop it, cleanly if it can."""
        self.ask_to_stop()
        self.await_stop()


def stop_together(programs: Sequence[Program]) -> None:
    """Stop several programs in the time of the slowest."""
    for program in programs:
        program.ask_to_stop()
    for program in programs:
        program.await_stop()
