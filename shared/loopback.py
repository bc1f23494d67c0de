"""Which addresses only this machine can reach."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_HOSTS_REMEMBERED = 256


@lru_cache(maxsize=_HOSTS_REMEMBERED)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
