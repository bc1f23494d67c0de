"""What an attempt means for its message and its webhook. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared import limits
from shared.webhooks.records import MessageRecord, MessageStatus, WebhookRecord
from shared.webhooks.schedule import rest_after, retry_after

_GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of sending a message: the target's status, or the error for which there is none."""

    status_code: int | None
    error: str | None
    seconds: float

    @property
    def taken(self) -> bool:
        """Whether the target has taken the message."""
        return self.error is None

    @property
    def slow(self) -> bool:
        """Whether this target should not hold up others."""
        return self.status_code is None or self.seconds > limits.WEBHOOK_SLOW_SECONDS


def judge(message: MessageRecord, answer: Answer, now: datetime, chance: float) -> MessageRecord:
    """The message after an attempt; `chance` from 0 to 1 spreads the waits."""
    after = replace(message, attempts=message.attempts + 1, tries=message.tries + 1)
    if answer.taken:
        return replace(after, status=MessageStatus.DELIVERED, next_attempt_at=None)
    wait = retry_after(after.tries, chance)
    if wait is None:
        return replace(after, status=MessageStatus.FAILED, next_attempt_at=None)
    return replace(after, status=MessageStatus.PENDING, next_attempt_at=now + wait)


def judge_target(webhook: WebhookRecord, answer: Answer, now: datetime, chance: float) -> WebhookRecord:
    """The webhook after an attempt at any of its messages: going on, resting or disabled."""
    if answer.taken:
        return replace(webhook, failures=0, failing_since=None, resting_until=None, slow=answer.slow)
    after = replace(
        webhook,
        failures=webhook.failures + 1,
        failing_since=webhook.failing_since or now,
        resting_until=now + rest_after(webhook.failures + 1, chance),
        slow=answer.slow,
        claimed_until=None,
    )
    reason = _reason_to_disable(after, answer, now)
    return after if reason is None else replace(after, disabled_at=now, disabled_reason=reason)


def _reason_to_disable(webhook: WebhookRecord, answer: Answer, now: datetime) -> str | None:
    if answer.status_code == _GONE:
        return "the target answered 410 Gone"
    limit = timedelta(seconds=limits.WEBHOOK_FAILING_SECONDS_MAX)
    if webhook.failing_since is not None and now - webhook.failing_since >= limit:
        return f"the target took no message for {limit.days} days"
    return None
