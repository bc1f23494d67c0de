"""`python -m bench`: Onsale next to what one would take instead, and to the limits, on one machine."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime

import httpx

from bench.catalogue import FLOORS, MEASURES
from bench.catalogue import QUICK as QUICK_MEASURES
from bench.load import ensure_wrk
from bench.machine import describe_machine
from bench.options import QUICK, Options, scratch
from bench.outcome import Outcome
from bench.processes import BenchmarkError
from bench.report import goals_table, is_written, render, update, write


def main() -> int:
    """Measure, print, and write docs/benchmarks.*; 0, or 1 after saying what went wrong."""
    parsed = _parser().parse_args()
    # So that a benchmark that is told to stop still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _run(parsed)
    except (BenchmarkError, httpx.HTTPError) as error:
        print(f"\nStopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_names, help=f"some of: {', '.join(MEASURES)}")
    parser.add_argument(
        "--quick", action="store_true", help="the main ratios in a minute; fails if one is under its floor"
    )
    parser.add_argument("--dry", action="store_true", help="print, and leave docs/ alone")
    for field in fields(Options):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=_count, help=f"{field.default} if not said")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(MEASURES)}")
    return names


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError("must be from 1 to 10,000,000")
    return number


def _run(parsed: argparse.Namespace) -> int:
    given = {field.name: getattr(parsed, field.name) for field in fields(Options)}
    base = QUICK if parsed.quick else Options()
    options = Options(
        **{name: getattr(base, name) if value is None else value for name, value in given.items()}
    )
    names = parsed.only or (QUICK_MEASURES if parsed.quick else list(MEASURES))
    wrk = ensure_wrk()
    minutes = sum(MEASURES[name].seconds(options) for name in names) / 60
    _say(f"This takes about {minutes:.0f} minutes. Ctrl-C stops it cleanly.")
    with scratch() as directory:
        machine = describe_machine(directory, wrk)
    outcomes = _measure(names, options)
    missing = [name for name in names if name not in outcomes]
    measured_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if parsed.quick:
        _say(goals_table(outcomes))
        return 1 if missing else _check_floors(outcomes, _say)
    if parsed.dry:
        _say(render(outcomes, machine, measured_at))
        return 0
    if (parsed.only or missing) and is_written(outcomes):
        update(outcomes, measured_at)
        _say(f"{goals_table(outcomes)}\n\nUpdated: docs/benchmarks.json, docs/benchmarks.md")
        return 1 if missing else 0
    write(outcomes, machine, measured_at)
    _say(f"{goals_table(outcomes)}\n\nWritten: docs/benchmarks.json, docs/benchmarks.md, docs/benchmarks/")
    return 0


def _measure(names: Sequence[str], options: Options) -> dict[str, Outcome]:
    """Measure in turn. One that breaks is told and left out; the others have been worth their time."""
    outcomes = {}
    for name in names:
        _say(f"{name} (about {MEASURES[name].seconds(options):.0f} s)")
        try:
            outcomes[name] = MEASURES[name].run(options, _say)
        except (BenchmarkError, httpx.HTTPError) as error:
            print(f"\n{name} was not measured: {error}", file=sys.stderr)
    return outcomes


def _check_floors(outcomes: dict[str, Outcome], say: Callable[[str], None]) -> int:
    below = 0
    for (name, figure), floor in FLOORS.items():
        if name in outcomes:
            reached = outcomes[name].figures[figure]
            assert isinstance(reached, float)
            if reached < floor:
                below += 1
                say(f"{name}: {figure} is {reached:.2f}, under its floor of {floor}")
    return 1 if below else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
