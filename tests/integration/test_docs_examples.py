"""The examples in the documents, run as they are printed; what a document prints as output is what comes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.settings import Settings
from tests.conftest import StartWorker

PROJECT = Path(__file__).parent.parent.parent
SECONDS_MAX = 60
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_END = "--- end of example ---"
_PRINTED_HOST = "http://localhost:8000"
_PRINTED_SERVERS = ". .data/environment"
_PRINTED_PROGRAMS = ".venv/bin/"
_ANYTHING = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Commands for a shell, and the output printed below them, if any; `…` stands for anything."""

    commands: str
    output: str | None


def examples_in(document: str) -> list[Example]:
    """The commands of a document that need Onsale, each with the block that follows as its output."""
    blocks = list(_BLOCK.finditer(document))
    examples = []
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] == "bash" and (_PRINTED_HOST in block[2] or _PRINTED_SERVERS in block[2]):
            follows = following is not None and document[block.end() : following.start()].strip() == ""
            output = following[2] if following is not None and follows and following[1] == "json" else None
            examples.append(Example(commands=block[2], output=output))
    return examples


def run(examples: list[Example], base_url: str, settings: Settings, directory: Path) -> list[str]:
    """What each example prints, all run in one shell, so that later ones know what earlier ones set."""
    script = "".join(f"{example.commands}\necho; echo '{_END}'\n" for example in examples)
    servers = f"export DATABASE_URL='{settings.database_url}' REDIS_URL='{settings.redis_url}'"
    for printed, here in (
        (_PRINTED_HOST, base_url),
        (_PRINTED_SERVERS, servers),
        (_PRINTED_PROGRAMS, f"{Path(sys.executable).parent}/"),
    ):
        script = script.replace(printed, here)
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout.split(f"\n{_END}\n")[:-1]


def matches(printed: str, came: str) -> bool:
    """Whether an output is the printed one, which leaves open what it writes as `…`."""
    pattern = ".*?".join(re.escape(part) for part in printed.strip().split(_ANYTHING))
    return re.fullmatch(pattern, came.strip(), re.DOTALL) is not None


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
@pytest.mark.parametrize("document", ["README.md", "docs/api.md", "docs/tour.md"])
def test_the_examples_work_as_printed(
    api: httpx.Client, start_worker: StartWorker, settings: Settings, tmp_path: Path, document: str
) -> None:
    start_worker()
    examples = examples_in((PROJECT / document).read_text())
    assert examples
    printed = run(examples, str(api.base_url), settings, tmp_path)
    for example, came in zip(examples, printed, strict=True):
        assert example.output is None or matches(example.output, came), f"{example.commands}\ngave\n{came}"


def test_an_output_that_differs_is_noticed() -> None:
    assert matches('{"id":"…","n":2}', '{"id":"01a2","n":2}\n')
    assert not matches('{"id":"…","n":2}', '{"id":"01a2","n":3}')
    assert not matches("a", "a b")
