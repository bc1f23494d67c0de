"""The Idempotency-Key header: the same key by the same caller is the same job, for ever.

No table of keys is kept. The id of the job is derived from the caller and the key, so Redis recognises it
while it is recent and the ledger, whose primary key it is, for ever after. The command itself is the
fingerprint. Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from api.context import ApiContext
from api.problems import ProblemError, idempotency_key_malformed
from shared import limits
from shared.errors import DatabaseUnavailable, IdempotencyKeyReused
from shared.identifiers import derived_id
from shared.line.producer import Submission
from shared.records import LedgerRecord

IDEMPOTENCY_KEY_PATTERN = rf"^[\x21-\x7e]{{1,{limits.IDEMPOTENCY_KEY_LENGTH_MAX}}}$"
_VISIBLE_ASCII = re.compile(IDEMPOTENCY_KEY_PATTERN)


def keyed_job_id(caller: str, key: str) -> str:
    """The id of the job that this caller means by this key.

    Raises:
        ProblemError: the key is malformed.
    """
    if not _VISIBLE_ASCII.fullmatch(key):
        raise ProblemError(idempotency_key_malformed())
    return derived_id("idempotency-key", caller, key)


async def recall(context: ApiContext, submission: Submission) -> LedgerRecord | Submission:
    """The ledger row of a command that was applied before, or else the command to submit.

    Redis is not asked here: it recognises the command when it is submitted. While PostgreSQL is away the
    command goes to the line with a note that the consumer has to look.

    Raises:
        IdempotencyKeyReused: the ledger has another command under this key.
    """
    try:
        entry = await context.ledger.find(submission.job_id)
    except DatabaseUnavailable:
        return replace(submission, unchecked=True)
    if entry is None:
        return submission
    if entry.event_id != submission.event_id or entry.payload != submission.payload:
        raise IdempotencyKeyReused
    return entry
