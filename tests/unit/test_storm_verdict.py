"""The storm's verdict finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from api.callers import ANYONE
from api.idempotency import keyed_job_id
from shared.domain import CommandKind, OutcomeCode
from tests.storm.journal import SentCommand, Told
from tests.storm.verdict import (
    DUPLICATED,
    LOST,
    OUT_OF_ORDER,
    UNANSWERED,
    UNTRUE,
    Evidence,
    LedgerRow,
    Verdict,
    judge,
)

EVENT = "event"


def told(key: str, *, position: int | None, at: float, **others: object) -> Told:
    job_id = keyed_job_id(ANYONE.id, key)
    answer = Told(
        sent_at=at - 0.1,
        told_at=at,
        http_status=200,
        job_id=job_id,
        position=position,
        is_done=True,
        job_status="succeeded",
        booking_id=job_id,
    )
    return replace(answer, **others)  # type: ignore[arg-type]


def booking(key: str, *answers: Told, sent_at: float = 0.0) -> SentCommand:
    return SentCommand(
        key=key,
        event_id=EVENT,
        kind=CommandKind.BOOK,
        user_id="ann",
        ticket_count=1,
        first_sent_at=sent_at,
        attempts=1,
        told=list(answers),
    )


def row(key: str, position: int) -> LedgerRow:
    job_id = keyed_job_id(ANYONE.id, key)
    return LedgerRow(
        job_id=job_id,
        event_id=EVENT,
        position=position,
        kind=CommandKind.BOOK,
        payload={"user_id": "ann", "ticket_count": 1},
        outcome=OutcomeCode.BOOKED,
        detail={},
        booking_id=job_id,
    )


def verdict_over(
    commands: Sequence[SentCommand], rows: Sequence[LedgerRow], *, applied_position: int | None = None
) -> Verdict:
    evidence = Evidence(
        commands=commands,
        foreign_job_ids=set(),
        waiting_job_ids=set(),
        rows=rows,
        applied_positions={EVENT: len(rows) if applied_position is None else applied_position},
    )
    return judge(evidence, {})


def test_what_everyone_was_told_is_what_the_ledger_has() -> None:
    commands = [
        booking("a", told("a", position=1, at=1.0)),
        booking("b", told("b", position=2, at=3.0), sent_at=2.0),
        booking("given-up"),
    ]
    verdict = verdict_over(commands, [row("a", 1), row("b", 2)])
    assert not verdict.violations
    assert (verdict.sent, verdict.accepted, verdict.applied) == (3, 2, {"booked": 2})


def test_an_accepted_command_without_an_outcome_is_lost() -> None:
    verdict = verdict_over([booking("a", told("a", position=1, at=1.0))], [])
    assert verdict.count(LOST) == 1


def test_a_row_that_no_command_explains_is_a_duplicate() -> None:
    verdict = verdict_over([booking("a", told("a", position=1, at=1.0))], [row("a", 1), row("other", 2)])
    assert set(verdict.violations) == {DUPLICATED}


def test_a_row_that_says_something_else_than_was_sent_is_found() -> None:
    changed = replace(row("a", 1), payload={"user_id": "bob", "ticket_count": 1})
    verdict = verdict_over([booking("a", told("a", position=1, at=1.0))], [changed])
    assert set(verdict.violations) == {DUPLICATED}


def test_a_gap_is_out_of_order() -> None:
    verdict = verdict_over([booking("a", told("a", position=2, at=1.0))], [row("a", 2)], applied_position=2)
    assert set(verdict.violations) == {OUT_OF_ORDER}


def test_one_who_was_accepted_before_another_came_stands_before_them() -> None:
    commands = [
        booking("early", told("early", position=2, at=1.0)),
        booking("late", told("late", position=1, at=3.0), sent_at=2.0),
    ]
    verdict = verdict_over(commands, [row("late", 1), row("early", 2)])
    assert set(verdict.violations) == {OUT_OF_ORDER}


@pytest.mark.parametrize(
    "answer",
    [
        told("a", position=2, at=1.0),
        told("a", position=1, at=1.0, job_status="rejected"),
        told("a", position=1, at=1.0, job_status=None, error_type="not-enough-tickets"),
        told("a", position=1, at=1.0, booking_id="another"),
        told("a", position=1, at=1.0, holder=("bob", 1)),
    ],
)
def test_an_answer_that_the_ledger_does_not_give_is_untrue(answer: Told) -> None:
    verdict = verdict_over([booking("a", answer)], [row("a", 1)])
    assert set(verdict.violations) == {UNTRUE}


def test_an_answer_that_was_final_stays_final() -> None:
    final, later = told("a", position=1, at=1.0), told("a", position=1, at=2.0, is_done=False)
    verdict = verdict_over([booking("a", final, later)], [row("a", 1)])
    assert set(verdict.violations) == {UNTRUE}


def test_a_key_has_one_job() -> None:
    answer = told("other", position=1, at=1.0)
    verdict = verdict_over([booking("a", answer)], [row("a", 1)])
    assert {LOST, UNTRUE} <= set(verdict.violations)


def test_a_key_that_is_used_for_another_command_must_be_refused() -> None:
    command = booking("a", told("a", position=1, at=1.0))
    command.told_of_other_body.append(told("a", position=1, at=2.0))
    assert set(verdict_over([command], [row("a", 1)]).violations) == {UNTRUE}


def test_nobody_is_withdrawn_unasked() -> None:
    withdrawn = replace(row("a", 1), outcome=OutcomeCode.WITHDRAWN, booking_id=None)
    assert set(verdict_over([booking("a")], [withdrawn]).violations) == {UNTRUE}


def test_whoever_was_accepted_hears_what_became_of_it() -> None:
    waiting = told("a", position=1, at=1.0, is_done=False)
    verdict = verdict_over([booking("a", waiting)], [row("a", 1)])
    assert set(verdict.violations) == {UNANSWERED}


def test_a_job_does_not_wait_long_after_a_later_one_was_done() -> None:
    commands = [
        booking("a", told("a", position=1, at=50.0, is_done=False), told("a", position=1, at=51.0)),
        booking("b", told("b", position=2, at=1.0)),
    ]
    assert set(verdict_over(commands, [row("a", 1), row("b", 2)]).violations) == {UNTRUE}
