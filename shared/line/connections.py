"""Clients of Redis, with a time limit and bounded retries on every call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from shared import limits, metrics
from shared.errors import LineUnavailable
from shared.settings import Settings

_UVLOOP_CLOSED = "the handler is closed"
"""What uvloop says, as a RuntimeError, to who writes on a connection that was lost a moment ago."""

_BACKOFF = ExponentialBackoff(cap=0.2, base=0.02)


def connect(settings: Settings, *, blocking_seconds: float = 0.0) -> redis.Redis:
    """A client for a process without an event loop; nothing is connected yet.

    `blocking_seconds` is how long its blocking calls wait on purpose, beside the time limit.
    """
    return redis.Redis.from_url(
        settings.redis_url,
        socket_read_size=limits.REDIS_READ_BYTES,
        socket_timeout=settings.redis_timeout_seconds + blocking_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=retry(),
    )


def retry() -> Retry:
    """How what failed for a lost connection is tried again."""
    return Retry(_BACKOFF, limits.REDIS_RETRIES_MAX, supported_errors=(RedisConnectionError,))


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """A client for an event loop; nothing is connected yet. More calls at once than connections wait."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=limits.REDIS_CONNECTIONS_MAX,
        timeout=settings.redis_timeout_seconds,
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=retry_async(),
    )
    return redis.asyncio.Redis.from_pool(pool)


def retry_async() -> AsyncRetry:
    """The same for an event loop."""
    return AsyncRetry(_BACKOFF, limits.REDIS_RETRIES_MAX, supported_errors=(RedisConnectionError,))


def connect_subscriber(settings: Settings) -> redis.asyncio.Redis:
    """A client whose lost connection is an error, so that its user learns what it may have missed."""
    return redis.asyncio.Redis.from_url(
        settings.redis_url,
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=AsyncRetry(NoBackoff(), 0),
    )


@contextmanager
def line_errors() -> Iterator[None]:
    """Turn what Redis raises into `LineUnavailable`."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise line_error(error) from error
    except RuntimeError as error:
        if _UVLOOP_CLOSED not in str(error):
            raise
        raise line_error(error) from error


def line_error(error: Exception) -> LineUnavailable:
    """What Redis raises, or redis-py, as an error of ours; counted."""
    metrics.REDIS_ERRORS.inc()
    return LineUnavailable(f"Redis: {error}")
