"""The secrets with which messages are signed."""

from __future__ import annotations

import secrets
from base64 import b64encode

_SECRET_BYTES = 32
_PREFIX = "whsec_"


def new_secret() -> str:
    """A new secret in the form of standardwebhooks.com: 256 random bits as base64."""
    return _PREFIX + b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
