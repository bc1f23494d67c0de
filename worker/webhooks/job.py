"""What RQ's own worker calls, so that `rq worker --serializer json webhooks` runs the same code."""

from __future__ import annotations

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.settings import load_settings
from worker.webhooks.deliver import Deliverer, sender_to_anywhere


def deliver_messages(webhook_id: str) -> dict[str, int]:
    """Deliver what is due of a webhook; gives how many messages were taken, and whether one failed."""
    settings = load_settings()
    clock = SystemClock()
    database = Database(settings, connections_max=1)
    try:
        deliverer = Deliverer(database, clock, settings, sender_to_anywhere(clock, settings))
        return deliverer.deliver(webhook_id).as_json()
    finally:
        database.close()
