"""What `make up` can be told through the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WORKERS_MAX = 64
_PORT_MAX = 65_535


class WrongOption(Exception):
    """A variable has a value that can't be used; the message names it and what to set instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run the product on this machine. A URL that is None means a server of our own."""

    workers: int
    api_host: str
    api_port: int
    dashboard_port: int
    data_directory: Path
    database_url: str | None
    redis_url: str | None


def read_options(environment: Mapping[str, str]) -> Options:
    """Read the options.

    Raises:
        WrongOption: a value is not a number, or out of bounds.
    """
    return Options(
        workers=_number(environment, "WORKERS", default=2, largest=WORKERS_MAX),
        api_host=environment.get("API_HOST") or "127.0.0.1",
        api_port=_number(environment, "API_PORT", default=8000, largest=_PORT_MAX),
        dashboard_port=_number(environment, "DASHBOARD_PORT", default=9181, largest=_PORT_MAX),
        data_directory=Path(environment.get("ONSALE_DATA_DIRECTORY") or ".data").absolute(),
        database_url=environment.get("DATABASE_URL") or None,
        redis_url=environment.get("REDIS_URL") or None,
    )


def _number(environment: Mapping[str, str], name: str, *, default: int, largest: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdigit() or not 1 <= int(text) <= largest:
        raise WrongOption(f"{name}={text}: set {name} to a whole number from 1 to {largest}")
    return int(text)
