"""The RQ dashboard as `make up` and the compose file start it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from local.servers import free_port
from tests.builders import wait_until


@contextmanager
def serving_dashboard(environment: dict[str, str], **more: str) -> Iterator[httpx.Client]:
    port = free_port()
    own = {**environment, "RQ_DASHBOARD_REDIS_URL": environment["REDIS_URL"], **more}
    command = [sys.executable, "deploy/dashboard.py", "--port", str(port)]
    process = subprocess.Popen(command, env=own, cwd=environment["PYTHONPATH"])
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, follow_redirects=True)

    def answers() -> bool:
        try:
            return client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()
