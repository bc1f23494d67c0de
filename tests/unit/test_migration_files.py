"""Migrations of tables that every batch writes to use the steps of `shared.database.online`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

VERSIONS = Path(__file__).parent.parent.parent / "shared" / "database" / "migrations" / "versions"
ALL = sorted(VERSIONS.glob("*.py"))
BUSY_TABLES = {"events", "bookings", "ledger"}

BEFORE_ONLINE = {"0001", "0002"}
"""They were there before anybody could sell, and seal what is there: sales stand still meanwhile."""

HOLDS_UP_SELLERS = {
    "create_index": "use online.create_index",
    "drop_index": "use online.drop_index",
    "create_check_constraint": "use online.replace_check",
    "create_unique_constraint": "make the index with online.create_index first",
    "create_primary_key": "make the index with online.create_index first",
    "create_foreign_key": "add it NOT VALID, and validate it outside of the transaction",
    "alter_column": "add a new column instead; for NOT NULL, validate a check constraint first",
}
_RAW_INDEX = re.compile(r"\b(CREATE (UNIQUE )?|DROP )INDEX (?!CONCURRENTLY)", re.IGNORECASE)


def texts_in(node: ast.AST) -> set[str]:
    constants = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return {value for value in constants if isinstance(value, str)}


def problems_in(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _RAW_INDEX.search(node.value):
            found.append("an index without CONCURRENTLY: use online.create_index or online.drop_index")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        is_op = isinstance(node.func.value, ast.Name) and node.func.value.id == "op"
        remedy = HOLDS_UP_SELLERS.get(node.func.attr)
        if is_op and remedy and (texts_in(node) & BUSY_TABLES or node.func.attr == "drop_index"):
            found.append(f"op.{node.func.attr}: {remedy}")
    return found


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_migration_holds_up_nobody_who_sells(path: Path) -> None:
    if path.stem[:4] not in BEFORE_ONLINE:
        assert problems_in(path.read_text()) == []


@pytest.mark.parametrize(
    "statement",
    [
        'op.create_index("x", "bookings", ["user_id"])',
        'op.create_index(op.f("x"), table_name="ledger", columns=["kind"])',
        'op.drop_index("x")',
        'op.create_check_constraint("x", "ledger", "true")',
        'op.create_foreign_key("x", "payments", "bookings", ["id"], ["id"])',
        'op.alter_column("events", "name", nullable=False)',
        'op.execute("CREATE UNIQUE INDEX x ON bookings (id)")',
    ],
)
def test_what_would_hold_them_up_is_found(statement: str) -> None:
    assert len(problems_in(statement)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        'online.create_index("x", "bookings", ["user_id"])',
        'op.add_column("events", sa.Column("x", sa.Text(), nullable=True))',
        'op.create_index("x", "webhooks", ["url"])',
    ],
)
def test_what_does_not_is_let_through(statement: str) -> None:
    assert problems_in(statement) == []
