"""What is written of the metrics is what the code has, and the alert rules do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.metrics import instruments

NAME = re.compile(r"\bonsale_[a-z_]+")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed; it comes with the Debian package prometheus"
)


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def base_name(name: str) -> str:
    """A metric's name without what Prometheus adds to those of a histogram."""
    stripped = re.sub(r"_(bucket|count|sum)$", "", name)
    return stripped if stripped in instruments() else name


def expressions(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "expr":
                yield value
            else:
                yield from expressions(value)
    elif isinstance(document, list):
        for each in document:
            yield from expressions(each)


def test_every_metric_stands_in_the_docs_with_its_meaning(project_root: Path) -> None:
    rows = re.findall(
        r"^\| `(onsale_\w+)` \| [^|]+ \|[^|]*\| ([^|]+) \|$",
        (project_root / "docs/metrics.md").read_text(),
        re.M,
    )
    assert dict(rows) == instruments()
    assert len(rows) == len(instruments())


def test_names_end_with_their_unit() -> None:
    units = ("_seconds", "_bytes", "_commands", "_total", "_events", "_keys", "_kept", "_violations")
    for name in instruments():
        assert name.endswith((*units, "_up", "_workers")), name


def test_the_dashboard_asks_for_metrics_that_exist_and_for_all_that_alerts_watch(project_root: Path) -> None:
    dashboard = json.loads((project_root / "deploy/grafana/dashboards/onsale.json").read_text())
    asked = {base_name(name) for text in expressions(dashboard) for name in NAME.findall(text)}
    assert asked <= set(instruments())
    assert set(instruments()) - asked == {"onsale_redis_up", "onsale_verify_time_seconds"}
    positions = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(positions)) == len(positions)


def test_the_alert_rules_ask_for_metrics_that_exist(project_root: Path) -> None:
    rules = (project_root / "deploy/prometheus/alerts.yml").read_text()
    asked = {base_name(name) for name in NAME.findall(rules)}
    assert asked
    assert asked <= set(instruments())


def test_what_alerts_count_is_told_from_the_start(project_root: Path) -> None:
    """A new process counts nothing yet: an alert on growth needs the zero before the first one."""
    rules = (project_root / "deploy/prometheus/alerts.yml").read_text()
    counted = re.findall(r"onsale_\w+_total\{[^}]+\}", rules)
    assert len(counted) >= 4
    told = subprocess.run(
        [sys.executable, "-c", "from shared.metrics import exposition; print(exposition().decode())"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [each for each in counted if f"{each} 0.0\n" not in told] == []


def test_the_operator_is_told_what_to_do_about_every_alert(project_root: Path) -> None:
    operations = (project_root / "docs/operations.md").read_text()
    alerts = re.findall(r"- alert: (\w+)", (project_root / "deploy/prometheus/alerts.yml").read_text())
    for alert in alerts:
        assert f"| `{alert}` |" in operations
    tests = (project_root / "deploy/prometheus/alerts_test.yml").read_text()
    assert set(re.findall(r"alertname: (\w+)", tests)) == set(alerts)


def test_prometheus_finds_every_container_by_its_name(project_root: Path) -> None:
    configuration = (project_root / "deploy/prometheus/prometheus.yml").read_text()
    compose = (project_root / "docker-compose.yml").read_text()
    for name, port in (("api", 8000), ("worker", 9100)):
        assert f"names: [{name}]\n        type: A\n        port: {port}\n" in configuration
        assert f"\n  {name}:\n" in compose
    assert "ONSALE_WORKER_METRICS_PORT: 9100" in compose


@needs_promtool
def test_the_alert_rules_fire_when_they_must_and_only_then(project_root: Path) -> None:
    promtool("test", "rules", "alerts_test.yml", folder=project_root / "deploy/prometheus")


@needs_promtool
def test_the_configuration_of_prometheus_is_valid(project_root: Path) -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml", folder=project_root / "deploy/prometheus")
