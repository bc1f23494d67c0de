"""Every bound that is not a setting, by name, with the relations that must hold between them."""

from __future__ import annotations

USER_ID_LENGTH_MAX = 128
EVENT_NAME_LENGTH_MAX = 200
TICKETS_PER_BOOKING_MAX = 2
TICKETS_PER_EVENT_MAX = 10_000_000
MAX_TICKETS_PER_USER_DEFAULT = 2
MAX_TICKETS_PER_USER_MAX = 1_000

REQUEST_BODY_BYTES_MAX = 16 * 1024

ENQUEUE_BATCH_MAX = 256
"""Commands that one call of the enqueue script takes; more wait for the next call."""

SUBMISSIONS_WAITING_MAX = 20_000
"""Commands that one API process holds while Redis is busy; past it a submit is refused with 503."""

PAGE_ITEMS_DEFAULT = 50
PAGE_ITEMS_MAX = 200
"""Items on one page of a list."""

CURSOR_LENGTH_MAX = 1_500
"""Characters of a cursor; the longest holds a user's id and a booking's, each character escaped."""

LOOKUP_BATCH_MAX = 256
"""Jobs that one query looks up in the ledger; more wait for the next one."""

LOOKUPS_WAITING_MAX = 20_000
"""Lookups that one API process holds while PostgreSQL is busy."""

IDEMPOTENCY_KEY_LENGTH_MAX = 255

REDIS_READ_BYTES = 1024 * 1024
"""What a worker takes from a connection at a time: most of a batch."""

REDIS_CONNECTIONS_MAX = 50
"""Connections of one API process for reading; more readers wait for one to be free."""

WAITAOF_SHARE = 0.75
"""How much of the time limit of a Redis call may be spent on waiting for replicas."""

WAKE_TOKENS_MAX = 1_000
"""Length of the list on which idle workers block; a token more would wake nobody who sleeps."""

RESULT_STREAM_LENGTH_MAX = 10
"""Entries in the result stream of one job, the same as RQ's own."""

SWEEP_STEP = 500
"""Queues that one call of the sweep script looks at, so that it never holds Redis for long."""

STRAYS_REMOVED_MAX = 500
"""Foreign or requeued jobs taken off the head of a queue in one call."""

REPAIR_STEP = 500
"""Commands put back, jobs forgotten or keys looked at in one call, so that it never holds Redis for long."""

REDIS_RETRIES_MAX = 2
"""How often a Redis call is sent again after a lost connection; all our scripts bear repetition."""

LEASE_SECONDS_MAX = 300.0
"""The longest claim that may be set; one that seems to last longer was made before the clock went back."""

READY_DELAY_SECONDS_MAX = 15.0
"""The longest that an event is put aside; a longer wait was written before the clock was set back."""

QUEUE_SEARCH_MAX = 2_000
"""How far from the head of RQ's list a completed job is looked for, so that it never holds Redis for long."""

EVENT_PROJECTION_TTL_SECONDS = 2 * 24 * 3600
"""How long Redis remembers an event that nobody touches; PostgreSQL tells it again."""

DESCRIPTION_LENGTH_MAX = 80
"""Characters of a job's description in RQ's tools; it costs memory with every waiting command."""

REASON_LENGTH_MAX = 300
"""Characters of the reason why a command failed."""

ARCHIVE_QUIET_SECONDS = 24 * 3600
"""How long nothing may have happened at an event that is removed: an Idempotency-Key lives that long."""

ARCHIVE_STEP_ROWS = 2_000
"""Rows of an archived event that one transaction removes."""

ARCHIVE_LINE_BYTES_MAX = 1024 * 1024
"""One row in an archive; a command is never that long."""

RATE_WINDOW_SECONDS = 60
"""The span over which the requests of a caller are counted."""

RATE_SYNC_SECONDS = 0.5
"""How often an API process tells the others what its busy callers asked for."""

RATE_SHARE_TOLD = 0.1
"""The share of its quota from which on a caller is told of. Below it a caller costs Redis nothing, and each
further API process lets it have at most so much more."""

RATE_TOLD_AT_ONCE_MAX = 1_000
"""Callers told of in one call; the others follow with the next."""

RATE_CALLERS_MAX = 200_000
"""Callers counted in one process; past it, those far from their quota are forgotten."""

assert TICKETS_PER_BOOKING_MAX <= MAX_TICKETS_PER_USER_DEFAULT
assert ENQUEUE_BATCH_MAX < SUBMISSIONS_WAITING_MAX
