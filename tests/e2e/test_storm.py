"""A short storm over the whole product: nothing is lost, doubled, out of order or answered wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.director import StormOptions, run_storm
from tests.storm.report import render_violations

SEED = 20


@pytest.mark.timeout(300)
def test_a_short_storm_breaks_no_promise(tmp_path: Path) -> None:
    options = StormOptions(seconds=25, clients=40, events=5, seed=SEED)
    lines: list[str] = []
    result = run_storm(options, tmp_path, lines.append)
    assert not result.verdict.violations, "\n".join([*lines, render_violations(result)])
    assert result.verdict.accepted > options.clients
    assert len(result.recovery_seconds) > 3
