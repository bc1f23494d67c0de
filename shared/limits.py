"""Every bound that is not a setting, by name, with the relations that must hold between them."""

from __future__ import annotations

USER_ID_LENGTH_MAX = 128
EVENT_NAME_LENGTH_MAX = 200
TICKETS_PER_BOOKING_MAX = 2
TICKETS_PER_EVENT_MAX = 10_000_000
MAX_TICKETS_PER_USER_DEFAULT = 2
MAX_TICKETS_PER_USER_MAX = 1_000

REQUEST_BODY_BYTES_MAX = 16 * 1024

REQUEST_HEAD_BYTES_MAX = 32 * 1024
"""What may arrive of a request before its head is complete; room for a token and some cookies."""

REQUEST_HEADERS_MAX = 100

REQUEST_SECONDS_MAX = 20.0
"""How long a request may take to arrive, from the connection or its first byte to its last."""

UNREAD_SECONDS_MAX = 30.0
"""How long a client may leave so many answers unread that no more fit into the buffers, before it is left."""

CONNECTIONS_MAX = 20_000
"""Connections that one API process holds; each costs some kilobytes."""

ENQUEUE_BATCH_MAX = 96
"""Commands that one call of the enqueue script takes; more wait for the next call."""

ENQUEUE_CALLS_MAX = 2
"""Calls of the enqueue script that an API process has on their way at a time."""

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

PREFERENCES_REMEMBERED_MAX = 64
"""Texts of the Prefer header that an API process has at hand as it has read them; nearly all say the same."""

REDIS_READ_BYTES = 1024 * 1024
"""What a worker takes from a connection at a time: most of a batch."""

LONE_STRETCH_SECONDS_MAX = 5.0
"""How long a worker stays with an event while no other waits, before it looks after heartbeat and sweep."""

PLAN_LOOK_SECONDS_MAX = 1.0
"""How long a worker may read for a batch that it decides ahead: well under a lease."""

PLANS_PAUSE_SECONDS = 30.0
"""How long a worker decides nothing ahead after it could not read for it."""

UNSURE_GUESS_PAUSE_SECONDS = 2.0
"""How long a worker reads what users hold after a batch could not be decided without that."""

REFUSED_GUESS_PAUSE_SECONDS = 30.0
"""The same after PostgreSQL refused a batch that was decided without that, which its log tells at length."""

COMMANDS_FROM_MEMORY_MAX = 32
"""Commands of a batch that is remembered, and decided without reading; a larger one gains little by it."""

EVENTS_REMEMBERED_MAX = 100
"""Events that a worker remembers at a time."""

USERS_REMEMBERED_MAX = 100_000
"""Users whose tickets a worker remembers at a time, of all events together; 15 MB or so, 70 at most."""

REDIS_CONNECTIONS_MAX = 50
"""Connections of one API process for reading; more readers wait for one to be free."""

WAITAOF_SHARE = 0.75
"""How much of the time limit of a Redis call may be spent on waiting for replicas."""

WAKE_TOKENS_MAX = 1_000
"""Length of the list on which idle workers block; a token more would wake nobody who sleeps."""

WAKE_ONE_TTL_SECONDS = 60
"""How long a token for one worker stays that no longer waits."""

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

STANDSTILL_SECONDS = 10.0
"""A line in which nothing was applied for so long stands still: nobody can say when it will be whose turn."""

DRAIN_MEMORY = 0.8
"""What the batches until now count in the measured drain rate when one more is added: the last few matter."""

JOBS_READ_AT_ONCE_MAX = 256
"""Jobs that are read in one round trip after the subscription was lost."""

PROGRESS_READ_AT_ONCE_MAX = 500
"""Lines that one call of a script looks at, so that it never holds Redis for long."""

RETRY_AFTER_SECONDS_MAX = 30
"""The longest that a client is told to wait before it asks again, before some chance is added."""

RETRY_AFTER_UNKNOWN_SECONDS = 2.0
"""The same where nobody can say how long it will take."""

RETRY_AFTER_SPREAD = 0.5
"""How much longer than that, at most, by chance, so that clients don't come back all at once."""

STREAM_SECONDS_MAX = 900.0
"""The longest that one stream of a job stays open; its client opens another, and nothing is missed."""

STREAM_SEND_SECONDS_MAX = 30.0
"""How long a client may leave an event of its stream unread before the stream is given up."""

CLOSE_SECONDS_MAX = 5.0
"""How long a connection that is closed waits for its client to take what was written before."""

STREAM_RESULT_SECONDS_MAX = 2.0
"""How long after its turn a stream waits for the result to be sent before it asks for it."""

STREAM_RETRY_MS = (1_000, 5_000)
"""When a client opens its stream again after it broke off; by chance, so that they don't come all at once."""

BOX_OFFICE_STREAMS_MAX = 500
"""Box offices that one API process serves at a time, beside the streams of buyers."""

BOX_OFFICE_EVENTS_MAX = 20
"""Events of which one API process shows the box office at a time; any number may watch each of them."""

BOX_OFFICE_COUNTED_AT_ONCE_MAX = 50_000
"""Rows of ledgers that one look counts, of all events together; the next look counts on from there."""

BOX_OFFICE_COUNTS_REMEMBERED_MAX = 1_000
"""Events of which an API process remembers what it has counted, for who comes again."""

BOX_OFFICE_ENTRIES = 20
"""The newest rows of the ledger that a box office shows."""

BOX_OFFICE_LATENCY_SECONDS = 10.0
BOX_OFFICE_LATENCY_ROWS_MAX = 5_000
"""Of which commands a box office tells how long they took: those applied so lately, the newest of them."""

BOX_OFFICE_READ_SECONDS_MAX = 2.0
"""How long one look may read, once it is connected; then it tells what it knows from before."""

BOX_OFFICE_SNAPSHOTS_MAX = 1_000
"""Snapshots that a client may ask for; who wants more asks for no number."""

AUTHORIZATION_LENGTH_MAX = 8 * 1024
"""Characters of an Authorization header; a longer one is refused unread."""

API_KEYS_MAX = 10_000
"""Keys that an API process holds in memory, and the most that can be made."""

API_KEY_TEXT_LENGTH_MAX = 128
"""Characters of an account's name and of a key's label."""

API_KEY_EVENTS_MAX = 1_000
"""Events that a seller's key may be held to."""

API_KEY_DAYS_MAX = 3_650
API_KEY_OVERLAP_HOURS_MAX = 24 * 30
"""How long the old secret of a key may be good after a rotation."""

TOKENS_REMEMBERED_MAX = 50_000
"""Tokens of customers that an API process remembers as good, so that each is checked once."""

JWT_LEEWAY_SECONDS = 30
"""How far the clock of the identity provider may be off."""

JWT_SECRET_LENGTH_MIN = 32
"""Characters of a secret for HS256 (RFC 7518, section 3.2: as many bits as the hash has)."""

JWKS_FILE_BYTES_MAX = 256 * 1024

EVENT_OWNERS_REMEMBERED_MAX = 100_000
"""Events of which an API process remembers whose they are; that never changes."""

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

LINES_TOLD_MAX = 20
"""Lines that metrics tell one by one, the longest; all others are added up."""

LINES_LOOKED_AT_MAX = 500
"""Events that metrics look at, of those that wait for a consumer and of those that have one."""

LINE_STATUS_SECONDS = 2.0
"""How long metrics remember what they read from Redis, however often they are asked."""

VERIFY_RESULT_TTL_SECONDS = 30 * 24 * 3600
"""How long metrics show what `verify` found last."""

ENDPOINT_SECONDS_MAX = 5.0
"""The longest that a worker's endpoint waits for a client that asks and says nothing."""

REQUEST_ID_LENGTH_MAX = 128

TRACED_COMMANDS_LOGGED_MAX = 100
"""Commands of one batch that a worker logs because their requests had an id; the ledger has all of them."""

assert TICKETS_PER_BOOKING_MAX <= MAX_TICKETS_PER_USER_DEFAULT
assert LINES_TOLD_MAX <= LINES_LOOKED_AT_MAX
assert ENQUEUE_BATCH_MAX < SUBMISSIONS_WAITING_MAX
assert STREAM_RESULT_SECONDS_MAX < STREAM_SEND_SECONDS_MAX < STREAM_SECONDS_MAX
assert BOX_OFFICE_EVENTS_MAX <= BOX_OFFICE_COUNTED_AT_ONCE_MAX
assert WEBHOOK_MESSAGES_PER_ROW_MAX <= WEBHOOK_MESSAGES_PENDING_MAX
