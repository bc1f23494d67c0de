"""Which ports are free."""

from __future__ import annotations

import random
import socket

from local.errors import PortTaken

# Below the range from which Linux and macOS take the ports of outgoing connections. A server that restarts
# on a port from that range may find it taken by a client, or see a client connect to itself.
_PORTS = range(20_000, 32_000)
_ATTEMPTS_MAX = 200
_LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment.

    Raises:
        PortTaken: none was found.
    """
    for port in random.sample(_PORTS, _ATTEMPTS_MAX):
        try:
            check_port(_LOOPBACK, port)
        except OSError:
            continue
        return port
    raise PortTaken(f"none of {_ATTEMPTS_MAX} ports of {_LOOPBACK} is free; stop what listens there")


def check_port(host: str, port: int) -> None:
    """Listen on the port for a moment.

    Raises:
        OSError: that isn't possible, with the system's reason.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of an earlier run that fade away are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
