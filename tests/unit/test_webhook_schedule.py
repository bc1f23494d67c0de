"""When a message is tried again, and what an attempt makes of it and its webhook."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared import limits
from shared.domain import SaleTerms
from shared.identifiers import new_id
from shared.seals import new_event
from shared.webhooks.messages import MessageType
from shared.webhooks.records import MessageRecord, MessageStatus, new_webhook
from shared.webhooks.schedule import JITTER_SHARE, RETRY_SECONDS, TRIES_MAX, rest_after, retry_after
from shared.webhooks.secrets import new_secret
from worker.webhooks.verdict import Answer, judge, judge_target

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
TAKEN = Answer(status_code=204, error=None, seconds=0.1)
REFUSED = Answer(status_code=500, error="answered 500", seconds=0.1)
SILENT = Answer(status_code=None, error="no answer within 10 seconds", seconds=10.0)
GONE = Answer(status_code=410, error="answered 410", seconds=0.1)
WEBHOOK = replace(
    new_webhook(
        new_event(
            id=new_id(),
            terms=SaleTerms(name="Test Event", total_tickets=10, max_tickets_per_user=2),
            created_at=NOW,
        ),
        url="https://example.com/",
        types=MessageType,
        secret=new_secret(),
        created_at=NOW,
    ),
    claimed_until=NOW,
)
MESSAGE = MessageRecord(
    id=new_id(),
    webhook_id=WEBHOOK.id,
    position=1,
    type=MessageType.BOOKING_CREATED,
    body="{}",
    status=MessageStatus.PENDING,
    attempts=0,
    tries=0,
    next_attempt_at=NOW,
    created_at=NOW,
)


def test_a_message_is_tried_for_three_days_at_growing_intervals() -> None:
    assert list(RETRY_SECONDS) == sorted(RETRY_SECONDS)
    assert timedelta(days=3) < timedelta(seconds=sum(RETRY_SECONDS)) < timedelta(days=4)
    waits = [retry_after(tries, 0.0) for tries in range(1, TRIES_MAX + 1)]
    assert waits == [*(timedelta(seconds=seconds) for seconds in RETRY_SECONDS), None]


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_waits_are_spread_and_never_shorter_than_they_say(chance: float) -> None:
    for tries, seconds in enumerate(RETRY_SECONDS, start=1):
        wait = retry_after(tries, chance)
        assert wait is not None
        assert timedelta(seconds=seconds) <= wait <= timedelta(seconds=seconds * (1 + JITTER_SHARE))


def test_a_target_rests_longer_with_every_failure_up_to_a_bound() -> None:
    rests = [rest_after(failures, 0.0) for failures in range(1, 20)]
    assert rests == sorted(rests)
    assert rests[0] == timedelta(seconds=1)
    assert rests[-1] == timedelta(minutes=5)


def test_a_message_that_is_taken_is_done() -> None:
    after = judge(MESSAGE, TAKEN, NOW, 0.0)
    assert (after.status, after.next_attempt_at, after.attempts) == (MessageStatus.DELIVERED, None, 1)


def test_a_message_that_is_not_taken_is_tried_again_until_the_schedule_ends() -> None:
    message, tried = MESSAGE, []
    while message.status is MessageStatus.PENDING:
        message = judge(message, REFUSED, NOW, 0.0)
        tried.append(message.next_attempt_at)
    assert message.status is MessageStatus.FAILED
    assert tried == [*(NOW + timedelta(seconds=seconds) for seconds in RETRY_SECONDS), None]


def test_a_message_that_is_asked_for_again_has_a_new_schedule_and_keeps_its_count() -> None:
    again = replace(MESSAGE, attempts=TRIES_MAX, tries=0)
    after = judge(again, REFUSED, NOW, 0.0)
    assert after.next_attempt_at == NOW + timedelta(seconds=RETRY_SECONDS[0])
    assert (after.attempts, after.tries) == (TRIES_MAX + 1, 1)


def test_a_target_that_fails_is_given_back_and_rests() -> None:
    after = judge_target(WEBHOOK, REFUSED, NOW, 0.0)
    assert after.claimed_until is None
    assert after.resting_until == NOW + timedelta(seconds=1)
    assert (after.failures, after.failing_since, after.disabled_at) == (1, NOW, None)


def test_a_success_forgets_the_failures_before_it_and_keeps_the_claim() -> None:
    failing = replace(WEBHOOK, failures=3, failing_since=NOW, resting_until=NOW)
    after = judge_target(failing, TAKEN, NOW, 0.0)
    assert after == WEBHOOK


def test_a_target_is_slow_if_it_does_not_answer_or_takes_long() -> None:
    late = Answer(status_code=200, error=None, seconds=limits.WEBHOOK_SLOW_SECONDS + 0.1)
    assert [answer.slow for answer in (TAKEN, REFUSED, SILENT, late)] == [False, False, True, True]


def test_a_target_that_is_gone_is_disabled_at_once() -> None:
    after = judge_target(WEBHOOK, GONE, NOW, 0.0)
    assert after.disabled_at == NOW
    assert after.disabled_reason == "the target answered 410 Gone"


def test_a_target_that_fails_for_days_is_disabled() -> None:
    failing_since = NOW - timedelta(seconds=limits.WEBHOOK_FAILING_SECONDS_MAX)
    almost = replace(WEBHOOK, failures=9, failing_since=failing_since + timedelta(seconds=1))
    assert judge_target(almost, SILENT, NOW, 0.0).disabled_at is None
    after = judge_target(replace(almost, failing_since=failing_since), SILENT, NOW, 0.0)
    assert after.disabled_reason == "the target took no message for 5 days"
