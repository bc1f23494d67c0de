"""What can go wrong, as against what is refused by the rules (that is an `Outcome`).

OnsaleError
├── EventNotFound
├── EventArchived
├── SalesNotOpen
├── TooManyWebhooks
├── AddressRefused
├── ForeignJob
├── LineFull
├── RateLimited
├── IdempotencyKeyReused
├── TemporarilyUnavailable
│   ├── LineUnavailable
│   ├── DatabaseUnavailable
│   └── TooManyWaiting
├── StaleClaim
├── MigrationRefused
├── ArchiveRefused
├── ArchiveUnreadable
├── EventLocked
└── EventBlocked
    ├── OutOfTurn
    └── WriteRefused
"""

from __future__ import annotations

from shared import limits


class OnsaleError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class EventNotFound(OnsaleError):
    """There is no event with this id."""


class EventArchived(OnsaleError):
    """The event was archived: its rows are in a file that its operator keeps."""


class SalesNotOpen(OnsaleError):
    """Sales of this event open later. `sales_open_at` is the time, as text."""

    def __init__(self, sales_open_at: str) -> None:
        super().__init__(f"sales open at {sales_open_at}")
        self.sales_open_at = sales_open_at


class TooManyWebhooks(OnsaleError):
    """This event has as many webhooks as it may have."""


class AddressRefused(OnsaleError):
    """No webhook is delivered to this address."""


class ForeignJob(OnsaleError):
    """A job in a queue of ours that calls something else than it is for."""


class LineFull(OnsaleError):
    """The line of this event is as long as it may be."""


class RateLimited(OnsaleError):
    """A caller asks more often than it may: `quota` requests in a window, the next in `retry_seconds`."""

    def __init__(self, quota: int, retry_seconds: int) -> None:
        super().__init__(f"more than {quota} requests in {limits.RATE_WINDOW_SECONDS} seconds")
        self.quota = quota
        self.retry_seconds = retry_seconds


class IdempotencyKeyReused(OnsaleError):
    """This Idempotency-Key came before with another command."""


class TemporarilyUnavailable(OnsaleError):
    """A server that is needed does not answer; the same call may succeed in a moment."""


class LineUnavailable(TemporarilyUnavailable):
    """Redis does not answer, or can't keep what it is given."""


class DatabaseUnavailable(TemporarilyUnavailable):
    """PostgreSQL does not answer in time."""


class TooManyWaiting(TemporarilyUnavailable):
    """As many clients wait here as may."""


class StaleClaim(OnsaleError):
    """A newer consumer has taken over this event; the batch is abandoned.

    `newest_token` is the fencing token that the event row has seen.
    """

    def __init__(self, newest_token: int) -> None:
        super().__init__(f"the event row has already seen fencing token {newest_token}")
        self.newest_token = newest_token


class MigrationRefused(OnsaleError):
    """The schema could not be brought to the revision that was asked for."""


class ArchiveRefused(OnsaleError):
    """The event can't be archived as it is now."""


class ArchiveUnreadable(OnsaleError):
    """The file is not an archive, not all of one, or was changed after it was written."""


class EventLocked(OnsaleError):
    """Another transaction holds the row of one event for too long; others are not concerned."""


class EventBlocked(OnsaleError):
    """The line of one event can't move until an operator has looked at it; others are not concerned."""


class OutOfTurn(EventBlocked):
    """The head of the line does not follow the last applied position; nothing is applied.

    It means that Redis and PostgreSQL don't come from the same history, for example after one of them
    was restored from a backup. An operator has to decide.
    """


class WriteRefused(EventBlocked):
    """PostgreSQL refuses what a batch would write, by one of its constraints; nothing is applied.

    Its tables hold something that the rules could not have made.
    """
