"""Clients as in real life: they retry, hang up, change their minds, and remember what they were told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from random import Random

import httpx

from shared.domain import CommandKind
from shared.identifiers import new_id
from tests.storm.journal import Journal, SentCommand, Told, told_of

ANSWER_SECONDS_MAX = 8.0
CONNECTIONS_PER_CLIENT = 2
COMMAND_SECONDS_MAX = 45.0
LAST_ANSWER_SECONDS_MAX = 5.0
PAUSE_SECONDS_MAX = 3.0
RETRY_SECONDS_MAX = 0.5
HANG_UP_SECONDS_MAX = 0.03
POLL_SECONDS = 0.3
WAIT_SECONDS = 5

CANCEL_SHARE = 0.3
UNKNOWN_BOOKING_SHARE = 0.02
HANG_UP_SHARE = 0.06
NEVER_RETRY_SHARE = 0.5
WAIT_SHARE = 0.3
WITHDRAW_SHARE = 0.05
SEND_AGAIN_SHARE = 0.1
OTHER_BODY_SHARE = 0.03
NEVER_ASK_SHARE = 0.1

TRY_LATER = (429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleEvent:
    """An event on sale, and how many different users come to it."""

    id: str
    total_tickets: int
    users: int


class Client:
    """One client with its own connections; it sends one command after the other."""

    def __init__(
        self, name: str, random: Random, events: Sequence[SaleEvent], ports: Sequence[int], journal: Journal
    ) -> None:
        self._name = name
        self._random = random
        self._events = events
        self._ports = ports
        self._journal = journal
        self._own: list[SentCommand] = []
        self._http = httpx.AsyncClient(
            timeout=ANSWER_SECONDS_MAX,
            limits=httpx.Limits(max_connections=CONNECTIONS_PER_CLIENT),
            # Nothing is encrypted, and loading the trusted certificates would take a while for each client.
            verify=False,
            trust_env=False,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Send commands until it is time to stop, and see the last one through."""
        async with self._http:
            while not stopping.is_set():
                await self._carry_out(self._next_command())
                await asyncio.sleep(self._random.uniform(0, PAUSE_SECONDS_MAX))

    async def ask_for(self, commands: Sequence[SentCommand], deadline: float) -> None:
        """Afterwards: ask what became of commands whose clients have never heard it."""
        async with self._http:
            for command in commands:
                if command.job_id is not None:
                    give_up_at = min(time.monotonic() + LAST_ANSWER_SECONDS_MAX, deadline)
                    await self._ask_until_done(command, command.job_id, give_up_at)

    def _next_command(self) -> SentCommand:
        key = f"{self._name}-{len(self._own)}"
        if self._random.random() < CANCEL_SHARE and self._own:
            command = self._cancellation(key, self._random.choice(self._own))
        else:
            command = self._booking(key)
        self._own.append(command)
        self._journal.commands.append(command)
        return command

    def _booking(self, key: str) -> SentCommand:
        event = self._random.choice(self._events)
        return SentCommand(
            key=key,
            event_id=event.id,
            kind=CommandKind.BOOK,
            user_id=f"user{self._random.randrange(event.users)}",
            ticket_count=self._random.choice((1, 2)),
        )

    def _cancellation(self, key: str, earlier: SentCommand) -> SentCommand:
        """Of a booking that may be made by now, still wait, have failed, or never have been there."""
        known = earlier.job_id if earlier.kind is CommandKind.BOOK else earlier.booking_id
        is_unknown = known is None or self._random.random() < UNKNOWN_BOOKING_SHARE
        return SentCommand(
            key=key,
            event_id=earlier.event_id,
            kind=CommandKind.CANCEL,
            booking_id=new_id() if is_unknown else known,
        )

    async def _carry_out(self, command: SentCommand) -> None:
        deadline = time.monotonic() + COMMAND_SECONDS_MAX
        wait = WAIT_SECONDS if self._random.random() < WAIT_SHARE else 0
        if self._random.random() < HANG_UP_SHARE:
            await self._hang_up(command)
            if self._random.random() < NEVER_RETRY_SHARE:
                return
        if not await self._send_until_answered(command, wait, deadline):
            return
        if self._random.random() < SEND_AGAIN_SHARE:
            await self._send_until_answered(command, 0, deadline)
        if self._random.random() < OTHER_BODY_SHARE:
            await self._send_other_body(command, deadline)
        if command.job_id is None or command.is_answered:
            return
        if self._random.random() < WITHDRAW_SHARE:
            await self._withdraw(command, command.job_id, deadline)
        if self._random.random() >= NEVER_ASK_SHARE:
            await self._ask_until_done(command, command.job_id, deadline)

    async def _hang_up(self, command: SentCommand) -> None:
        """Send, and be gone before the answer comes."""
        try:
            async with asyncio.timeout(self._random.uniform(0, HANG_UP_SECONDS_MAX)):
                await self._send(command, 0)
        except TimeoutError:
            self._journal.cut_off += 1

    async def _send_until_answered(self, command: SentCommand, wait: int, deadline: float) -> bool:
        """Send the same under the same key until there is an answer; whether there was one in time."""
        while time.monotonic() < deadline:
            told = await self._send(command, wait)
            if told is not None:
                command.told.append(told)
                return True
            await self._pause_before_retry()
        return False

    async def _send(self, command: SentCommand, wait: int) -> Told | None:
        if not command.attempts:
            command.first_sent_at = time.monotonic()
        command.attempts += 1
        headers = {"Idempotency-Key": command.key}
        if wait:
            headers["Prefer"] = f"wait={wait}"
        if command.kind is CommandKind.BOOK:
            return await self._request(
                "POST", f"/events/{command.event_id}/bookings", headers, json.dumps(command.payload)
            )
        return await self._request("DELETE", f"/bookings/{command.booking_id}", headers)

    async def _send_other_body(self, command: SentCommand, deadline: float) -> None:
        """Use the key for another command: it must be refused, not applied and not mistaken for the first."""
        if command.kind is not CommandKind.BOOK or command.job_id is None:
            return
        other = replace(command, user_id="someone-else", told=[])
        if await self._send_until_answered(other, 0, deadline):
            command.told_of_other_body += other.told

    async def _withdraw(self, command: SentCommand, job_id: str, deadline: float) -> None:
        command.is_withdrawal_asked = True
        while time.monotonic() < deadline:
            told = await self._request("DELETE", f"/jobs/{job_id}", {})
            if told is not None:
                command.told.append(told)
                return
            await self._pause_before_retry()

    async def _ask_until_done(self, command: SentCommand, job_id: str, deadline: float) -> None:
        headers = {"Prefer": f"wait={WAIT_SECONDS}"} if self._random.random() < WAIT_SHARE else {}
        latest: Told | None = None
        while time.monotonic() < deadline:
            told = await self._request("GET", f"/jobs/{job_id}", headers)
            latest = told or latest
            if told is not None and told.is_done:
                break
            await asyncio.sleep(POLL_SECONDS)
        if latest is not None:
            command.told.append(latest)

    async def _request(
        self, method: str, path: str, headers: dict[str, str], content: str | None = None
    ) -> Told | None:
        """One request; None if it has to be tried again."""
        if content is not None:
            headers = {**headers, "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self._random.choice(self._ports)}{path}"
        sent_at = time.monotonic()
        response = await answer_or_none(self._http.request(method, url, headers=headers, content=content))
        if response is None:
            self._journal.cut_off += 1
            return None
        if response.status_code in TRY_LATER:
            self._journal.refused_for_now += 1
            return None
        try:
            return told_of(sent_at, time.monotonic(), response.status_code, response.json())
        except (ValueError, KeyError, TypeError) as error:
            self._journal.strange_answers.append(
                f"{method} {path} was answered {response.status_code} {response.text[:300]!r} ({error!r})"
            )
            return None

    async def _pause_before_retry(self) -> None:
        await asyncio.sleep(self._random.uniform(0, RETRY_SECONDS_MAX))


async def answer_or_none(request: Awaitable[httpx.Response]) -> httpx.Response | None:
    """What a request was answered; None if its connection was cut or could not be made."""
    try:
        return await request
    except httpx.TransportError:
        return None


async def ask_for_the_rest(
    clients: Sequence[Client], commands: Sequence[SentCommand], deadline: float
) -> None:
    """Share out among these clients the question what became of commands."""
    async with asyncio.TaskGroup() as group:
        for index, client in enumerate(clients):
            group.create_task(client.ask_for(commands[index :: len(clients)], deadline))


async def run_clients(clients: Sequence[Client], stopping: asyncio.Event) -> None:
    """Run all of them until they have stopped."""
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(stopping))
