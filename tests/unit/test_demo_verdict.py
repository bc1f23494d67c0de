"""The demo's verdict finds every answer that is not true, and nothing where all are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from demo.evidence import Booking, Evidence, Row, Sale
from demo.journal import Command, Told
from demo.verdict import (
    ANSWERED_ONCE,
    EVERYONE_ANSWERED,
    ORDER_KEPT,
    SOLD_EXACTLY,
    UNDER_THE_LIMIT,
    Finding,
    judge,
    judge_answers,
)
from shared.domain import CommandKind

SALE = Sale(total_tickets=3, available_tickets=0, max_tickets_per_user=2)


def booked(user: str, tickets: int, *, sent_at: float, position: int | None = None) -> Command:
    told = Told(
        at=sent_at + 0.5,
        http_status=200 if position else 201,
        job_id=f"job-{user}" if position else None,
        position=position,
        outcome="booked",
        booking_id=f"job-{user}",
        holder=(user, tickets),
    )
    return Command(kind=CommandKind.BOOK, user_id=user, ticket_count=tickets, sent_at=sent_at, told=[told])


def refused(user: str, tickets: int, reason: str, *, sent_at: float) -> Command:
    told = Told(at=sent_at + 0.5, http_status=400, outcome=reason)
    return Command(kind=CommandKind.BOOK, user_id=user, ticket_count=tickets, sent_at=sent_at, told=[told])


def cancelled(user: str, tickets: int, *, sent_at: float) -> Command:
    told = Told(
        at=sent_at + 0.5,
        http_status=200,
        outcome="cancelled",
        booking_id=f"job-{user}",
        holder=(user, tickets),
    )
    return Command(
        kind=CommandKind.CANCEL,
        user_id=user,
        ticket_count=tickets,
        cancels=f"job-{user}",
        sent_at=sent_at,
        told=[told],
    )


def row(position: int, user: str, tickets: int, outcome: str) -> Row:
    job_id = f"job-{user}" if outcome == "booked" else f"job-{position}"
    return Row(
        position=position,
        job_id=job_id,
        kind="book",
        asked={"kind": "book", "user_id": user, "ticket_count": tickets},
        outcome=outcome,
        booking_id=job_id if outcome == "booked" else None,
    )


def cancel_row(position: int, user: str) -> Row:
    return Row(
        position=position,
        job_id=f"job-{position}",
        kind="cancel",
        asked={"kind": "cancel", "booking_id": f"job-{user}"},
        outcome="cancelled",
        booking_id=f"job-{user}",
    )


def booking(user: str, tickets: int, *, is_active: bool = True) -> Booking:
    return Booking(id=f"job-{user}", user_id=user, ticket_count=tickets, is_active=is_active)


def answers() -> list[Command]:
    """What four buyers were told: ann takes two, cid one, dee gets none, ann gives back, eve takes two."""
    return [
        refused("ann", 3, "invalid-request", sent_at=0.0),
        booked("ann", 2, sent_at=1.0, position=1),
        refused("ann", 1, "user-limit-exceeded", sent_at=1.6),
        booked("cid", 1, sent_at=2.0),
        refused("dee", 1, "not-enough-tickets", sent_at=3.0),
        cancelled("ann", 2, sent_at=4.0),
        booked("eve", 2, sent_at=5.0, position=6),
    ]


def truth() -> Evidence:
    """What Onsale has of them."""
    return Evidence(
        sale=SALE,
        rows=[
            row(1, "ann", 2, "booked"),
            row(2, "ann", 1, "user-limit-exceeded"),
            row(3, "cid", 1, "booked"),
            row(4, "dee", 1, "not-enough-tickets"),
            cancel_row(5, "ann"),
            row(6, "eve", 2, "booked"),
        ],
        bookings=[booking("ann", 2, is_active=False), booking("cid", 1), booking("eve", 2)],
    )


def broken(findings: Sequence[Finding]) -> set[str]:
    return {finding.promise for finding in findings if not finding.is_kept}


def test_answers_that_are_all_true_are_found_true() -> None:
    findings = judge(answers(), truth())
    assert [line for finding in findings for line in finding.complaints] == []
    assert [finding.facts for finding in findings] == [
        "3 of 3 tickets; bookings given back: 1",
        "the most that anybody ever held: 2 of 2",
        "positions 1 to 6 without a gap, as told; nobody was overtaken",
        "6 accepted, 6 in the ledger, each as its buyer was told",
        "7 of 7 commands",
    ]


def told_otherwise(index: int, **changes: object) -> Callable[[], list[Command]]:
    def tampered() -> list[Command]:
        commands = answers()
        commands[index].told[-1] = replace(commands[index].told[-1], **changes)  # type: ignore[arg-type]
        return commands

    return tampered


@pytest.mark.parametrize(
    ("tampered", "promise"),
    [
        (told_otherwise(4, outcome="booked", booking_id="job-dee", holder=("dee", 1)), ANSWERED_ONCE),
        (told_otherwise(4, outcome="booked", booking_id="job-dee", holder=("dee", 1)), SOLD_EXACTLY),
        (told_otherwise(3, outcome="not-enough-tickets"), SOLD_EXACTLY),
        (told_otherwise(2, outcome="not-enough-tickets"), ANSWERED_ONCE),
        (told_otherwise(3, holder=("dee", 1)), ANSWERED_ONCE),
        (told_otherwise(3, booking_id="job-dee"), ANSWERED_ONCE),
        (told_otherwise(5, booking_id="job-cid"), ANSWERED_ONCE),
        (told_otherwise(1, job_id="job-other"), ANSWERED_ONCE),
        (told_otherwise(1, position=2), ORDER_KEPT),
        # Before ann had even sent her second command, which stands before it.
        (told_otherwise(3, at=1.55), ORDER_KEPT),
        (told_otherwise(4, outcome=None), EVERYONE_ANSWERED),
        (told_otherwise(4, outcome="status-500"), EVERYONE_ANSWERED),
        (told_otherwise(0, outcome="booked", booking_id="job-3", holder=("ann", 3)), ANSWERED_ONCE),
    ],
)
def test_an_answer_that_was_tampered_with_is_found(
    tampered: Callable[[], list[Command]], promise: str
) -> None:
    assert promise in broken(judge(tampered(), truth()))


def with_rows(change: Callable[[list[Row]], list[Row]]) -> Evidence:
    evidence = truth()
    return replace(evidence, rows=change(list(evidence.rows)))


@pytest.mark.parametrize(
    ("evidence", "promise"),
    [
        (with_rows(lambda rows: rows[:-1]), ANSWERED_ONCE),
        (with_rows(lambda rows: [*rows[:3], *rows[4:]]), ORDER_KEPT),
        (with_rows(lambda rows: [*rows, row(7, "fay", 1, "not-enough-tickets")]), ANSWERED_ONCE),
        (with_rows(lambda rows: [*rows, replace(rows[0], position=7)]), ANSWERED_ONCE),
        (
            with_rows(lambda rows: [*rows[:3], row(4, "dee", 2, "not-enough-tickets"), *rows[4:]]),
            ANSWERED_ONCE,
        ),
        (
            with_rows(lambda rows: [*rows[:3], row(4, "dee", 1, "user-limit-exceeded"), *rows[4:]]),
            SOLD_EXACTLY,
        ),
        (with_rows(lambda rows: [*rows[:3], row(4, "dee", 1, "booked"), *rows[4:]]), SOLD_EXACTLY),
        (with_rows(lambda rows: [rows[0], row(2, "ann", 1, "booked"), *rows[2:]]), UNDER_THE_LIMIT),
        (replace(truth(), sale=replace(SALE, available_tickets=1)), SOLD_EXACTLY),
        (replace(truth(), bookings=truth().bookings[1:]), SOLD_EXACTLY),
        (replace(truth(), bookings=[*truth().bookings, booking("fay", 1)]), SOLD_EXACTLY),
        (replace(truth(), bookings=[*truth().bookings, booking("eve", 2)]), UNDER_THE_LIMIT),
        (replace(truth(), bookings=[booking("ann", 2), *truth().bookings[1:]]), SOLD_EXACTLY),
    ],
)
def test_evidence_that_was_tampered_with_is_found(evidence: Evidence, promise: str) -> None:
    assert promise in broken(judge(answers(), evidence))


def test_who_was_overtaken_is_named() -> None:
    commands = answers()
    commands[4].sent_at = 0.1
    commands[4].told[0] = replace(commands[4].told[0], at=0.2)
    [finding] = [each for each in judge(commands, truth()) if each.promise == ORDER_KEPT]
    assert finding.complaints == [
        "cid (asked for 1) stands before dee (asked for 1), and was sent after that was answered"
    ]


def test_a_command_that_was_lost_on_the_way_may_or_may_not_be_in_the_ledger() -> None:
    commands = answers()
    commands[4].told.clear()
    assert broken(judge(commands, truth())) == {EVERYONE_ANSWERED}
    without = with_rows(lambda rows: [*rows[:3], cancel_row(4, "ann"), row(5, "eve", 2, "booked")])
    commands[6].told[0] = replace(commands[6].told[0], position=5)
    assert broken(judge(commands, without)) == {EVERYONE_ANSWERED}


def test_a_service_without_a_ledger_is_held_to_what_it_told() -> None:
    assert broken(judge_answers(answers(), SALE)) == set()
    oversold = [*answers(), booked("fay", 1, sent_at=6.0)]
    assert broken(judge_answers(oversold, SALE)) == {SOLD_EXACTLY}
    assert broken(judge_answers(oversold, replace(SALE, available_tickets=-1))) == {SOLD_EXACTLY}
    greedy = [*answers(), booked("eve", 1, sent_at=6.0)]
    assert broken(judge_answers(greedy, replace(SALE, total_tickets=4))) == {UNDER_THE_LIMIT}


def test_a_service_without_a_ledger_may_refuse_nobody_while_tickets_are_left() -> None:
    commands = [booked("ann", 1, sent_at=1.0), refused("dee", 1, "not-enough-tickets", sent_at=2.0)]
    one_left = replace(SALE, total_tickets=2, available_tickets=1)
    assert broken(judge_answers(commands, one_left)) == {SOLD_EXACTLY}
    asked_for_more = [commands[0], refused("dee", 2, "not-enough-tickets", sent_at=2.0)]
    assert broken(judge_answers(asked_for_more, one_left)) == set()
    given_back = [*commands, booked("eve", 1, sent_at=3.0), cancelled("ann", 1, sent_at=4.0)]
    assert broken(judge_answers(given_back, one_left)) == set()


def test_what_a_service_without_a_ledger_never_answered_may_have_been_sold() -> None:
    unanswered = Command(kind=CommandKind.BOOK, user_id="bob", ticket_count=1, sent_at=1.0)
    commands = [booked("ann", 1, sent_at=1.0), unanswered]
    for left in (0, 1):
        sale = replace(SALE, total_tickets=2, available_tickets=left)
        assert broken(judge_answers(commands, sale)) == {EVERYONE_ANSWERED}
    sold_to_nobody = replace(SALE, total_tickets=2, available_tickets=0)
    assert broken(judge_answers(commands[:1], sold_to_nobody)) == {SOLD_EXACTLY}


def test_a_request_is_found_invalid_only_where_it_is() -> None:
    commands = answers()
    commands[4].told[0] = replace(commands[4].told[0], outcome="invalid-request")
    assert EVERYONE_ANSWERED in broken(judge(commands, truth()))


def test_a_sale_to_which_nobody_came_proves_nothing() -> None:
    untouched = replace(SALE, available_tickets=SALE.total_tickets)
    assert broken(judge([], Evidence(sale=untouched, rows=[], bookings=[]))) == {EVERYONE_ANSWERED}
    assert broken(judge_answers([], untouched)) == {EVERYONE_ANSWERED}
