"""Who may know whom, read from the imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = [path for part in ("api", "shared", "worker") for path in sorted((ROOT / part).rglob("*.py"))]


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def top_level(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported_modules(path)}


def files_importing(package: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in CODE if package in top_level(path)}


def files_calling(name: str) -> set[str]:
    found = set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == name:
                found.add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("part", "others"),
    [("shared", {"api", "worker"}), ("api", {"worker"}), ("worker", {"api"})],
)
def test_a_part_knows_only_the_parts_below_it(part: str, others: set[str]) -> None:
    for path in sorted((ROOT / part).rglob("*.py")):
        assert not top_level(path) & (others | {"local", "tests", "bench", "demo"}), path


def test_the_rules_import_the_standard_library_and_what_their_values_are_made_of() -> None:
    assert top_level(ROOT / "shared/domain.py") <= {*sys.stdlib_module_names, "msgspec"}
    assert not top_level(ROOT / "shared/domain.py") & {"time", "random", "os", "socket"}
    assert "shared/domain.py" not in files_calling("now") | files_calling("utcnow") | files_calling("today")


def test_only_the_line_speaks_to_redis_and_rq() -> None:
    allowed = {path for path in files_importing("redis") if path.startswith("shared/line/")}
    assert files_importing("redis") == allowed
    outside = {path for path in files_importing("rq") if not path.startswith("shared/line/")}
    # RQ's stock worker tells the function that it calls which job it is in.
    assert outside == {"worker/stock.py"}


def test_only_the_sender_of_webhooks_makes_http_requests() -> None:
    # The other one reads URLs as the sender does.
    assert files_importing("httpx") == {"shared/webhooks/addresses.py", "worker/webhooks/sender.py"}


def test_only_the_database_package_writes_sql() -> None:
    drivers = files_importing("sqlalchemy") | files_importing("psycopg2") | files_importing("alembic")
    outside = {path for path in drivers if not path.startswith("shared/database/")}
    # These name the type of the connection that they hand on.
    assert outside == {"api/box_office.py", "worker/batch.py", "worker/webhooks/make.py"}
    for path in outside:
        assert "text(" not in (ROOT / path).read_text()
        assert "execute(" not in (ROOT / path).read_text()


def test_one_context_manager_commits() -> None:
    begins = files_calling("begin") | files_calling("commit")
    assert begins == {"shared/database/engine.py", "shared/database/migrate.py"}
    by_hand = {str(path.relative_to(ROOT)) for path in CODE if '"COMMIT"' in path.read_text()}
    # The other is a store of its own, on disk.
    assert by_hand == {"shared/database/engine.py", "shared/database/scratch.py"}


def test_one_module_reads_the_environment() -> None:
    assert files_calling("environ") | files_calling("getenv") == set()
    assert files_importing("pydantic_settings") == {"shared/settings.py"}


def test_time_comes_from_the_clock() -> None:
    assert files_importing("time") == {"shared/clock.py"}
    assert files_calling("now") >= {"shared/clock.py"}
    for path in CODE:
        if path.name != "clock.py":
            assert "datetime.now" not in path.read_text(), path


def test_files_stay_small_enough_to_hold_in_the_head() -> None:
    for path in CODE:
        assert len(path.read_text().splitlines()) <= 400, path
