"""The parts of the demo: who comes, what can be asked for, and how it is shown."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from demo.buyers import make_buyers
from demo.course import command_of
from demo.errors import DemoError
from demo.figures import Figures, Meter, drain_rate
from demo.journal import Command, Journal, told_of
from demo.options import Options, read_options, request_headers
from demo.panel import sparkline
from demo.picture import draw
from demo.report import Trial, side_by_side, verdict
from demo.stampede import Stampede
from demo.verdict import ORDER_KEPT, SOLD_EXACTLY, Finding
from demo.view import LiveView, PlainView
from shared.domain import CommandKind


def a_command(kind: CommandKind = CommandKind.BOOK) -> Command:
    return Command(kind=kind, user_id="ann", ticket_count=2, sent_at=0.0)


def a_job(position: int, ahead: int, **changes: object) -> dict[str, object]:
    waiting = {
        "id": "job",
        "done": False,
        "status": "queued",
        "position": position,
        "ahead": ahead,
        "error": None,
        "booking": None,
        "booking_id": "job",
    }
    return {**waiting, **changes}


def some_figures() -> Figures:
    journal = Journal()
    meter = Meter("Onsale", journal, buyers=10, tickets=5)
    command = a_command()
    journal.send(command)
    journal.hear(command, told_of(CommandKind.BOOK, 0.5, 202, a_job(8, 7)))
    refused = a_command()
    journal.send(refused)
    journal.hear(refused, told_of(CommandKind.BOOK, 0.7, 400, {"type": "not-enough-tickets"}))
    journal.put_off["too-many-requests"] += 3
    journal.tickets_left = 4
    meter.note_fault("worker 17 killed (SIGKILL)")
    return meter.read()


def test_the_same_options_bring_the_same_buyers() -> None:
    options = Options(buyers=2_000, cancel_rate=0.2, greedy_rate=0.1)
    buyers = make_buyers(options)
    assert buyers == make_buyers(options)
    assert buyers != make_buyers(Options(buyers=2_000, cancel_rate=0.2, greedy_rate=0.1, seed=2))
    wishes = Counter(tuple(buyer.wishes) for buyer in buyers)
    assert set(wishes) == {(1,), (2,), (2, 1), (3, 2, 1)}
    assert 150 < wishes[(2, 1)] + wishes[(3, 2, 1)] < 250
    assert 350 < sum(buyer.gives_back for buyer in buyers) < 450
    nobody = make_buyers(Options(buyers=500, cancel_rate=0, greedy_rate=0))
    assert not any(buyer.gives_back or len(buyer.wishes) > 1 for buyer in nobody)


def test_the_command_line_says_what_stampede_it_is() -> None:
    options = read_options(
        ["--buyers", "300", "--tickets", "50", "--cancel-rate", "0.5", "--workers", "3", "--kill-worker"]
    )
    assert options == Options(buyers=300, tickets=50, cancel_rate=0.5, workers=3, kill_worker=True)
    assert options.needs_own
    again = "--buyers 300 --tickets 50 --workers 3 --cancel-rate 0.5 --kill-worker"
    assert command_of(options) == f'make demo ARGS="{again}"'
    assert command_of(Options()) == "make demo"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "http://127.0.0.1:8000", "--kill-worker"], "that the demo starts itself"),
        (["--url", "http://127.0.0.1:8000", "--workers", "2"], "that the demo starts itself"),
        (["--url", "http://tickets.example"], "--anywhere"),
        (["--url", "http://tickets.example", "--anywhere", "--compare"], "this machine"),
        (["--url", "127.0.0.1:8000"], "write it as"),
        (["--url", "ftp://127.0.0.1"], "write it as"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_remedy(arguments: list[str], complaint: str) -> None:
    with pytest.raises(DemoError, match=complaint):
        read_options(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--buyers", "15001"],
        ["--buyers", "0"],
        ["--tickets", "1000001"],
        ["--cancel-rate", "1.5"],
        ["--seconds", "1e9"],
        ["--greedy-rate", "nan"],
    ],
)
def test_everything_is_bounded(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_options(arguments)
    assert ended.value.code == 2
    assert re.search(f"{arguments[0]}: must be a .*number from", capsys.readouterr().err)


def test_another_machine_may_be_asked_if_that_is_said() -> None:
    options = read_options(["--url", "https://tickets.example/", "--anywhere"])
    assert options.url == "https://tickets.example"
    assert request_headers({"ONSALE_API_KEY": "onsale_1"}) == {"Authorization": "Bearer onsale_1"}
    assert request_headers({}) == {}


def test_answers_are_read_in_all_their_forms() -> None:
    book, cancel = CommandKind.BOOK, CommandKind.CANCEL
    waiting = told_of(book, 1.0, 202, a_job(5, 3))
    assert (waiting.position, waiting.ahead, waiting.is_done) == (5, 3, False)
    booking = {"id": "job", "user_id": "ann", "ticket_count": 2}
    done = told_of(book, 1.0, 200, a_job(5, 0, done=True, status="succeeded", booking=booking))
    assert (done.outcome, done.holder, done.booking_id) == ("booked", ("ann", 2), "job")
    assert told_of(book, 1.0, 201, booking).outcome == "booked"
    assert told_of(cancel, 1.0, 200, booking).outcome == "cancelled"
    rejected = a_job(5, 0, done=True, status="rejected", error={"type": "user-limit-exceeded"})
    assert told_of(book, 1.0, 200, rejected).outcome == "user-limit-exceeded"
    assert told_of(book, 1.0, 400, {"detail": "not enough tickets"}).outcome == "not-enough-tickets"
    assert told_of(book, 1.0, 422, {"detail": [{}]}).outcome == "invalid-request"
    assert told_of(book, 1.0, 500, None).outcome == "status-500"


def test_the_figures_are_what_the_buyers_wrote_down() -> None:
    figures = some_figures()
    assert (figures.commands, figures.placed, figures.answered) == (2, 1, 1)
    # The one at 8 has 7 before it; one command has been decided.
    assert (figures.in_line, figures.in_line_at_most) == (7, 7)
    assert figures.refused == {"not-enough-tickets": 1}
    assert figures.put_off == {"too-many-requests": 3}
    assert figures.placed_after == [0.5, 0.5, 0.5]
    [fault] = figures.faults
    assert fault.startswith("worker 17 killed (SIGKILL) after ")
    assert fault.endswith("with 7 in line")


def test_the_drain_rate_is_that_of_the_last_second() -> None:
    assert drain_rate([(0.0, 0), (0.5, 100)]) == 200
    assert drain_rate([(0.0, 0), (1.0, 1_000), (1.5, 1_000), (2.0, 1_500)]) == 500
    assert drain_rate([(0.0, 0)]) == 0


def test_a_curve_is_as_high_as_its_highest() -> None:
    assert sparkline([0, 4, 8], 3) == " ▄█"
    assert sparkline([0, 0, 8, 8], 2) == " █"
    assert sparkline([], 2) == "  "
    assert sparkline([0], 2) == "  "


def test_without_a_terminal_there_are_plain_lines() -> None:
    out = io.StringIO()
    view = PlainView(Console(file=out, width=110, highlight=False))
    figures = some_figures()
    view.say("Starting")
    view.show(figures)
    view.show(figures)
    view.conclude(figures)
    lines = out.getvalue().splitlines()
    assert lines[0] == "Starting"
    assert lines[1].endswith("with 7 in line")
    assert len(lines) == 4
    assert lines[3] == lines[2]
    for part in (
        "in line 7",
        "tickets left 4",
        "not-enough-tickets 1",
        "asked again after too-many-requests 3",
    ):
        assert part in lines[2]
    assert "\x1b" not in out.getvalue()


def test_in_a_terminal_there_is_a_picture() -> None:
    out = io.StringIO()
    view = LiveView(Console(file=out, width=100, force_terminal=True, highlight=False))
    view.conclude(some_figures())
    shown = out.getvalue()
    for part in (
        "everyone comes at once",
        "4 of 5",
        "not-enough-tickets 1",
        "too-many-requests 3",
        "worker 17",
    ):
        assert part in shown


def a_trial(name: str, *findings: Finding, is_over: bool = True) -> Trial:
    last = replace(some_figures(), seconds=2.5)
    stampede = Stampede(journal=Journal(), is_over=is_over, last=last)
    return Trial(name=name, stampede=stampede, findings=findings)


def printed(what: object) -> str:
    out = io.StringIO()
    Console(file=out, width=110, highlight=False).print(what)
    return out.getvalue()


def test_the_verdict_says_true_or_what_is_not() -> None:
    kept = Finding(promise=SOLD_EXACTLY, facts="3 of 3 tickets", complaints=[])
    text = printed(verdict(a_trial("Onsale", kept)))
    assert "true   Sold exactly   3 of 3 tickets" in text
    assert "Verdict: every answer is true. 0 commands of 10 buyers in 2.5 s." in text
    wrong = Finding(promise=ORDER_KEPT, facts="", complaints=[f"position {number}" for number in range(12)])
    text = printed(verdict(a_trial("Onsale", kept, wrong, is_over=False)))
    assert "NOT TRUE   First come, first served   position 0" in text
    assert "… and 2 more" in text
    assert "Verdict: NOT TRUE, see above. 0 commands of 10 buyers in 2.5 s, when the time was up." in text


def test_two_services_stand_side_by_side() -> None:
    kept = Finding(promise=SOLD_EXACTLY, facts="", complaints=[])
    wrong = Finding(promise=SOLD_EXACTLY, facts="", complaints=["oversold"])
    order = Finding(promise=ORDER_KEPT, facts="", complaints=[])
    text = printed(side_by_side([a_trial("Onsale", kept, order), a_trial("other", wrong, is_over=False)]))
    rows = {
        line.split("  ")[1].strip(): line.split()[-2:] for line in text.splitlines() if line.startswith("  ")
    }
    assert rows["everyone answered after"] == ["2.5", "s"]
    assert "not in 2.5 s" in text
    assert rows["Sold exactly"] == ["NOT", "TRUE"]
    assert rows["First come, first served"] == ["not", "promised"]


def test_the_recorded_picture_asks_no_other_host() -> None:
    kept = Finding(promise=SOLD_EXACTLY, facts="3 of 3 tickets", complaints=[])
    picture = draw("make demo", some_figures(), [verdict(a_trial("Onsale", kept))])
    assert picture.startswith("<svg")
    assert "url(&quot;" not in picture
    assert 'url("' not in picture
    assert "font-face" not in picture
    assert "Sold&#160;exactly" in picture
