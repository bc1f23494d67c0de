"""What the person at the terminal is told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from local.errors import LocalError
from local.settings import DASHBOARD_HOST, LocalSettings

STANDARD_OUTPUT = 1

_AUTHENTICATION_OFF = "AUTHENTICATION IS OFF: whoever can use this machine may do anything."
_AUTHENTICATION_ON = "Callers need an API key (`python -m api keys`, with the variables below) or a token."


def reachable_host(host: str) -> str:
    """Where a client on this machine finds a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (nothing is bound)


def describe(settings: LocalSettings, environment: Mapping[str, str], environment_file: Path) -> str:
    """What the person at the terminal wants to know once all is running. Passwords are left out."""
    host = reachable_host(settings.api_host)
    api = f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"
    return f"""
onsale: ready, with {settings.workers} worker{"s" if settings.workers > 1 else ""}.

  API          {api}
  API guide    {api}/docs
  Dashboard    http://{DASHBOARD_HOST}:{settings.dashboard_port}
  PostgreSQL   {without_password(environment["DATABASE_URL"])}
  Redis        {without_password(environment["REDIS_URL"])}
  Data         {settings.data_directory}

{_AUTHENTICATION_ON if settings.asks_who_calls else _AUTHENTICATION_OFF}
For tools such as psql and rq, `. {quote(str(environment_file))}` sets DATABASE_URL and REDIS_URL.
Ctrl-C stops everything; the data are kept.
"""


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    credentials, at, location = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user}:***" if colon else user
    return urlunsplit(parts._replace(netloc=f"{shown}{at}{location}"))


def describe_exit(code: int) -> str:
    """An exit code of `subprocess` in words; a negative one is the signal that killed the process."""
    if -code in {number.value for number in signal.Signals}:
        return f"status {code} ({signal.Signals(-code).name})"
    return f"status {code}"


def quote(text: str) -> str:
    """The text as one word of a shell, always in single quotes."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def complain(error: LocalError) -> None:
    """Say what was in the way."""
    say(f"onsale: {error}", sys.stderr.fileno())


def say(text: str, output: int = STANDARD_OUTPUT) -> None:
    """Write a line at once, also from a signal handler; nobody may be listening any more."""
    with suppress(OSError):
        os.write(output, f"{text}\n".encode())
