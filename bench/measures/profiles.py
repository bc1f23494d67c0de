"""Where an API process and a worker spend their time in Python under load, as py-spy sees it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.load import book_for
from bench.options import Options, scratch
from bench.outcome import Outcome
from bench.processes import BenchmarkError
from bench.stack import Stack, new_users, stack

RECORD_SECONDS = 5
WARM_UP_SECONDS = 2
SAMPLES_PER_SECOND = 200
PY_SPY_SECONDS_MAX = 60
LINES = 3
"""So many times the line that is drained otherwise, which is too short for this."""

SHOWN = 8
"""So many functions of each process, those that take most by themselves."""

_LINE = re.compile(r":\d+(?=\)$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The share of each function in a process's time in Python, by itself, and the picture of all of it."""

    own_share: Mapping[str, float]
    picture: str


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """The API while many clients book on one event, and a worker while it drains a full line."""
    profiles = {"api": _of_the_api(options), "worker": _of_a_worker(options)}
    rows = [
        (name, function, f"{share:.0%}")
        for name, profile in profiles.items()
        for function, share in largest(profile.own_share)
    ]
    say("  " + ", ".join(f"{name}: {function} {share}" for name, function, share in rows[::SHOWN]))
    return Outcome(
        title="Where the time goes in Python",
        explanation=(
            f"Samples by py-spy, {SAMPLES_PER_SECOND} a second for {RECORD_SECONDS} s, of threads that don't"
            f" wait; the width of the pictures is time. The API while {options.connections} clients book on"
            " one event, a worker while it drains a full line. The table has the functions that take most by"
            " themselves, without what they call; what C code takes counts with who has called it."
        ),
        columns=("process", "function", "of its time"),
        rows=rows,
        goals=(),
        figures={"own_share": {name: dict(largest(each.own_share)) for name, each in profiles.items()}},
        pictures={f"profile-{name}": profile.picture for name, profile in profiles.items()},
    )


def own_shares(folded: str) -> dict[str, float]:
    """What share of the samples each function has by itself.

    `folded` has a line for each stack: its functions from the outermost on, by semicolons, and how often it
    was seen. A function is told with its file, and with the line where it begins, which is left out.
    """
    seen: Counter[str] = Counter()
    for line in folded.splitlines():
        stacked, _, count = line.rpartition(" ")
        seen[_LINE.sub("", stacked.rpartition(";")[2])] += int(count)
    total = seen.total()
    if not total:
        raise BenchmarkError("py-spy has seen nothing")
    return {function: count / total for function, count in seen.items()}


def largest(own_share: Mapping[str, float]) -> list[tuple[str, float]]:
    """The functions that take most, the largest first."""
    return sorted(own_share.items(), key=lambda item: item[1], reverse=True)[:SHOWN]


def _of_the_api(options: Options) -> Profile:
    def record(directory: Path, kind: str) -> str:
        with stack(directory) as onsale, ThreadPoolExecutor(max_workers=1) as beside:
            onsale.start_api()
            onsale.start_worker()
            load = beside.submit(
                book_for,
                WARM_UP_SECONDS + 2 * RECORD_SECONDS,
                connections=options.connections,
                base_url=onsale.base_url,
                event_id=onsale.make_event().id,
            )
            time.sleep(WARM_UP_SECONDS)
            recorded = _recorded(onsale, "api", kind)
            load.result()
        return recorded

    return _profile(record)


def _of_a_worker(options: Options) -> Profile:
    def record(directory: Path, kind: str) -> str:
        with stack(directory) as onsale:
            event_id = onsale.make_event().id
            onsale.fill(event_id, new_users(LINES * options.line))
            with closing(onsale.line()) as client, onsale.worker():
                time.sleep(WARM_UP_SECONDS)
                recorded = _recorded(onsale, "worker-1", kind)
                if onsale.applied(client, event_id) == LINES * options.line:
                    raise BenchmarkError("the line was empty before the end of the profile")
        return recorded

    return _profile(record)


def _profile(record: Callable[[Path, str], str]) -> Profile:
    """Recorded twice: py-spy writes either what it has counted or a picture of that."""
    recorded = {}
    for kind in ("raw", "flamegraph"):
        with scratch() as directory:
            recorded[kind] = record(directory, kind)
    return Profile(own_share=own_shares(recorded["raw"]), picture=recorded["flamegraph"])


def _recorded(onsale: Stack, name: str, kind: str) -> str:
    """What py-spy has to say of a process of ours that is at work now.

    Raises:
        BenchmarkError: it may not look into other processes here, or the process has ended.
    """
    output = f"profile-{kind}"
    # The picture shows this command, in which nothing may be of this machine.
    command = ["py-spy", "record", "--function"]
    command += ["--pid", str(onsale.processes[name].pid), "--format", kind, "--output", output]
    command += ["--duration", str(RECORD_SECONDS), "--rate", str(SAMPLES_PER_SECOND)]
    finished = subprocess.run(
        command,
        executable=Path(sys.executable).with_name("py-spy"),
        cwd=onsale.directory,
        capture_output=True,
        text=True,
        timeout=PY_SPY_SECONDS_MAX,
        check=False,
    )
    recorded = onsale.directory / output
    if finished.returncode != 0 or not recorded.exists():
        raise BenchmarkError(
            "py-spy failed; to look into other processes it may need root, or kernel.yama.ptrace_scope=0:\n"
            f"{finished.stdout}{finished.stderr}"
        )
    onsale.check()
    return recorded.read_text()
