"""What can be set on the command line, and within which bounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from demo.errors import DemoError
from shared.loopback import is_loopback

DEFAULT_URL = "http://127.0.0.1:8000"
API_KEY_VARIABLE = "ONSALE_API_KEY"

BUYERS_MAX = 15_000
"""Each is a connection, and one API process holds 20,000."""

TICKETS_MAX = 1_000_000
WORKERS_MAX = 16
SECONDS_MAX = 900
SEED_MAX = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What stampede, against what. A `url` that is None means: look for one, else start one."""

    buyers: int = 10_000
    tickets: int = 1_000
    cancel_rate: float = 0.1
    greedy_rate: float = 0.05
    workers: int | None = None
    kill_worker: bool = False
    compare: bool = False
    url: str | None = None
    anywhere: bool = False
    seconds: int = 180
    seed: int = 1
    picture: Path | None = None

    @property
    def needs_own(self) -> bool:
        """Whether only an Onsale that the demo itself starts will do."""
        return self.kill_worker or self.workers is not None


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; ends the program with a message if it can't be understood.

    Raises:
        DemoError: things are asked for that don't go together.
    """
    parsed = vars(_parser().parse_args(arguments))
    url = parsed.pop("url")
    options = Options(**parsed, url=None if url is None else url.rstrip("/"))
    _check_together(options)
    return options


def request_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """What every request says of who sends it."""
    key = environment.get(API_KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _check_together(options: Options) -> None:
    if options.url is None:
        return
    if options.needs_own:
        raise DemoError(
            "--workers and --kill-worker are only for an Onsale that the demo starts itself; leave out --url"
        )
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
        raise DemoError(f"--url is {options.url!r}; write it as {DEFAULT_URL}")
    if is_loopback(parts.hostname):
        return
    if not options.anywhere:
        raise DemoError(
            f"{parts.hostname} is another machine, and {options.buyers:,} buyers at once may be more than its"
            " owner likes; say --anywhere if they know"
        )
    if options.compare:
        raise DemoError("--compare needs both on this machine; leave out --url, or --compare")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Thousands of buyers rush for the same tickets; then every answer is checked against the"
        f" ledger. Uses the Onsale at {DEFAULT_URL}, or starts one for the time of the demo. The exit code is"
        " 0 if all was true, 1 if anything was not, 2 if the demo could not be run.",
        epilog=f"Where Onsale asks who calls, set {API_KEY_VARIABLE} to the API key of an organiser.",
    )
    default = Options()
    whole = {
        "buyers": (BUYERS_MAX, "how many come at once"),
        "tickets": (TICKETS_MAX, "how many are on sale"),
        "seconds": (SECONDS_MAX, "the longest that the stampede may take"),
        "seed": (SEED_MAX, "who asks for how much follows from it"),
        "workers": (WORKERS_MAX, "how many the Onsale that the demo starts has (2)"),
    }
    for name, (maximum, meaning) in whole.items():
        value = getattr(default, name)
        meaning += "" if value is None else f" ({value:,})"
        parser.add_argument(f"--{name}", type=_whole(maximum), default=value, metavar="N", help=meaning)
    rates = {"cancel": "who give back what they got", "greedy": "who ask for more than they may have"}
    for name, meaning in rates.items():
        value = getattr(default, f"{name}_rate")
        parser.add_argument(
            f"--{name}-rate",
            type=_rate,
            default=value,
            metavar="SHARE",
            help=f"share of the buyers {meaning} ({value})",
        )
    parser.add_argument(
        "--kill-worker", action="store_true", help="kill the worker (SIGKILL) that has the line in hand"
    )
    parser.add_argument(
        "--compare", action="store_true", help="the same against a synchronous booking service, side by side"
    )
    parser.add_argument("--url", help="a running Onsale, and no other")
    parser.add_argument("--anywhere", action="store_true", help="let --url be another machine")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write what was seen to this SVG")
    return parser


def _whole(maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= maximum):
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {maximum:,}")
        return int(text)

    return read


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise argparse.ArgumentTypeError("must be a number from 0 to 1")
    return rate
