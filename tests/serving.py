"""The API on a socket of its own, in a thread or as a process; and a reader of streams."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from api.context import ApiContext
from api.main import create_app
from local.servers import free_port
from shared.settings import Settings
from tests.builders import wait_until

ONE_WRITE = "api.http_protocol:HttpProtocol"

SERVE = ("api", "serve")
"""What Python runs as a module to serve the API as `make up` does."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """An API that runs in a thread. `client` is for one thread."""

    client: httpx.Client
    context: ApiContext
    address: tuple[str, int]


@contextmanager
def serving(
    settings: Settings,
    *,
    http: str = ONE_WRITE,
    access_log: bool = False,
    limit_concurrency: int | None = None,
    **changes: Any,
) -> Iterator[Serving]:
    """An API with some settings changed; the others are uvicorn's."""
    app = create_app(settings.model_copy(update=changes))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address: tuple[str, int] = listener.getsockname()
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=http,
                access_log=access_log,
                limit_concurrency=limit_concurrency,
                log_level="info" if access_log else "warning",
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=30, verify=False) as client:
                yield Serving(client=client, context=app.state.context, address=address)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def api_process(
    settings: Settings, served_by: Sequence[str], root: Path, **more: str
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The API as it is run in earnest, by itself or by uvicorn alone."""
    port = free_port()
    command = [sys.executable, "-m", *served_by, "--port", str(port)]
    environment = {
        **os.environ,
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "ONSALE_WAIT_SECONDS_MAX": "300",
        "ONSALE_LOG_LEVEL": "error",
        **more,
    }
    process = subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.PIPE)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, verify=False) as client:
            wait_until(lambda: _answers(client))
            yield process, client
    finally:
        process.kill()
        process.communicate()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def read_to_end(connection: socket.socket, *, may_be_reset: bool = False) -> bytes:
    """What a server sends until it hangs up. It resets a connection of which it has not read all."""
    received = b""
    try:
        while part := connection.recv(65_536):
            received += part
    except ConnectionResetError:
        if not may_be_reset:
            raise
    return received


@dataclass(frozen=True, kw_only=True)
class Told:
    """One event of a stream; a heartbeat is one whose name is empty."""

    name: str
    id: str
    retry: int | None
    job: dict[str, Any]


def told(answer: httpx.Response) -> Iterator[Told]:
    """The events of a stream, as they come."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif fields:
            yield Told(
                name=fields.get("event", ""),
                id=fields.get("id", ""),
                retry=int(fields["retry"]) if "retry" in fields else None,
                job=json.loads(fields.get("data", "{}")),
            )
            fields = {}
