"""What can be set for `make up`, read from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.errors import BadSetting
from shared.loopback import is_loopback

WORKERS_MAX = 64
PORT_MAX = 65_535
DASHBOARD_HOST = "127.0.0.1"

_POSTGRES_SCHEMES = ("postgresql://",)
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """How to run everything on this machine. A URL that is None means: start a server for it."""

    workers: int
    api_host: str
    asks_who_calls: bool
    api_port: int
    dashboard_port: int
    database_url: str | None
    redis_url: str | None
    data_directory: Path


def read_settings(environment: Mapping[str, str]) -> LocalSettings:
    """Read the settings; a variable that is empty counts as not set.

    Raises:
        BadSetting: a value can't be used; the message names the variable and what it may be.
    """
    settings = LocalSettings(
        workers=_whole_number(environment, "WORKERS", default=2, maximum=WORKERS_MAX),
        api_host=environment.get("API_HOST") or "127.0.0.1",
        asks_who_calls=environment.get("ONSALE_AUTH") == "required",
        api_port=_whole_number(environment, "API_PORT", default=8000, maximum=PORT_MAX),
        dashboard_port=_whole_number(environment, "DASHBOARD_PORT", default=9181, maximum=PORT_MAX),
        database_url=_url(environment, "DATABASE_URL", _POSTGRES_SCHEMES),
        redis_url=_url(environment, "REDIS_URL", _REDIS_SCHEMES),
        data_directory=Path(environment.get("ONSALE_DATA_DIRECTORY") or ".data").absolute(),
    )
    is_open = not settings.asks_who_calls and environment.get("ONSALE_AUTH_OFF_ANYWHERE") != "true"
    if is_open and not is_loopback(settings.api_host):
        raise BadSetting(
            f"API_HOST is {settings.api_host}, where others can reach the API, and authentication is off; set"
            " ONSALE_AUTH=required too"
        )
    if settings.api_port == settings.dashboard_port:
        raise BadSetting(
            f"API_PORT and DASHBOARD_PORT are both {settings.api_port}; set one of them to another port"
        )
    return settings


def _whole_number(environment: Mapping[str, str], variable: str, *, default: int, maximum: int) -> int:
    text = environment.get(variable) or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= maximum):
        raise BadSetting(f"{variable} is {text!r}; set it to a whole number from 1 to {maximum}")
    return int(text)


def _url(environment: Mapping[str, str], variable: str, schemes: tuple[str, ...]) -> str | None:
    url = environment.get(variable) or None
    if url is not None and not url.startswith(schemes):
        # The value isn't repeated: it may hold a password.
        raise BadSetting(
            f"{variable} must begin with {' or '.join(schemes)}; correct it, or unset it to have "
            "a server started for you"
        )
    return url
