"""Counts that API processes share: how often each caller asked in a span of time."""

from __future__ import annotations

from collections.abc import Mapping

import redis.asyncio

from shared.line import keys
from shared.line.connections import line_errors


class Tallies:
    """Adds what one process counted to what all did."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def add(self, span: int, counted: Mapping[str, int], *, ttl_seconds: int) -> dict[str, int]:
        """Add to the tally of each caller in this span; gives what all processes have counted together.

        Raises:
            LineUnavailable: Redis does not answer. The counts may or may not have been added.
        """
        key = f"{keys.TALLY}{span}"
        with line_errors():
            async with self._client.pipeline(transaction=False) as pipeline:
                for caller, count in counted.items():
                    pipeline.hincrby(key, caller, count)
                pipeline.expire(key, ttl_seconds)
                totals = await pipeline.execute()
        return dict(zip(counted, (int(total) for total in totals[:-1]), strict=True))
