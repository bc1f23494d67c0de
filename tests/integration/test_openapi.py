"""The OpenAPI document is true: requests made from it find nothing wrong with the running API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx

from shared.api_keys import Role
from shared.database.engine import Database
from shared.settings import Authentication, Settings
from tests.builders import make_key
from tests.conftest import StartWorker
from tests.serving import serving

SECONDS_MAX = 240
REQUEST_SECONDS_MAX = 35


def run_schemathesis(base_url: httpx.URL, project_root: Path, tmp_path: Path, *options: str) -> None:
    """Every check there is, with the same requests each time."""
    finished = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis",
            *("run", f"{base_url}/openapi.json"),
            *("--checks", "all", "--continue-on-failure", "--no-color"),
            # Both DELETEs are commands: a cancelled booking and a withdrawn job stay to be read.
            *("--exclude-checks", "use_after_free"),
            *("--seed", "1", "--generation-deterministic", "--max-examples", "20"),
            *("--request-timeout", str(REQUEST_SECONDS_MAX)),
            *options,
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.openapi_hooks", "PYTHONPATH": str(project_root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert finished.returncode == 0, finished.stdout[-8_000:] + finished.stderr[-2_000:]
    assert "Unresolvable references" not in finished.stdout


def test_the_document_is_true(
    api: httpx.Client, start_worker: StartWorker, project_root: Path, tmp_path: Path
) -> None:
    start_worker()
    run_schemathesis(api.base_url, project_root, tmp_path)


def test_the_document_is_true_of_an_api_that_asks_who_calls(
    settings: Settings,
    database: Database,
    start_worker: StartWorker,
    project_root: Path,
    tmp_path: Path,
) -> None:
    start_worker()
    _, token = make_key(database, Role.ORGANISER, "acme")
    with serving(settings, auth=Authentication.REQUIRED) as served:
        credentials = ("--header", f"Authorization: Bearer {token}")
        run_schemathesis(served.client.base_url, project_root, tmp_path, *credentials)
