"""How processes log in to the PostgreSQL of this machine: each as its own role, with a new password."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from local.postgres import PASSWORD_BYTES
from local.secret_files import write_secret
from shared.database.roles import RIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """The URL of each role, and where the migration finds their passwords."""

    urls: dict[str, str]
    passwords_directory: Path


def make_logins(owner_url: str, passwords_directory: Path) -> Logins:
    """Make a new password for each role; the next migration gives it to them."""
    server = urlsplit(owner_url)
    urls = {}
    for role in RIGHTS:
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        (passwords_directory / role).mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(passwords_directory / role / "password", password + "\n")
        urls[role] = f"postgresql://{role}:{password}@{server.hostname}:{server.port}{server.path}"
    return Logins(urls=urls, passwords_directory=passwords_directory)
