"""The breaks of `tests.mutations` still break what they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_what_a_mutation_replaces_is_there_once(mutation: Mutation, project_root: Path) -> None:
    text = (project_root / mutation.path).read_text()
    assert text.count(mutation.old) == 1
    if mutation.path.endswith(".py"):
        compile(text.replace(mutation.old, mutation.new), mutation.path, "exec")
    for test in mutation.test.split():
        assert (project_root / test.partition("::")[0]).exists()


def test_every_invariant_has_a_mutation() -> None:
    assert {mutation.invariant for mutation in MUTATIONS} == {f"I{number}" for number in range(1, 11)}
