"""The server-side scripts, each with the names and bounds that it shares with Python."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from functools import cache
from pathlib import Path

from shared import limits
from shared.line import keys
from shared.line.codec import Mark

_FOLDER = Path(__file__).parent / "scripts"

_CONSTANTS: dict[str, str | int | float] = {
    "queue_name_prefix": keys.QUEUE_NAME_PREFIX,
    "rq_job": keys.RQ_JOB,
    "rq_queue": keys.RQ_QUEUE,
    "rq_queues": keys.RQ_QUEUES,
    "rq_results": keys.RQ_RESULTS,
    "rq_finished": keys.RQ_FINISHED,
    "rq_failed": keys.RQ_FAILED,
    "rq_worker": keys.RQ_WORKER,
    "rq_workers": keys.RQ_WORKERS,
    "rq_workers_of_queue": keys.RQ_WORKERS_OF_QUEUE,
    "order": keys.ORDER,
    "event": keys.EVENT,
    "ready": keys.READY,
    "leased": keys.LEASED,
    "wake": keys.WAKE,
    "verified": keys.VERIFIED,
    "mark_lost": Mark.LOST.value,
    "mark_withdrawn": Mark.WITHDRAWN.value,
    "event_ttl_seconds": limits.EVENT_PROJECTION_TTL_SECONDS,
    "lines_looked_at_max": limits.LINES_LOOKED_AT_MAX,
    "lease_ms_max": int(limits.LEASE_SECONDS_MAX * 1000),
    "drain_memory": limits.DRAIN_MEMORY,
    "queue_search_max": limits.QUEUE_SEARCH_MAX,
    "ready_delay_ms_max": int(limits.READY_DELAY_SECONDS_MAX * 1000),
    "result_stream_length_max": limits.RESULT_STREAM_LENGTH_MAX,
    "standstill_ms": int(limits.STANDSTILL_SECONDS * 1000),
    "strays_removed_max": limits.STRAYS_REMOVED_MAX,
    "sweep_step": limits.SWEEP_STEP,
    "wake_tokens_max": limits.WAKE_TOKENS_MAX,
}


class ScriptName(StrEnum):
    """The scripts; each is described at the top of its file."""

    CLAIM = "claim"
    COMPLETE = "complete"
    ENQUEUE = "enqueue"
    LINE_STATUS = "line_status"
    FORGET = "forget"
    PEEK = "peek"
    PUT_BACK = "put_back"
    READ_JOB = "read_job"
    READ_PROGRESS = "read_progress"
    READ_STANDING = "read_standing"
    RELEASE = "release"
    REMOVE_STRAYS = "remove_strays"
    SEED_EVENT = "seed_event"
    SWEEP = "sweep"
    WITHDRAW = "withdraw"


@cache
def script_source(name: ScriptName) -> str:
    """The whole text of a script: constants, what the scripts share, and its own part.

    A server that is out of memory refuses to accept commands, but not to work them off, which frees it.
    """
    flags = "" if name is ScriptName.ENQUEUE else "#!lua flags=allow-oom\n"
    constants = "".join(f"K.{key} = {_literal(value)}\n" for key, value in _CONSTANTS.items())
    common = (_FOLDER / "common.lua").read_text(encoding="utf-8")
    own = (_FOLDER / f"{name.value}.lua").read_text(encoding="utf-8")
    return f"{flags}local K = {{}}\n{constants}{common}\n{own}"


@cache
def script_digest(name: ScriptName) -> str:
    """What Redis calls a script that it has loaded."""
    return hashlib.sha1(script_source(name).encode(), usedforsecurity=False).hexdigest()


def _literal(value: str | int | float) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
