"""How long the product takes to work again: until a booking is applied."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import httpx

from shared.domain import CommandKind
from tests.storm.clients import answer_or_none
from tests.storm.journal import Journal, SentCommand, told_of

WAIT_SECONDS = 5
RECOVERY_SECONDS_MAX = 60.0
RETRY_SECONDS = 0.02
ANSWER_SECONDS_MAX = WAIT_SECONDS + 2.0


class Probe:
    """Books on an event of its own, each time for another user."""

    def __init__(self, event_id: str, ports: Sequence[int], journal: Journal) -> None:
        self._event_id = event_id
        self._journal = journal
        self._ports = itertools.cycle(ports)
        self._numbers = itertools.count()

    async def seconds_until_applied(self, since: float) -> float | None:
        """Seconds since that moment of the monotonic clock; None if it takes too long."""
        number = next(self._numbers)
        command = SentCommand(
            key=f"probe-{number}",
            event_id=self._event_id,
            kind=CommandKind.BOOK,
            user_id=f"probe{number}",
            ticket_count=1,
            first_sent_at=time.monotonic(),
        )
        self._journal.commands.append(command)
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS_MAX, verify=False, trust_env=False) as http:
            while time.monotonic() - since < RECOVERY_SECONDS_MAX:
                if await self._is_applied(http, command):
                    return time.monotonic() - since
                await asyncio.sleep(RETRY_SECONDS)
        return None

    async def _is_applied(self, http: httpx.AsyncClient, command: SentCommand) -> bool:
        command.attempts += 1
        sent_at = time.monotonic()
        response = await answer_or_none(
            http.post(
                f"http://127.0.0.1:{next(self._ports)}/events/{self._event_id}/bookings",
                json=command.payload,
                headers={"Idempotency-Key": command.key, "Prefer": f"wait={WAIT_SECONDS}"},
            )
        )
        if response is None or response.status_code not in (201, 202):
            return False
        command.told.append(told_of(sent_at, time.monotonic(), response.status_code, response.json()))
        return response.status_code == 201
