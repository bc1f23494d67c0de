"""docs/api.md lists every call of the OpenAPI document with its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api.main import create_app

BEGIN, END = "<!-- calls:begin -->\n", "<!-- calls:end -->"
_METHODS = ("get", "post", "put", "patch", "delete")


def table_of_calls(document: dict[str, Any]) -> str:
    rows = [
        f"| `{method.upper()} {path}` | {operation['summary']} | {' '.join(sorted(operation['responses']))} |"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS
    ]
    return "\n".join(["| call | | answers |", "| --- | --- | --- |", *rows]) + "\n"


def test_the_table_of_calls_is_that_of_the_document(project_root: Path) -> None:
    page = (project_root / "docs/api.md").read_text()
    written = page.partition(BEGIN)[2].partition(END)[0]
    assert written == table_of_calls(create_app().openapi())


def test_every_call_has_a_summary_and_says_what_its_answers_are() -> None:
    for path, operations in create_app().openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            for status, response in operation["responses"].items():
                assert response["description"], (method, path, status)
                if status.startswith(("4", "5")) and path != "/ready":
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
