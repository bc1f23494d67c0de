"""Tokens of customers: JWT (RFC 7519) from the integrator's identity provider.

The algorithm is fixed by the key that the operator gave, never by the token (RFC 8725, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
from pydantic import TypeAdapter, ValidationError

from api.schemas import UserId
from shared import limits
from shared.settings import Settings

_SECRET_ALGORITHM = "HS256"  # noqa: S105 (a name, no secret)
_PUBLIC_KEY_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_ONLY_KEY = ""
_user_id = TypeAdapter(UserId)


class BadToken(Exception):
    """The token is not good; the message says why, for the log."""


class BadKeyFile(Exception):
    """The file of keys can't be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerToken:
    """What a good token says: who, and until when it is good (seconds since 1970)."""

    user_id: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    key: Any
    algorithm: str


class CustomerTokens:
    """Checks tokens with a secret, or with the public keys of a JWKS file (RFC 7517)."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadKeyFile if there is a file that can't be used."""
        self._settings = settings
        self._file = settings.jwt_jwks_file
        self._file_state: tuple[int, int] | None = None
        self._keys: Mapping[str, _Key] = {}
        if settings.jwt_secret is not None:
            secret = settings.jwt_secret.get_secret_value()
            self._keys = {_ONLY_KEY: _Key(key=secret, algorithm=_SECRET_ALGORITHM)}
        elif self._file is not None:
            self.refresh()

    def refresh(self) -> bool:
        """Read the file of keys again if it has changed; gives whether it had.

        Raises:
            BadKeyFile: it can't be used; the keys that were read before stay.
        """
        if self._file is None:
            return False
        try:
            status = self._file.stat()
            state = (status.st_mtime_ns, status.st_size)
            if state == self._file_state:
                return False
            self._keys = _read_keys(self._file)
            self._file_state = state
            return True
        except OSError as error:
            raise BadKeyFile(f"{self._file}: {error.strerror}") from error

    def read(self, token: str) -> CustomerToken:
        """Who sends this token.

        Raises:
            BadToken: it is not signed by one of the keys, not for us, over, or names no user.
        """
        try:
            key = self._key_of(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=limits.JWT_LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
            return CustomerToken(
                user_id=_user_id.validate_python(claims["sub"]), expires_at=float(claims["exp"])
            )
        except (jwt.PyJWTError, ValidationError, ValueError, TypeError, OverflowError) as error:
            raise BadToken(type(error).__name__) from error

    def _key_of(self, header: Mapping[str, Any]) -> _Key:
        """The key that a token names; it need not name one where there is only one."""
        if len(self._keys) == 1 and (_ONLY_KEY in self._keys or "kid" not in header):
            return next(iter(self._keys.values()))
        key = self._keys.get(str(header.get("kid")))
        if key is None:
            raise BadToken("no key of this name")
        return key


def is_good_at(token: CustomerToken, moment: datetime) -> bool:
    """Whether a token that was read before is good still."""
    return moment.timestamp() < token.expires_at + limits.JWT_LEEWAY_SECONDS


def _read_keys(path: Path) -> Mapping[str, _Key]:
    with path.open("rb") as file:
        content = file.read(limits.JWKS_FILE_BYTES_MAX + 1)
    if len(content) > limits.JWKS_FILE_BYTES_MAX:
        raise BadKeyFile(f"{path} has more than {limits.JWKS_FILE_BYTES_MAX} bytes")
    try:
        keys = jwt.PyJWKSet.from_json(content.decode()).keys
    except (jwt.PyJWTError, ValueError, AttributeError) as error:
        raise BadKeyFile(f"{path} is not a set of keys (RFC 7517): {error}") from error
    found = {str(key.key_id): _Key(key=key.key, algorithm=key.algorithm_name) for key in keys}
    if len(found) < len(keys) or any(key.algorithm not in _PUBLIC_KEY_ALGORITHMS for key in found.values()):
        raise BadKeyFile(f"{path}: give each key a `kid` of its own, and public keys only")
    return found
