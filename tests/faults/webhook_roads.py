"""The road of a webhook's messages, made so that it passes every kind of boundary."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.line.connections import connect
from shared.line.webhook_jobs import QUEUE_NAME, DeliveryLane, WebhookJobs
from shared.settings import Settings
from shared.webhooks.addresses import resolve_with_system
from tests.faults.boundaries import Action, Boundaries, kill_at, watch_database, watch_redis
from worker.webhooks.deliver import Deliverer
from worker.webhooks.make import Maker
from worker.webhooks.process import Teller, deliver_or_put_off
from worker.webhooks.sender import Sender, public_certificates
from worker.webhooks.verdict import Answer


class WatchedSender(Sender):
    """Its requests are boundaries too."""

    boundaries: Boundaries

    def send(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        self.boundaries.cut_at("before POST")
        answer = super().send(url, headers, body)
        self.boundaries.cut_at("after POST")
        return answer


def run_webhooks_once(settings: Settings, action: Action) -> list[str]:
    """Make messages, enqueue them, take the job and deliver; gives the boundaries that were passed."""
    boundaries = Boundaries(action)
    clock = SystemClock()
    database = Database(settings, connections_max=1)
    watch_database(database, boundaries)
    client = connect(settings, blocking_seconds=settings.webhooks_look_seconds)
    watch_redis(client, boundaries)

    def open_sender() -> WatchedSender:
        sender = WatchedSender(
            clock, settings, resolve=resolve_with_system, certificates=public_certificates()
        )
        sender.boundaries = boundaries
        return sender

    deliverer = Deliverer(database, clock, settings, open_sender)
    lane = DeliveryLane(
        client,
        clock,
        settings,
        queue_name=QUEUE_NAME,
        worker_name="watched",
        threads=1,
        deliver=lambda webhook_id: deliver_or_put_off(deliverer, webhook_id),
    )
    jobs = WebhookJobs(client, clock, settings)
    teller = Teller(database, Maker(database, clock), jobs, clock, settings, threading.Event())
    boundaries.watching = True
    teller.turn()
    job = lane._take()
    if job is not None:
        lane._execute(job)
    boundaries.watching = False
    client.close()
    database.close()
    return boundaries.names


def run_webhooks_until_killed(settings: Settings, number: int) -> None:
    """For a process of its own: end at this boundary."""
    run_webhooks_once(settings, kill_at(number))
