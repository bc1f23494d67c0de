"""Deliver what is due of one webhook: claim it, send message after message, write down what came of each."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from standardwebhooks import Webhook

from shared import limits
from shared.clock import Clock
from shared.database import webhook_messages as message_statements
from shared.database import webhooks as statements
from shared.database.engine import Database
from shared.log import log_event
from shared.settings import Settings
from shared.webhooks.addresses import resolve_with_system
from shared.webhooks.records import AttemptRecord, MessageRecord, WebhookRecord
from worker.webhooks.sender import Sender, public_certificates
from worker.webhooks.verdict import Answer, judge, judge_target

logger = logging.getLogger(__name__)

OpenSender = Callable[[], Sender]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one job has done."""

    delivered: int = 0
    failed: int = 0

    def as_json(self) -> dict[str, int]:
        """The job's return value."""
        return {"delivered": self.delivered, "failed": self.failed}


def sender_to_anywhere(clock: Clock, settings: Settings) -> OpenSender:
    """Opens senders that ask the system for addresses and trust the public certificates."""
    return lambda: Sender(clock, settings, resolve=resolve_with_system, certificates=public_certificates())


class Deliverer:
    """Delivers the messages of one webhook at a time; several threads may use it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: Settings,
        open_sender: OpenSender,
        stopping: threading.Event | None = None,
    ) -> None:
        """A job ends after the attempt that it is in when `stopping` is set."""
        self._database = database
        self._clock = clock
        self._open_sender = open_sender
        self._stopping = stopping or threading.Event()
        self._claim_time = timedelta(
            seconds=settings.webhooks_attempt_seconds_max + limits.WEBHOOK_CLAIM_MARGIN_SECONDS
        )

    def deliver(self, webhook_id: str) -> Tally:
        """Send what is due until nothing is, the target does not take one, or it is others' turn.

        Does nothing if another delivery has the webhook. After a crash at any point what was not written
        down is sent again, with the same id.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        with self._database.transaction() as connection:
            now = self._clock.now()
            webhook = statements.claim_webhook(connection, webhook_id, now, now + self._claim_time)
        if webhook is None:
            return Tally()
        with self._open_sender() as sender:
            return self._deliver_stretch(webhook, sender)

    def _deliver_stretch(self, webhook: WebhookRecord, sender: Sender) -> Tally:
        delivered = 0
        for message in self._due_in_a_stretch(webhook.id):
            after = self._attempt(webhook, message, sender)
            if after is None or after.failures:
                return Tally(delivered=delivered, failed=1)
            webhook = after
            delivered += 1
        self._give_back(webhook)
        return Tally(delivered=delivered)

    def _due_in_a_stretch(self, webhook_id: str) -> Iterator[MessageRecord]:
        ends_at = self._clock.monotonic_seconds() + limits.WEBHOOK_STRETCH_SECONDS_MAX
        while messages := self._due(webhook_id):
            for message in messages:
                yield message
                if self._stopping.is_set() or self._clock.monotonic_seconds() >= ends_at:
                    return

    def _due(self, webhook_id: str) -> list[MessageRecord]:
        with self._database.transaction() as connection:
            return message_statements.due_messages(connection, webhook_id, self._clock.now())

    def _attempt(
        self, webhook: WebhookRecord, message: MessageRecord, sender: Sender
    ) -> WebhookRecord | None:
        """Send a message; gives the webhook as it is then, or None if it is not ours any more."""
        attempted_at = self._clock.now()
        headers = signed_headers(webhook, message, attempted_at)
        answer = sender.send(webhook.url, headers, message.body)
        return self._record(webhook, message, attempted_at, answer)

    def _record(
        self, webhook: WebhookRecord, message: MessageRecord, attempted_at: datetime, answer: Answer
    ) -> WebhookRecord | None:
        with self._database.transaction() as connection:
            current = statements.find_webhook(connection, webhook.id, lock=True)
            if current is None or current.claimed_until != webhook.claimed_until:
                return None
            now, chance = self._clock.now(), random.random()  # noqa: S311 (spreads load)
            message = judge(message, answer, now, chance)
            after = judge_target(replace(current, claimed_until=now + self._claim_time), answer, now, chance)
            message_statements.insert_attempt(connection, _attempt_record(message, attempted_at, answer))
            message_statements.update_message(connection, message)
            statements.update_webhook(connection, after)
            if after.disabled_at is not None:
                message_statements.fail_pending_messages(connection, webhook.id)
        if after.disabled_at is not None:
            reason = after.disabled_reason
            log_event(logger, logging.WARNING, "webhook disabled", webhook_id=webhook.id, reason=reason)
        return after

    def _give_back(self, webhook: WebhookRecord) -> None:
        with self._database.transaction() as connection:
            current = statements.find_webhook(connection, webhook.id, lock=True)
            if current is not None and current.claimed_until == webhook.claimed_until:
                statements.update_webhook(connection, replace(current, claimed_until=None))


def signed_headers(webhook: WebhookRecord, message: MessageRecord, moment: datetime) -> dict[str, str]:
    """What tells the target who sent a message, and when: by the new secret, and the old one for a while."""
    keys = [webhook.secret]
    if webhook.old_secret and webhook.old_secret_until and moment < webhook.old_secret_until:
        keys.append(webhook.old_secret)
    return {
        "webhook-id": message.id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(Webhook(key).sign(message.id, moment, message.body) for key in keys),
    }


def _attempt_record(message: MessageRecord, attempted_at: datetime, answer: Answer) -> AttemptRecord:
    return AttemptRecord(
        message_id=message.id,
        number=message.attempts,
        attempted_at=attempted_at,
        duration_ms=int(answer.seconds * 1000),
        status_code=answer.status_code,
        error=answer.error,
    )
