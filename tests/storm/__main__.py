"""`python -m tests.storm --seconds 600 --clients 200 --events 5 --seed N`, or `make storm`.

Ends with 0 if nothing was lost, doubled, out of order or answered wrongly, and with 1 if anything was.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.storm.director import StormOptions, UnknownFault, run_storm
from tests.storm.report import render, render_violations, write_page

SEEDS = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a storm and say what came of it; gives the exit status."""
    parsed = _parser().parse_args(arguments)
    options = StormOptions(
        seconds=parsed.seconds,
        clients=parsed.clients,
        events=parsed.events,
        seed=parsed.seed,
        fault=parsed.fault,
    )
    # Whoever stops it gets the disks unmounted and the processes ended, as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="onsale-storm-"))
    try:
        result = run_storm(options, folder, _show)
    except UnknownFault as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        _end_line()
    print(render(result))
    if parsed.report is not None:
        write_page(result, parsed.report)
    if not result.verdict.violations:
        shutil.rmtree(folder)
        return 0
    print(f"\nWrong (logs in {folder}):\n{render_violations(result)}")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--seconds", type=_positive, default=600, help="how long (%(default)s)")
    parser.add_argument("--clients", type=_positive, default=200, help="at the same time (%(default)s)")
    parser.add_argument("--events", type=_positive, default=5, help="on sale (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(SEEDS), help="the faults are repeatable from it"
    )
    parser.add_argument("--fault", help="only the faults whose name has this in it")
    parser.add_argument(
        "--report", type=Path, help="a page with the marks of a storm to write the result into"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return number


def _show(line: str) -> None:
    """A line that is written over on a terminal, and an ordinary one elsewhere."""
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="", flush=True)
    else:
        print(line, flush=True)


def _end_line() -> None:
    if sys.stdout.isatty():
        print()


if __name__ == "__main__":
    sys.exit(main())
