"""One buyer's connection: it is opened again when it is lost, and asks again when told to come later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bench.clients import Answer, Client, connect
from demo.journal import Command, Journal, reason_of, told_of
from shared.domain import CommandKind

ATTEMPTS_MAX = 100
"""Of one request; the time limit of the stampede ends it long before, as a rule."""

PAUSE_SECONDS = 0.2
RETRY_SECONDS_MAX = 60.0
WAIT: Mapping[str, str] = MappingProxyType({"Prefer": "wait=20"})
"""How long a result is waited for with one request, in seconds."""

TOO_SLOW_TO_ASK = 408
TRY_AGAIN = (TOO_SLOW_TO_ASK, 429, 503)
LOST = "connection-lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Where the buyers go. One that knows no Idempotency-Key must not be asked for the same twice."""

    url: str
    event_id: str
    headers: Mapping[str, str]
    knows_keys: bool
    answer_seconds_max: float


class Visitor:
    """Sends one buyer's commands, one after the other, and writes down what is answered.

    One who watches takes their place in line, and then asks how far it has come; others wait for the result.
    """

    def __init__(
        self, shop: Shop, client: Client, journal: Journal, *, began_at: float, watches: bool
    ) -> None:
        """`began_at` is when the rush began, by `time.monotonic`."""
        self._shop = shop
        self._client: Client | None = client
        self._journal = journal
        self._began_at = began_at
        self._preference = {} if watches else WAIT

    async def book(self, user_id: str, ticket_count: int) -> Command:
        """Ask for tickets, and wait for the result."""
        command = Command(
            kind=CommandKind.BOOK, user_id=user_id, ticket_count=ticket_count, sent_at=self._now()
        )
        body = {"user_id": user_id, "ticket_count": ticket_count}
        await self._carry_out(command, "POST", f"/events/{self._shop.event_id}/bookings", body)
        return command

    async def cancel(self, booking: Command, booking_id: str) -> Command:
        """Give back what was booked, and wait for the result."""
        command = Command(
            kind=CommandKind.CANCEL,
            user_id=booking.user_id,
            ticket_count=booking.ticket_count,
            cancels=booking_id,
            sent_at=self._now(),
        )
        await self._carry_out(command, "DELETE", f"/bookings/{booking_id}")
        return command

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _carry_out(self, command: Command, method: str, path: str, body: object = None) -> None:
        self._journal.send(command)
        key = f"{self._shop.event_id}-{command.user_id}-{len(self._journal.commands)}"
        answer = await self._ask(method, path, {"Idempotency-Key": key, **self._preference}, body)
        while answer is not None:
            told = told_of(command.kind, self._now(), answer.status, answer.document)
            self._journal.hear(command, told)
            if told.is_done:
                return
            answer = await self._ask("GET", f"/jobs/{told.job_id}", WAIT)

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: object = None
    ) -> Answer | None:
        """Send a request until it is answered; None if it never was."""
        for _ in range(ATTEMPTS_MAX):
            try:
                if self._client is None:
                    self._client = await connect(self._shop.url, self._shop.answer_seconds_max)
                answer = await self._client.request(method, path, body, {**self._shop.headers, **headers})
            except OSError:
                self._journal.put_off[LOST] += 1
                self.hang_up()
                if not self._shop.knows_keys:
                    return None
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if answer.status not in TRY_AGAIN:
                return answer
            self._journal.put_off[reason_of(answer.status, answer.document)] += 1
            if answer.status == TOO_SLOW_TO_ASK:
                self.hang_up()
            await asyncio.sleep(min(max(answer.retry_after_seconds, PAUSE_SECONDS), RETRY_SECONDS_MAX))
        return None

    def _now(self) -> float:
        return time.monotonic() - self._began_at
