"""`python -m bench`: Onsale next to the design that it replaces, in one run on one machine."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

from bench.load import ensure_wrk
from bench.machine import describe_machine
from bench.measure import WARM_UP_SECONDS, Result, measure
from bench.processes import REPOSITORY, BenchmarkError
from bench.report import Report, Round, Trial, render, summary, write_json, write_page
from bench.targets import PeerSetting, Target, onsale, synchronous_peer

TRIAL_SECONDS = 4
QUICK_SECONDS = 3
OVERHEAD_SECONDS = 6
"""Start, warm-up's drain and stop of one measurement, for the estimate."""

PEER_SETTINGS = (
    PeerSetting(processes=1, pool_size=5, pool_overflow=10, threads=40),
    PeerSetting(processes=1, pool_size=5, pool_overflow=0, threads=5),
    PeerSetting(processes=1, pool_size=20, pool_overflow=0, threads=20),
    PeerSetting(processes=1, pool_size=40, pool_overflow=0, threads=40),
    PeerSetting(processes=2, pool_size=5, pool_overflow=10, threads=40),
)
"""FastAPI's and SQLAlchemy's defaults first, then what people try next."""

DATA = REPOSITORY / ".data"
"""On the disk that Onsale uses, not in a /tmp that may be memory, where fsync costs nothing."""


def main() -> int:
    """Measure, print, and write docs/benchmarks.*; 0, or 1 after saying what went wrong."""
    options = _parse_options()
    # So that a benchmark that is told to stop still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _run(options)
    except (BenchmarkError, httpx.HTTPError) as error:
        print(f"\nStopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=_count(100), default=3, help="peer and Onsale in turn, so often")
    parser.add_argument("--seconds", type=_count(600), default=8, help="length of one measurement")
    parser.add_argument("--connections", type=_count(10_000), default=64, help="clients at once")
    parser.add_argument("--workers", type=_count(64), default=1, help="Onsale's worker processes")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"one round of {QUICK_SECONDS} s, the peer at its defaults; prints, and leaves docs/ alone",
    )
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, QUICK_SECONDS
    return options


def _count(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"must be from 1 to {most}")
        return number

    parse.__name__ = "count"
    return parse


def _run(options: argparse.Namespace) -> None:
    wrk = ensure_wrk()
    settings = PEER_SETTINGS[:1] if options.quick else PEER_SETTINGS
    _say(
        f"This takes about {_estimate_minutes(options, len(settings)):.1f} minutes. Ctrl-C stops it cleanly."
    )
    with _scratch() as directory:
        machine = describe_machine(directory, wrk)
    trials = _try_settings(settings, options.connections)
    best = max(trials, key=lambda trial: trial.applied_per_second).setting
    report = Report(
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine,
        seconds=options.seconds,
        connections=options.connections,
        workers=options.workers,
        trials=trials,
        peer_setting=best,
        rounds=[_round(number, best, options) for number in range(1, options.rounds + 1)],
    )
    _publish(report, quick=options.quick)


def _estimate_minutes(options: argparse.Namespace, settings: int) -> float:
    fixed = OVERHEAD_SECONDS + WARM_UP_SECONDS
    trials = settings * (TRIAL_SECONDS + fixed)
    rounds = 2 * options.rounds * (options.seconds + fixed)
    return float(trials + rounds + OVERHEAD_SECONDS) / 60


def _try_settings(settings: Sequence[PeerSetting], connections: int) -> list[Trial]:
    """Short trials, so that the peer is then measured at the setting that suits it best here."""
    trials = []
    for setting in settings:
        with _scratch() as directory:
            result = _measure(synchronous_peer(directory, setting), TRIAL_SECONDS, connections)
        trials.append(Trial(setting=setting, applied_per_second=round(result.applied_per_second, 1)))
        _say(f"trial    synchronous   {result.applied_per_second:8,.0f}/s   {setting}")
    return trials


def _round(number: int, setting: PeerSetting, options: argparse.Namespace) -> Round:
    with _scratch() as directory:
        peer = _measure(synchronous_peer(directory, setting), options.seconds, options.connections)
    _say(f"round {number}  synchronous   {peer.applied_per_second:8,.0f}/s")
    with _scratch() as directory:
        ours = _measure(onsale(directory, options.workers), options.seconds, options.connections)
    both = Round(peer=peer, onsale=ours)
    _say(
        f"round {number}  Onsale        {ours.applied_per_second:8,.0f}/s   {both.ratio:.1f} times   "
        f"accepted {ours.accepted_per_second:,.0f}/s, refused {ours.refused}"
    )
    return both


def _measure(system: AbstractContextManager[Target], seconds: int, connections: int) -> Result:
    with system as target:
        return measure(target, seconds=seconds, connections=connections)


def _publish(report: Report, *, quick: bool) -> None:
    _say(f"\n{summary(report)}")
    if quick:
        _say(f"\n{render(report)}")
        return
    write_json(report)
    write_page(report)
    _say("Written: docs/benchmarks.json, docs/benchmarks.md")


@contextmanager
def _scratch() -> Iterator[Path]:
    """A fresh directory for one measurement's data, which PostgreSQL's own user may enter."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=DATA, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
