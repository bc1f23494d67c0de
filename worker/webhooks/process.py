"""The life of the webhooks process: look what there is to tell, put it in the queues, work on them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from shared.clock import Clock
from shared.database import webhook_messages as message_statements
from shared.database import webhooks as statements
from shared.database.engine import Database
from shared.errors import EventLocked, TemporarilyUnavailable
from shared.line.connections import connect
from shared.line.presence import worker_name_of_this_host
from shared.line.webhook_jobs import QUEUE_NAME, SLOW_QUEUE_NAME, DeliveryLane, WebhookJobs
from shared.log import log_event
from shared.settings import Settings
from worker.webhooks.deliver import Deliverer, Tally, sender_to_anywhere
from worker.webhooks.make import Maker

logger = logging.getLogger(__name__)

_PAUSE_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 2.0
_LOG_SWEEP_SECONDS = 60.0


class Teller:
    """Makes messages of the ledger and sees that what is due is in the queues, until it is stopped."""

    def __init__(
        self,
        database: Database,
        maker: Maker,
        jobs: WebhookJobs,
        clock: Clock,
        settings: Settings,
        stopping: threading.Event,
    ) -> None:
        self._database = database
        self._maker = maker
        self._jobs = jobs
        self._clock = clock
        self._settings = settings
        self._stopping = stopping
        self._next_log_sweep_at = 0.0
        self._pause_seconds = _PAUSE_SECONDS_MIN

    def run(self, lanes: Sequence[Future[None]] = ()) -> None:
        """Look around until it is stopped. Servers that are away are waited for; anything else is raised.

        If one of the `lanes` ends by an error, so does this.
        """
        while not self._stopping.is_set():
            try:
                self.turn()
                self._stopping.wait(self._settings.webhooks_look_seconds)
                self._pause_seconds = _PAUSE_SECONDS_MIN
            except (TemporarilyUnavailable, EventLocked) as error:
                log_event(logger, logging.WARNING, "webhooks interrupted, trying again", reason=error)
                self._stopping.wait(self._pause_seconds)
                self._pause_seconds = min(self._pause_seconds * 2, _PAUSE_SECONDS_MAX)
            for lane in lanes:
                if lane.done():
                    lane.result()

    def turn(self) -> None:
        """Make the messages that there is room for, and enqueue the webhooks that have some to deliver."""
        behind = self._maker.behind()
        self._enqueue()
        while behind and not self._stopping.is_set():
            behind = [webhook_id for webhook_id in behind if self._maker.step(webhook_id)]
            self._enqueue()
        self._sweep_log_if_due()

    def _enqueue(self) -> None:
        with self._database.transaction() as connection:
            due = statements.webhooks_due(connection, self._clock.now())
        self._jobs.enqueue(due)

    def _sweep_log_if_due(self) -> None:
        now = self._clock.monotonic_seconds()
        if now < self._next_log_sweep_at:
            return
        with self._database.transaction() as connection:
            keep = timedelta(days=self._settings.webhooks_log_days)
            removed = message_statements.remove_old_log(connection, self._clock.now(), keep)
        if not removed:
            self._next_log_sweep_at = now + _LOG_SWEEP_SECONDS


def run_webhooks(settings: Settings, clock: Clock, stopping: threading.Event) -> None:
    """Tell and deliver until `stopping` is set; an unexpected error in any part ends all."""
    threads_in_all = _threads(settings, slow=False) + _threads(settings, slow=True)
    database = Database(settings, connections_max=1 + threads_in_all)
    jobs = WebhookJobs(connect(settings), clock, settings)
    teller = Teller(database, Maker(database, clock), jobs, clock, settings, stopping)
    deliverer = Deliverer(database, clock, settings, sender_to_anywhere(clock, settings), stopping)
    lanes = [_lane(settings, clock, deliverer, slow=slow) for slow in (False, True)]
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as threads:
        try:
            teller.run([threads.submit(lane.run, stopping) for lane in lanes])
        finally:
            stopping.set()
    database.close()


def _lane(settings: Settings, clock: Clock, deliverer: Deliverer, *, slow: bool) -> DeliveryLane:
    return DeliveryLane(
        connect(settings, blocking_seconds=settings.webhooks_look_seconds),
        clock,
        settings,
        queue_name=SLOW_QUEUE_NAME if slow else QUEUE_NAME,
        worker_name=worker_name_of_this_host(),
        threads=_threads(settings, slow=slow),
        deliver=partial(deliver_or_put_off, deliverer),
    )


def _threads(settings: Settings, *, slow: bool) -> int:
    return (settings.webhooks_threads + 1) // 2 if slow else settings.webhooks_threads


def deliver_or_put_off(deliverer: Deliverer, webhook_id: str) -> dict[str, int]:
    """Deliver what is due. If PostgreSQL is away that is no fault of the job: it is done again later."""
    try:
        return deliverer.deliver(webhook_id).as_json()
    except (TemporarilyUnavailable, EventLocked) as error:
        log_event(logger, logging.WARNING, "delivery put off", webhook_id=webhook_id, reason=error)
        return Tally().as_json()
