"""The RQ queues of webhooks: a job per webhook that has messages to deliver, and who works on the jobs.

PostgreSQL says what is due. A job only says that somebody should look, so one too many or too few does no
harm: a webhook that is due and in no queue is put in one again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import redis
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import WorkerStatus

from shared import limits
from shared.clock import Clock
from shared.errors import ForeignJob, LineUnavailable
from shared.line.connections import line_errors
from shared.log import log_event
from shared.settings import Settings

logger = logging.getLogger(__name__)

QUEUE_NAME = "webhooks"
SLOW_QUEUE_NAME = "webhooks-slow"
"""For targets that were slow or did not answer, so that they never take all threads."""

JOB_FUNCTION = "worker.webhooks.job.deliver_messages"
"""What RQ's stock worker imports and calls; ours never imports what a job names."""

Deliver = Callable[[str], dict[str, int]]
"""Delivers what is due of a webhook; gives the job's return value."""

_JOB_ID_PREFIX = "webhook-"
_HEARTBEATS_PER_TTL = 4
_PAUSE_SECONDS = 1.0

_BEGINS_SECONDS_MAX = 1.0
"""A job that was taken out of its queue has claimed its webhook after so long, or never will."""


class WebhookJobs:
    """Puts webhooks into the queues. Calls raise `LineUnavailable` if Redis does not answer."""

    def __init__(self, client: redis.Redis, clock: Clock, settings: Settings) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings
        self._pushed_at: dict[str, float] = {}
        self._queues = {
            slow: Queue(name, connection=client, serializer=JSONSerializer)
            for slow, name in ((False, QUEUE_NAME), (True, SLOW_QUEUE_NAME))
        }

    def enqueue(self, due: Iterable[tuple[str, bool]]) -> None:
        """See that each of these webhooks is in a queue: the slow ones in theirs.

        One that was put in a moment ago may have been taken out again, and its delivery be about to begin.
        """
        now = self._clock.monotonic_seconds()
        self._pushed_at = {id: at for id, at in self._pushed_at.items() if now - at < _BEGINS_SECONDS_MAX}
        due = [(id, slow) for id, slow in due if id not in self._pushed_at]
        if not due:
            return
        with line_errors():
            waiting = {job_id for queue in self._queues.values() for job_id in queue.get_job_ids()}
            for is_slow, queue in self._queues.items():
                missing = [id for id, slow in due if slow is is_slow and _JOB_ID_PREFIX + id not in waiting]
                if missing:
                    self._push(queue, missing)
                    self._pushed_at.update(dict.fromkeys(missing, now))

    def _push(self, queue: Queue, webhook_ids: list[str]) -> None:
        settings = self._settings
        jobs = [
            Queue.prepare_data(
                JOB_FUNCTION,
                args=(id,),
                timeout=limits.WEBHOOK_JOB_SECONDS_MAX,
                result_ttl=settings.result_ttl_seconds,
                failure_ttl=settings.failure_ttl_seconds,
                description=f"deliver messages of webhook {id}",
                job_id=_JOB_ID_PREFIX + id,
            )
            for id in webhook_ids
        ]
        job_ids = [_JOB_ID_PREFIX + id for id in webhook_ids]
        with self._client.pipeline() as pipeline:
            # What RQ remembers of the last time, with an expiry, must not be taken for this one.
            pipeline.delete(*(Job.key_for(job_id) for job_id in job_ids))
            pipeline.zrem(queue.finished_job_registry.key, *job_ids)
            pipeline.zrem(queue.failed_job_registry.key, *job_ids)
            queue.enqueue_many(jobs, pipeline=pipeline)
            pipeline.execute()


class DeliveryLane:
    """An RQ worker with threads: takes jobs off one queue, as many at a time as it has threads.

    RQ's own worker has one job at a time and, in a process that has others, too many signal handlers. Here
    its parts are called from a loop of our own.
    """

    def __init__(
        self,
        client: redis.Redis,
        clock: Clock,
        settings: Settings,
        *,
        queue_name: str,
        worker_name: str,
        threads: int,
        deliver: Deliver,
    ) -> None:
        """`client` is for this lane alone: its calls block for as long as it may take to look again."""
        self._clock = clock
        self._settings = settings
        self._worker = _worker(client, queue_name, worker_name, settings.worker_ttl_seconds, deliver)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=queue_name)
        self._free = threading.BoundedSemaphore(threads)
        self._next_heartbeat_at = 0.0
        self._defect: BaseException | None = None

    def run(self, stopping: threading.Event) -> None:
        """Work until `stopping` is set, then finish what has begun.

        Redis is waited for; what else goes wrong beside the deliveries themselves is raised.
        """
        try:
            while not stopping.is_set():
                try:
                    with line_errors():
                        self._turn()
                except LineUnavailable as error:
                    log_event(logger, logging.WARNING, "deliveries interrupted, trying again", reason=error)
                    stopping.wait(_PAUSE_SECONDS)
        finally:
            self._threads.shutdown()
            self._leave()

    def _turn(self) -> None:
        if self._defect is not None:
            raise self._defect
        self._heartbeat_if_due()
        if not self._free.acquire(timeout=self._settings.webhooks_look_seconds):
            return
        job = None
        try:
            job = self._take()
            if job is not None:
                self._threads.submit(self._execute, job).add_done_callback(self._done)
        finally:
            if job is None:
                self._free.release()

    def _take(self) -> Job | None:
        """The next job, or None if there was none for a while."""
        worker = self._worker
        try:
            found = Queue.dequeue_any(
                worker.queues,
                self._settings.webhooks_look_seconds,  # type: ignore[arg-type]
                connection=worker.connection,
                job_class=worker.job_class,
                serializer=worker.serializer,
            )
        except DequeueTimeout:
            return None
        except Exception as error:
            if not hasattr(error, "job_id"):
                raise
            # RQ names the job so that it can be dropped: somebody has written what is none.
            log_event(logger, logging.WARNING, "unreadable job dropped", job=error.job_id, reason=error)
            return None
        return None if found is None else found[0]

    def _done(self, delivery: Future[None]) -> None:
        self._defect = self._defect or delivery.exception()
        self._free.release()

    def _execute(self, job: Job) -> None:
        try:
            with line_errors():
                self._worker.execute_job(job, self._worker.queues[0])
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "job not noted in Redis", job=job.id, reason=error)

    def _heartbeat_if_due(self) -> None:
        now = self._clock.monotonic_seconds()
        if now < self._next_heartbeat_at:
            return
        worker = self._worker
        if not worker.connection.exists(worker.key):
            worker.register_birth()  # type: ignore[no-untyped-call]
            worker.set_state(WorkerStatus.IDLE)
        worker.heartbeat()
        if worker.should_run_maintenance_tasks:
            worker.run_maintenance_tasks()  # type: ignore[no-untyped-call]
        self._next_heartbeat_at = now + self._settings.worker_ttl_seconds / _HEARTBEATS_PER_TTL

    def _leave(self) -> None:
        try:
            with line_errors():
                self._worker.register_death()  # type: ignore[no-untyped-call]
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "left without taking the worker off RQ's list", reason=error)


class _Worker(SimpleWorker):
    """RQ's bookkeeping of jobs, for threads."""

    death_penalty_class = TimerDeathPenalty
    log_result_lifespan = False

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """RQ would raise the time limit of a call to minutes."""
        return connection

    def _set_ip_address(self, connection: redis.Redis) -> None:
        """RQ would ask Redis for it, which may not be there yet."""
        self.ip_address = ""

    def prepare_execution(self, job: Job) -> Execution:
        """Not listed under the worker: the dashboard's page of workers fails on a job whose data are JSON."""
        with self.connection.pipeline() as pipeline:
            execution = Execution.create(job, self.get_heartbeat_ttl(job), pipeline=pipeline)
            self.executions[execution.id] = execution
            self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
            pipeline.execute()
        return execution

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Do a job, beside others."""
        execution = self.prepare_execution(job)
        try:
            self.perform_job(job, queue, execution)
        finally:
            self.executions.pop(execution.id, None)
        self.set_state(WorkerStatus.BUSY if self.executions else WorkerStatus.IDLE)

    def procline(self, message: str) -> None:
        """The name of the process belongs to nobody."""


def _worker(
    client: redis.Redis, queue_name: str, worker_name: str, ttl_seconds: int, deliver: Deliver
) -> _Worker:
    for name in ("rq.worker", "rq.job"):
        # RQ writes several lines about each job; what happens to messages stands in their log.
        logging.getLogger(name).setLevel(logging.WARNING)
    return _Worker(
        [queue_name],
        name=worker_name,
        connection=client,
        worker_ttl=ttl_seconds,
        job_class=_job_class(deliver),
        serializer=JSONSerializer,
        log_job_description=False,
    )


def _job_class(deliver: Deliver) -> type[Job]:
    """Jobs that call `deliver` and nothing else: whoever writes to Redis could name any function."""

    class DeliveryJob(Job):
        success_callback = None
        failure_callback = None

        def perform(self) -> dict[str, int]:
            if self.func_name != JOB_FUNCTION:
                raise ForeignJob(f"{self.func_name!r} is not what this queue is for")
            [webhook_id] = self.args
            self._result = deliver(str(webhook_id))
            return self._result

        def send_webhooks(self, status: str, *, exc_string: str | None = None) -> None:
            """RQ's own webhooks, which are other ones, go anywhere."""

    return DeliveryJob
