"""Makes the passwords of a fresh installation, each in a folder of its own; those that are there stay.

`python make_secrets.py <folder>`: the folder has one for each secret, a volume that only its users mount.
"""

from __future__ import annotations

import secrets
import sys
from hashlib import sha256
from pathlib import Path

PASSWORDS = (
    "owner",
    "onsale_api",
    "onsale_worker",
    "onsale_webhooks",
    "redis",
    "redis_operator",
    "dashboard_redis",
    "dashboard_login",
)
REDIS_PASSWORDS = {"onsale": "redis", "operator": "redis_operator", "dashboard": "dashboard_redis"}
"""Which password is whose."""

PASSWORD_BYTES = 24
READABLE = 0o444
"""By the user of the one container that mounts the folder, whoever that is."""

# The dashboard sees and requeues what is RQ's. The operator, who reaches the server's container, may do all:
# no process of ours has that password. Nobody is let in without a password. Nobody can log in as
# the default user either, but it may do all: Redis and Valkey from before 2026 read their append-only file as
# that user, and leave out what it may not do, without an error (github.com/redis/redis/issues/14541). That
# would be every waiting command.
REDIS_USERS = """user default off resetpass ~* &* +@all
user onsale on #{onsale} ~* &* +@all -@admin +config|get
user operator on #{operator} ~* &* +@all
user dashboard on #{dashboard} ~rq:* &* +@all -@admin -@dangerous +info +keys
"""


def main(folder: Path) -> None:
    """Make what is missing."""
    for name in PASSWORDS:
        _write_once(folder / name / "password", secrets.token_urlsafe(PASSWORD_BYTES) + "\n")
    hashes = {
        user: sha256((folder / secret / "password").read_text().strip().encode()).hexdigest()
        for user, secret in REDIS_PASSWORDS.items()
    }
    path = folder / "redis_server" / "users.acl"
    path.write_text(REDIS_USERS.format(**hashes))
    path.chmod(READABLE)


def _write_once(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text)
        path.chmod(READABLE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
