"""What the benchmark keeps of earlier runs, and how its page tells the runs apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import report
from bench.machine import Machine
from bench.outcome import Bar, Goal, Outcome
from bench.record import Entry, Occasion, Record, as_json, from_json, merge

MACHINE = Machine(
    processor="Xeon",
    cores=2,
    memory_gib=23.5,
    load_average_before=0.1,
    kernel="Linux 6.18",
    python="3.11.7",
    wrk="wrk 4.1.0",
    postgresql="18.6",
    valkey="9.1.2",
    valkey_appendfsync="always",
    fsync_us_p50=216.0,
    fsync_us_p99=533.0,
    work_p99=1.1,
    work_worst=2.5,
)
FIRST = Occasion(measured_at="2026-11-25 19:34 UTC", commit="aaaaaaa", machine=MACHINE)
SECOND = Occasion(measured_at="2026-11-28 12:52 UTC", commit="bbbbbbb", machine=MACHINE)
ORDER = ("drain", "quiet", "growth")


def outcome(title: str, reached: str = "1.2%") -> Outcome:
    return Outcome(
        title=title,
        explanation=f"About {title}.",
        columns=["", "share"],
        rows=[["in all", reached]],
        goals=[Goal(asked="≤ 2%", reached=reached, met=True)],
        figures={"share": 0.012, "by_part": {"api": 0.01}},
        plot=[Bar(label="in all", value=1.2, ours=True)],
        unit="%",
    )


def first_record(*names: str) -> Record:
    return merge(None, {name: outcome(name) for name in names}, FIRST, order=ORDER, is_full=True)


def test_a_record_is_read_as_it_was_written() -> None:
    record = first_record(*ORDER)
    assert from_json(as_json(record)) == record


def test_what_json_does_not_have_costs_no_figures() -> None:
    odd = replace(outcome("quiet"), figures={"setting": ORDER.__iter__})
    record = Record(heading=FIRST, entries={"quiet": Entry(outcome=odd, occasion=FIRST)})
    assert "setting" in from_json(as_json(record)).entries["quiet"].outcome.figures


def test_a_run_of_some_measures_leaves_heading_and_the_others_as_they_were() -> None:
    older = first_record(*ORDER)
    newer = merge(older, {"quiet": outcome("quiet", "1.9%")}, SECOND, order=ORDER, is_full=False)
    assert newer.heading == FIRST
    assert newer.entries["quiet"] == Entry(outcome=outcome("quiet", "1.9%"), occasion=SECOND)
    assert {name: newer.entries[name] for name in ("drain", "growth")} == {
        name: older.entries[name] for name in ("drain", "growth")
    }


def test_a_measure_that_is_new_wipes_nothing_and_comes_at_its_place() -> None:
    newer = merge(
        first_record("drain", "growth"), {"quiet": outcome("quiet")}, SECOND, order=ORDER, is_full=False
    )
    assert list(newer.entries) == list(ORDER)
    assert newer.heading == FIRST


def test_a_full_run_in_which_a_measure_broke_has_the_new_heading_and_that_measure_as_of_before() -> None:
    measured = {name: outcome(name) for name in ("drain", "growth")}
    newer = merge(first_record(*ORDER), measured, SECOND, order=ORDER, is_full=True)
    assert newer.heading == SECOND
    assert {name: entry.occasion for name, entry in newer.entries.items()} == {
        "drain": SECOND,
        "quiet": FIRST,
        "growth": SECOND,
    }
    assert "### quiet\n\nMeasured 2026-11-25 19:34 UTC at commit aaaaaaa, not in the run above," in (
        report.render(newer)
    )


def test_the_first_run_of_some_measures_is_the_heading() -> None:
    assert merge(None, {"quiet": outcome("quiet")}, SECOND, order=ORDER, is_full=False).heading == SECOND


def test_what_is_no_longer_measured_goes() -> None:
    newer = merge(first_record(*ORDER), {}, SECOND, order=("drain", "growth"), is_full=False)
    assert list(newer.entries) == ["drain", "growth"]


def test_the_page_begins_with_the_goals_and_the_heading() -> None:
    page = report.render(first_record("quiet"))
    assert page.startswith("| measure | goal | measured |  |\n")
    heading = "Measured 2026-11-25 19:34 UTC at commit aaaaaaa on 2 cores of Xeon, 23.5 GiB, Linux 6.18. "
    assert heading in page
    assert "\n\nAbout quiet.\n\n![quiet](benchmarks/quiet.svg)\n\n" in page


def test_pictures_have_files_of_their_own_which_later_runs_leave_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "JSON_FILE", tmp_path / "benchmarks.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "PLOTS", tmp_path / "benchmarks")
    report.PAGE.write_text(f"{report.BEGIN}\n{report.END}\n")
    pictured = replace(outcome("quiet"), pictures={"profile-api": "<svg/>"})
    report.write(merge(None, {"quiet": pictured}, FIRST, order=ORDER, is_full=True))
    kept = report.read()
    assert kept is not None
    report.write(merge(kept, {"drain": outcome("drain")}, SECOND, order=ORDER, is_full=False))
    assert (report.PLOTS / "profile-api.svg").read_text() == "<svg/>"
    assert "<svg/>" not in report.JSON_FILE.read_text()
    assert "](benchmarks/profile-api.svg)\n" in report.PAGE.read_text()


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (MACHINE, "on the same machine. "),
        (
            replace(MACHINE, fsync_us_p50=900.0, work_p99=3.0),
            "on a machine with the same facts. Load average before the run 0.1. Disk: write and fdatasync of"
            " 8 KiB in 900 µs (median), 533 µs (99th percentile). Processor, before the run: the same work"
            " takes 3.0 times its median at the 99th percentile, 2.5 times at worst. ",
        ),
        (
            replace(MACHINE, cores=4, work_p99=None, work_worst=None),
            "on another machine: 4 cores of Xeon, 23.5 GiB, Linux 6.18. Load average before the run 0.1."
            " Disk: write and fdatasync of 8 KiB in 216 µs (median), 533 µs (99th percentile). Python 3.11.7,"
            " PostgreSQL 18.6, Valkey 9.1.2, wrk 4.1.0. ",
        ),
        (None, "on a machine that was not written down. "),
    ],
)
def test_an_entry_of_another_run_says_when_and_where(machine: Machine | None, said: str) -> None:
    remark = report.remark(replace(SECOND, machine=machine), FIRST)
    assert remark == f"Measured 2026-11-28 12:52 UTC at commit bbbbbbb, not in the run above, {said}"


def test_an_entry_of_the_run_of_the_heading_needs_no_remark() -> None:
    assert report.remark(FIRST, FIRST) == ""


def test_the_page_has_what_the_record_says() -> None:
    record = report.read()
    assert record is not None
    assert f"{report.BEGIN}\n{report.render(record)}\n{report.END}" in report.PAGE.read_text()
