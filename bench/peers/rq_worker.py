"""RQ's own worker, with what its jobs need imported before it begins, as RQ's documentation advises.

Called with the worker's class, the URL of Redis and the queue. Works until the queue is empty, and prints how
many seconds that took.
"""

from __future__ import annotations

import logging
import sys
import time

import redis
import rq

import bench.peers.rq_jobs  # noqa: F401 (or each job's process would import it again)

worker_class, url, queue = sys.argv[1:]
worker = getattr(rq, worker_class)([queue], connection=redis.Redis.from_url(url))
started = time.monotonic()
worker.work(burst=True, logging_level=logging.WARNING)
print(time.monotonic() - started)
