"""What the README says of settings and errors is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from shared.domain import OutcomeCode
from shared.settings import Settings


def test_every_setting_stands_in_the_readme_with_its_default(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text()
    for name, field in Settings.model_fields.items():
        variable = name.upper() if name in ("database_url", "redis_url") else f"ONSALE_{name.upper()}"
        default = "required" if field.is_required() else f"`{field.default}`"
        assert readme.count(f"| `{variable}` | {default} | {field.description} |") == 1, variable


def test_every_error_stands_in_the_readme(project_root: Path) -> None:
    code = "".join(path.read_text() for path in (project_root / "api").rglob("*.py"))
    named = set(re.findall(r"\bproblem\(\s*\"([a-z-]+)\"", code))
    # These stand in the code by their outcome.
    named |= {OutcomeCode.COMMAND_UNREADABLE.value, OutcomeCode.POSITION_TAKEN.value}
    _, _, table = (project_root / "README.md").read_text().partition("| type | status | when |")
    first_cells = "".join(line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()[1:])
    assert named <= set(re.findall(r"`([a-z-]+)`", first_cells))
