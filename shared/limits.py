"""Every bound that is not a setting, by name, with the relations that must hold between them."""

from __future__ import annotations

USER_ID_LENGTH_MAX = 128
EVENT_NAME_LENGTH_MAX = 200
TICKETS_PER_BOOKING_MAX = 2
TICKETS_PER_EVENT_MAX = 10_000_000
MAX_TICKETS_PER_USER_DEFAULT = 2

REQUEST_BODY_BYTES_MAX = 16 * 1024

ENQUEUE_BATCH_MAX = 256
"""Commands that one call of the enqueue script takes; more wait for the next call."""

SUBMISSIONS_WAITING_MAX = 20_000
"""Commands that one API process holds while Redis is busy; past it a submit is refused with 503."""

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

WEBHOOKS_PER_EVENT_MAX = 10

WEBHOOK_URL_LENGTH_MAX = 2_048

WEBHOOK_LEDGER_STEP = 500
"""Ledger rows from which one step makes the messages of a webhook."""

WEBHOOK_MESSAGES_PER_ROW_MAX = 2
"""Messages that one ledger row can make: of the booking, and of its having been the last."""

WEBHOOK_MESSAGES_PENDING_MAX = 1_000
"""Messages of a webhook that wait to be delivered; the rest waits as rows of the ledger."""

WEBHOOK_UNREADABLE_SECONDS = 60
"""How long a webhook is left alone after a ledger row that could not be read."""

WEBHOOK_DUE_BATCH_MAX = 50
"""Messages that a delivery reads at a time."""

WEBHOOK_STRETCH_SECONDS_MAX = 5.0
"""How long one job delivers to one target before the others get their turn."""

WEBHOOK_CLAIM_MARGIN_SECONDS = 5.0
"""How much longer than an attempt a webhook belongs to who delivers its messages."""

WEBHOOK_JOB_SECONDS_MAX = 180
"""When RQ ends a job that delivers; its own time limits end it long before."""

WEBHOOK_SLOW_SECONDS = 1.0
"""A target that took longer to answer is slow: its jobs go to the queue that has fewer threads."""

WEBHOOKS_LOOKED_UP_MAX = 1_000
"""Webhooks with work that one look finds; the next look finds the rest."""

WEBHOOK_ADDRESSES_TRIED_MAX = 4
"""Addresses of one host that one attempt tries."""

WEBHOOK_RESOLVE_SECONDS_MAX = 2.0
"""The longest that a registration waits for the addresses of a host."""

WEBHOOK_RESPONSE_BYTES_MAX = 64 * 1024
"""What is read of a target's answer, to keep the connection for the next message; more ends it."""

WEBHOOK_ATTEMPTS_LOGGED_MAX = 50
"""Attempts at one message that its log keeps: the newest."""

WEBHOOK_FAILING_SECONDS_MAX = 5 * 24 * 3600
"""A target that has not taken a message for so long is not tried any more."""

WEBHOOK_OLD_SECRET_SECONDS = 24 * 3600
"""How long messages are signed with the old secret too, after a new one was made."""

WEBHOOK_LOG_STEP = 1_000
"""Messages that one statement removes from the log."""

WEBHOOK_MESSAGES_PAGE_MAX = 200
WEBHOOK_MESSAGES_PAGE_DEFAULT = 50

assert TICKETS_PER_BOOKING_MAX <= MAX_TICKETS_PER_USER_DEFAULT
assert ENQUEUE_BATCH_MAX < SUBMISSIONS_WAITING_MAX
assert WEBHOOK_MESSAGES_PER_ROW_MAX <= WEBHOOK_MESSAGES_PENDING_MAX
assert WEBHOOK_MESSAGES_PAGE_DEFAULT <= WEBHOOK_MESSAGES_PAGE_MAX
