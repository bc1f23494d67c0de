"""`python -m bench`: Onsale next to what one would take instead, and to the limits, on one machine."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial

from bench import costs, simulate
from bench.catalogue import MEASURES, Measure
from bench.catalogue import QUICK as QUICK_MEASURES
from bench.floors import caution, floors_of
from bench.load import ensure_wrk
from bench.machine import describe_servers, this_processor
from bench.options import QUICK, Options, scratch
from bench.outcome import Outcome
from bench.processes import BenchmarkError, allow_clients
from bench.record import Occasion, merge, this_occasion
from bench.report import goals_table, read, render, write

START_SECONDS = 12
QUICK_START_SECONDS = 5
"""Until the first measure begins: what is imported, and what is found out about the machine."""

SIMULATE_SECONDS = 8


def main() -> int:
    """Measure, print, and write into docs/; 0, or 1 after saying what went wrong."""
    parsed = _parser().parse_args()
    # So that a benchmark that is told to stop still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _run(parsed)
    except BenchmarkError as error:
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
    if "stampede" in names:
        allow_clients(options.stampede_clients, _say)
    if parsed.quick:
        return _quick(names, options)
    if parsed.dry:
        return _dry(names, options, wrk)
    return _measure_and_write(names, options, wrk, is_full=not parsed.only)


def _quick(names: Sequence[str], options: Options) -> int:
    floors = floors_of(read(), names)
    _announce(QUICK_START_SECONDS, names, options)
    with scratch() as directory:
        # For its refusal of servers that are not durable; nothing is written down.
        describe_servers(directory)
    outcomes = measure_all(names, MEASURES, options, _say)
    _say(goals_table(outcomes.values()) + "\n")
    for floor in floors:
        _say(floor.verdict(outcomes))
    if warning := caution(floors, this_processor()):
        _say(warning)
    return exit_status(names, outcomes, [floor.figure for floor in floors if not floor.is_held(outcomes)])


def _dry(names: Sequence[str], options: Options, wrk: str) -> int:
    _announce(START_SECONDS, names, options)
    with scratch() as directory:
        occasion = this_occasion(directory, wrk)
    outcomes = measure_all(names, MEASURES, options, _say)
    _say(render(merge(None, outcomes, occasion, order=names, is_full=True)))
    return exit_status(names, outcomes)


def _measure_and_write(names: Sequence[str], options: Options, wrk: str, *, is_full: bool) -> int:
    # Before anything is measured: what can't be read can't be added to.
    older = read()
    _announce(START_SECONDS + SIMULATE_SECONDS + is_full * costs.ALL_SECONDS, names, options)
    with scratch() as directory:
        occasion = this_occasion(directory, wrk)
    outcomes = measure_all(names, MEASURES, options, _say)
    if not outcomes:
        return exit_status(names, outcomes)
    write(merge(older, outcomes, occasion, order=list(MEASURES), is_full=is_full))
    _say(f"{goals_table(outcomes.values())}\n\nWritten: docs/benchmarks.json, docs/benchmarks.md")
    return exit_status(names, outcomes, _renew(occasion, is_full=is_full))


def measure_all(
    names: Sequence[str], measures: Mapping[str, Measure], options: Options, say: Callable[[str], None]
) -> dict[str, Outcome]:
    """Measure in turn. One that breaks is told and left out; the others have been worth their time."""
    outcomes = {}
    for name in names:
        say(f"{name} (about {measures[name].seconds(options):.0f} s)")
        try:
            outcomes[name] = measures[name].run(options, say)
        except Exception:
            _tell_broken(f"{name} was not measured")
    return outcomes


def _renew(occasion: Occasion, *, is_full: bool) -> list[str]:
    """Write what is made of the figures, and tell what could not be written.

    The simulation's page has all the figures in it, and follows each; costs are a measurement of their own.
    """
    steps: dict[str, Callable[[], None]] = {"docs/scaling.md": simulate.write}
    if is_full:
        steps = {"docs/costs.json": partial(costs.renew, occasion), **steps}
    broken = []
    for name, step in steps.items():
        _say(f"{name} …")
        try:
            step()
        except Exception:
            _tell_broken(f"{name} was not written")
            broken.append(name)
    return broken


def _tell_broken(what: str) -> None:
    print(f"\n{what}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)


def exit_status(names: Iterable[str], outcomes: Mapping[str, Outcome], broken: Sequence[str] = ()) -> int:
    """0 if all that was asked for was measured, and nothing else broke or was under its floor."""
    missing = [name for name in names if name not in outcomes]
    return 1 if missing or broken else 0


def _announce(start_seconds: int, names: Sequence[str], options: Options) -> None:
    seconds = start_seconds + sum(MEASURES[name].seconds(options) for name in names)
    _say(f"This takes about {duration(seconds)}. Ctrl-C stops it cleanly.")


def duration(seconds: float) -> str:
    """For people: in seconds, or in minutes where it is more than two."""
    return f"{seconds:.0f} seconds" if seconds <= 120 else f"{seconds / 60:.0f} minutes"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
