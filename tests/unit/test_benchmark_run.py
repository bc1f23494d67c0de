"""What the benchmark does with measures that break, with its floors, and with its exit status."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench import report
from bench.__main__ import duration, exit_status, main, measure_all
from bench.catalogue import MEASURES, QUICK, Measure
from bench.floors import FLOORED, SHARE, Floor, caution, floors_of
from bench.options import QUICK as QUICK_OPTIONS
from bench.options import Options
from bench.outcome import Outcome
from bench.processes import BenchmarkError
from bench.record import Record
from tests.unit.test_benchmark_record import FIRST, ORDER, first_record, outcome

FLOOR = Floor(measure="drain", figure="share", written=0.02, processor="a quick one")


def drained(share: object) -> dict[str, Outcome]:
    return {
        "drain": Outcome(title="", explanation="", columns=(), rows=(), goals=(), figures={"share": share})
    }


def a_measure(result: Outcome | Exception) -> Measure:
    def run(options: Options, say: object) -> Outcome:
        if isinstance(result, Exception):
            raise result
        return result

    return Measure(run=run, seconds=lambda options: 1.0)


@pytest.mark.parametrize("error", [BenchmarkError("counts disagree"), OSError(24, "Too many open files")])
def test_a_measure_that_breaks_is_told_and_the_others_go_on(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    measures = {
        "drain": a_measure(outcome("drain")),
        "quiet": a_measure(error),
        "growth": a_measure(outcome("growth")),
    }
    outcomes = measure_all(ORDER, measures, Options(), lambda line: None)
    assert list(outcomes) == ["drain", "growth"]
    told = capsys.readouterr().err
    assert "quiet was not measured:\nTraceback" in told
    assert str(error) in told
    assert exit_status(ORDER, outcomes) == 1


def test_a_run_is_a_success_only_if_nothing_is_missing_and_nothing_broke() -> None:
    outcomes = {name: outcome(name) for name in ORDER}
    assert exit_status(ORDER, outcomes) == 0
    assert exit_status(["drain"], outcomes) == 0
    assert exit_status([*ORDER, "memory"], outcomes) == 1
    assert exit_status(ORDER, outcomes, ["docs/costs.json"]) == 1


@dataclass
class Bench:
    """The command with measures of a moment, on a copy of the documents."""

    monkeypatch: pytest.MonkeyPatch
    renewed: list[bool]

    def run(self, *arguments: str, **measured: Outcome | Exception) -> int:
        self.monkeypatch.setattr("sys.argv", ["bench", *arguments])
        for name in MEASURES:
            self.monkeypatch.setitem(MEASURES, name, a_measure(measured.get(name, outcome(name))))
        return main()

    def documents(self) -> tuple[str, str]:
        return report.JSON_FILE.read_text(), report.PAGE.read_text()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    renewed: list[bool] = []

    def renew(occasion: object, *, is_full: bool) -> list[str]:
        renewed.append(is_full)
        return []

    for name in ("JSON_FILE", "PAGE"):
        file: Path = getattr(report, name)
        monkeypatch.setattr(report, name, tmp_path / file.name)
        (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.setattr(report, "PLOTS", tmp_path / "benchmarks")
    monkeypatch.setattr("bench.__main__.ensure_wrk", lambda: "wrk")
    monkeypatch.setattr("bench.__main__.this_occasion", lambda directory, wrk: FIRST)
    monkeypatch.setattr("bench.__main__._renew", renew)
    # SIGTERM stays pytest's, and its limit of open files its own.
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("bench.__main__.allow_clients", lambda count, say: None)
    return Bench(monkeypatch, renewed)


def test_a_run_of_all_writes_a_new_heading_and_renews_the_costs(bench: Bench) -> None:
    assert bench.run() == 0
    written = report.read()
    assert written is not None
    assert written.heading == FIRST
    assert {entry.occasion for entry in written.entries.values()} == {FIRST}
    assert bench.renewed == [True]


def test_a_run_of_all_but_one_that_breaks_keeps_its_older_figures_and_fails(bench: Bench) -> None:
    older = report.read()
    assert older is not None
    assert bench.run(quiet=OSError("no room")) == 1
    written = report.read()
    assert written is not None
    assert written.heading == FIRST
    assert written.entries["quiet"] == older.entries["quiet"]
    assert written.entries["drain"].occasion == FIRST


def test_a_run_of_some_writes_them_and_renews_no_costs(bench: Bench) -> None:
    older = report.read()
    assert older is not None
    assert bench.run("--only", "quiet") == 0
    written = report.read()
    assert written is not None
    assert written.heading == older.heading
    assert list(written.entries) == list(older.entries)
    assert [name for name, entry in written.entries.items() if entry.occasion == FIRST] == ["quiet"]
    assert bench.renewed == [False]


def test_a_dry_run_leaves_all_documents_alone(bench: Bench) -> None:
    before = bench.documents()
    assert bench.run("--dry") == 0
    assert (bench.documents(), bench.renewed) == (before, [])


def test_a_run_in_which_nothing_could_be_measured_writes_nothing(bench: Bench) -> None:
    """Not even the heading, which would be of a run that has no figures."""
    before = bench.documents()
    assert bench.run(**dict.fromkeys(MEASURES, OSError("no room"))) == 1
    assert (bench.documents(), bench.renewed) == (before, [])


@pytest.mark.parametrize(("share", "status"), [(SHARE + 0.01, 0), (SHARE - 0.01, 1)])
def test_a_quick_run_fails_where_a_floor_is_not_held_and_writes_nothing(
    bench: Bench, share: float, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    figures: dict[str, dict[str, object]] = {name: {} for name in QUICK}
    for floor in floors_of(report.read(), QUICK):
        figures[floor.measure][floor.figure] = floor.written
    figures["drain"]["share_of_copy"] = share * floors_of(report.read(), ["drain"])[0].written
    before = bench.documents()
    bench.monkeypatch.setattr("bench.__main__.describe_servers", lambda directory: None)
    bench.monkeypatch.setattr("bench.__main__.this_processor", lambda: "another one")
    measured = {name: replace(outcome(name), figures=figures[name]) for name in QUICK}
    assert bench.run("--quick", **measured) == status
    assert (bench.documents(), bench.renewed) == (before, [])
    told = capsys.readouterr().out
    assert ("UNDER ITS FLOOR" in told) == bool(status)
    assert "; this is another one, where ratios differ." in told


def test_a_floor_is_a_share_of_what_was_reached() -> None:
    assert pytest.approx(0.014) == FLOOR.least == SHARE * FLOOR.written
    assert FLOOR.is_held(drained(0.014))
    assert not FLOOR.is_held(drained(0.0139))
    assert not FLOOR.is_held({})


def test_a_floor_says_what_it_is_and_what_was_reached() -> None:
    assert FLOOR.verdict(drained(0.5)) == "drain, share: 0.50 (floor 0.01, 70% of 0.02): held"
    assert FLOOR.verdict(drained(0)) == "drain, share: 0.00 (floor 0.01, 70% of 0.02): UNDER ITS FLOOR"
    assert FLOOR.verdict({}) == "drain, share: not measured (floor 0.01, 70% of 0.02)"


def test_where_floors_come_from_another_processor_it_is_said() -> None:
    unknown = replace(FLOOR, processor=None)
    assert caution([FLOOR], "a quick one") is None
    assert caution([FLOOR, FLOOR], "a slow one") == (
        "The floors were reached on a quick one; this is a slow one, where ratios differ."
        " `make bench` writes down what is reached here."
    )
    told = caution([FLOOR, unknown], "a quick one")
    assert told is not None
    assert "reached on an unknown processor; this is a quick one" in told


def test_the_floors_are_taken_from_the_figures_that_are_written_down() -> None:
    record = report.read()
    assert record is not None
    floors = floors_of(record, QUICK)
    assert [(floor.measure, floor.figure) for floor in floors] == list(FLOORED)
    assert all(
        floor.written == record.entries[floor.measure].outcome.figures[floor.figure] for floor in floors
    )
    assert all(floor.least > 0 for floor in floors)
    machines = [record.entries[floor.measure].occasion.machine for floor in floors]
    assert [floor.processor for floor in floors] == [machine and machine.processor for machine in machines]


def test_floors_are_asked_only_of_what_is_measured() -> None:
    record = report.read()
    assert [floor.measure for floor in floors_of(record, ["accepts"])] == ["accepts"]


@pytest.mark.parametrize("record", [None, first_record("drain")])
def test_a_floor_without_a_figure_is_an_error(record: Record | None) -> None:
    with pytest.raises(BenchmarkError, match="no share_of_copy of drain; run `make bench` first"):
        floors_of(record, ["drain"])


def test_the_quick_run_is_meant_to_take_less_than_a_minute() -> None:
    assert sum(MEASURES[name].seconds(QUICK_OPTIONS) for name in QUICK) <= 50


def test_how_long_it_takes_is_said_in_seconds_where_that_is_short() -> None:
    assert [duration(seconds) for seconds in (49.6, 120, 150, 1_800)] == [
        "50 seconds",
        "120 seconds",
        "2 minutes",
        "30 minutes",
    ]
