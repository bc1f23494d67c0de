"""The names of every key in Redis: RQ's own, as its pinned version lays them out, and ours."""

from __future__ import annotations

from rq.job import Job
from rq.queue import Queue
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

QUEUE_NAME_PREFIX = "event:"
"""An event's RQ queue is named `event:<event id>`."""

RQ_JOB = Job.redis_job_namespace_prefix
RQ_QUEUE = Queue.redis_queue_namespace_prefix
RQ_QUEUES = Queue.redis_queues_keys
RQ_RESULTS = "rq:results:"
RQ_FINISHED = "rq:finished:"
RQ_FAILED = "rq:failed:"
RQ_WORKERS = REDIS_WORKER_KEYS
RQ_WORKER = "rq:worker:"
RQ_WORKERS_OF_QUEUE = WORKERS_BY_QUEUE_KEY % ""

ORDER = "onsale:order:"
"""List per event: the ids of waiting commands in order of acceptance. Only our scripts touch it, so
that nothing done to RQ's list (a stock worker, the dashboard) changes whose turn it is."""

EVENT = "onsale:event:"
"""Hash per event: `view` (what GET /events/{id} answers), `accepted` and `applied` (positions),
`token` (the newest fencing token), `consumer` (who holds the claim), `drained` and `draining_ms` (how many
commands the last batches had, and how long they took), `moved` (when the line moved or began, in ms),
`opens_at` (when sales open, or empty)."""

READY = "onsale:ready"
"""Sorted set: events that need a consumer, by the time in ms since which they do."""

LEASED = "onsale:leased"
"""Sorted set: events that have a consumer, by the time in ms when its claim ends."""

WAKE = "onsale:wake"
"""List of tokens on which idle workers block."""

WAKE_ONE = "onsale:wake:"
"""List per worker, with expiry: a token that ends the wait of this one, so that it can stop."""

REPLIES = "onsale:replies:"
"""Channel per API process: the results of the jobs that it waits for."""

TALLY = "onsale:tally:"
"""Hash per span of time: how many requests each busy caller made in it, in all API processes."""

SWEEPER = "onsale:sweeper"
"""String with expiry: some worker has swept lately."""

VERIFIED = "onsale:verified"
"""Hash with expiry: what `verify` found last (`violations`), and when (`seconds`)."""


def queue_name(event_id: str) -> str:
    """The name of an event's RQ queue."""
    return QUEUE_NAME_PREFIX + event_id
