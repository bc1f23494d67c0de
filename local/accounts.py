"""Under which account PostgreSQL runs: it refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.errors import ServerFailed
from local.leash import leash_holds

_REMEDY = "run `make up` as an ordinary user, or set DATABASE_URL to a PostgreSQL that runs elsewhere"
_PROBE_SECONDS_MAX = 30.0

# Lets the account pass through folders of root, such as /root itself: a checkout works wherever it is, and no
# folder above it has to change its mode.
_CAPABILITIES = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
# PostgreSQL looks at its own programs with access(2), which heeds a capability only with this bit.
_HEEDED_BY_ACCESS = ("--securebits=+no_setuid_fixup",)
# From most to least; a container may forbid some of it, and may do without where its folders are open.
_WAYS = ((*_CAPABILITIES, *_HEEDED_BY_ACCESS), _CAPABILITIES, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account without privileges, by number."""

    user: int
    group: int

    def give(self, path: Path) -> None:
        """Make this account the owner of a file or folder (not of what is in it)."""
        os.chown(path, self.user, self.group)


def account_for(data_directory: Path) -> Account | None:
    """The account that can run PostgreSQL on this folder; None means the present one, which isn't root.

    Data that already belong to an ordinary user stay theirs; all else goes to `nobody`.

    Raises:
        ServerFailed: this is root, and there is no account `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if data_directory.exists() and data_directory.stat().st_uid != 0:
        status = data_directory.stat()
        return Account(user=status.st_uid, group=status.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise ServerFailed(
            f"PostgreSQL can't run as root, and there is no account `nobody`; {_REMEDY}"
        ) from error
    return Account(user=nobody.pw_uid, group=nobody.pw_gid)


def command_prefix(account: Account, program: Path, death_signal: signal.Signals) -> list[str]:
    """What to put before a command of root so that it runs as `account`, leashed where that is possible.

    `program` is tried out, with its option `--version`.

    Raises:
        ServerFailed: there is no way to do it here.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServerFailed(f"PostgreSQL can't run as root, and `setpriv` (util-linux) is missing; {_REMEDY}")
    change = [setpriv, f"--reuid={account.user}", f"--regid={account.group}", "--clear-groups"]
    reasons = []
    for way in _WAYS:
        prefix = [*change, *way]
        reason = _try_out([*prefix, str(program), "--version"])
        if reason is None:
            # A change of user takes off a leash that was there before; so setpriv puts it on, at its end.
            leash = ["--pdeathsig", death_signal.name.removeprefix("SIG")] if leash_holds() else []
            return [*prefix, *leash, "--"]
        reasons.append(reason)
    raise ServerFailed(f"PostgreSQL can't run as root, nor as `nobody` here ({reasons[-1]}); {_REMEDY}")


def _try_out(command: Sequence[str]) -> str | None:
    """Run a command; None if it succeeds, else why not."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, cwd="/", timeout=_PROBE_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PROBE_SECONDS_MAX:.0f} s"
    return None if result.returncode == 0 else result.stderr.strip() or f"exit code {result.returncode}"
