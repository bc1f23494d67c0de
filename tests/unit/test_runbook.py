"""The operator's page knows every alert and every fault that we know of."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.storm import faults


def test_every_alert_has_its_row(project_root: Path) -> None:
    rules = yaml.safe_load((project_root / "deploy/prometheus/alerts.yml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    page = (project_root / "docs/operations.md").read_text()
    assert alerts
    assert [alert for alert in alerts if f"| `{alert}` |" not in page] == []


def test_every_fault_of_the_storm_has_its_row(project_root: Path) -> None:
    page = (project_root / "docs/operations.md").read_text()
    first_cells = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| "))
    kinds = (*faults._PROCESSES, *faults._NETWORK, *faults._DATA, *faults._DISKS, *faults._CLOCKS)
    names = [*(kind.name for kind in kinds), faults.TWO_AT_ONCE]
    assert names
    assert [name for name in names if name not in first_cells] == []
