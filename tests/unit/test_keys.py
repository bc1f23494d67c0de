"""The names of keys."""

from __future__ import annotations

from shared.line import keys


def test_keys_are_laid_out_as_the_pinned_rq_does() -> None:
    """The scripts and these constants rely on it; a new version of RQ must be looked at."""
    assert keys.RQ_JOB == "rq:job:"
    assert keys.RQ_QUEUE == "rq:queue:"
    assert keys.RQ_QUEUES == "rq:queues"
    assert keys.RQ_WORKERS == "rq:workers"
    assert keys.RQ_WORKERS_OF_QUEUE == "rq:workers:"
