"""What the README says of the settings is what the code has."""

from __future__ import annotations

from pathlib import Path

from shared.settings import Settings


def test_every_setting_stands_in_the_readme_with_its_default(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text()
    for name, field in Settings.model_fields.items():
        variable = name.upper() if name in ("database_url", "redis_url") else f"ONSALE_{name.upper()}"
        default = "required" if field.is_required() else f"`{field.default}`"
        assert readme.count(f"| `{variable}` | {default} | {field.description} |") == 1, variable
