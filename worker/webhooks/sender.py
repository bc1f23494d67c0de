"""One HTTP request to a target: to an address that was looked at, in a bounded time, to a bounded answer."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from types import TracebackType
from typing import Self

import anyio.to_thread
import httpx

from shared import limits
from shared.clock import Clock
from shared.errors import AddressRefused
from shared.settings import Settings
from shared.webhooks.addresses import Address, Resolve, checked_addresses, port_of, read_url
from worker.webhooks.verdict import Answer

_USER_AGENT = "Onsale-Webhooks"

# It would log every URL, and a URL may hold a secret of its owner.
logging.getLogger("httpx").setLevel(logging.WARNING)


@lru_cache(maxsize=1)
def public_certificates() -> ssl.SSLContext:
    """What targets must show; loading the trusted certificates takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)


class Sender:
    """Sends messages to one target, over a connection that is kept while more follow. For one thread."""

    def __init__(
        self, clock: Clock, settings: Settings, *, resolve: Resolve, certificates: ssl.SSLContext
    ) -> None:
        self._clock = clock
        self._allow_private = settings.webhooks_allow_private
        self._seconds_max = settings.webhooks_attempt_seconds_max
        self._resolve = resolve
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            verify=certificates,
            # No proxy from the environment, which would connect to an address that nobody looked at.
            trust_env=False,
            follow_redirects=False,
            # An address that swallows everything leaves time for the next one.
            timeout=httpx.Timeout(
                self._seconds_max, connect=self._seconds_max / limits.WEBHOOK_ADDRESSES_TRIED_MAX
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def send(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Post a body. Whatever goes wrong on the way is an answer too."""
        started = self._clock.monotonic_seconds()
        status_code, error = self._runner.run(self._send_in_time(url, headers, body))
        return Answer(status_code=status_code, error=error, seconds=self._clock.monotonic_seconds() - started)

    async def _send_in_time(
        self, url: str, headers: Mapping[str, str], body: str
    ) -> tuple[int | None, str | None]:
        try:
            async with asyncio.timeout(self._seconds_max):
                status_code = await self._post(url, headers, body)
        except TimeoutError:
            return None, f"no answer within {self._seconds_max:g} seconds"
        except AddressRefused as error:
            return None, f"not sent: {error}"
        except httpx.HTTPError as error:
            return None, _printable(f"{type(error).__name__}: {error}")
        return status_code, _error_of_status(status_code)

    async def _post(self, text: str, headers: Mapping[str, str], body: str) -> int:
        url = read_url(text, allow_private=self._allow_private)
        found = await self._addresses(url)
        *first, last = checked_addresses(found, allow_private=self._allow_private)
        for address in first:
            try:
                return await self._post_to(address, url, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._post_to(last, url, headers, body)

    async def _addresses(self, url: httpx.URL) -> Sequence[str]:
        look_up = partial(self._resolve, url.raw_host.decode(), port_of(url))
        try:
            found = await anyio.to_thread.run_sync(look_up, abandon_on_cancel=True)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"the host has no address ({error})") from error
        if not found:
            raise httpx.ConnectError("the host has no address")
        return found

    async def _post_to(self, address: Address, url: httpx.URL, headers: Mapping[str, str], body: str) -> int:
        """The host stays what it is in the request and for the certificate; only the way there is fixed."""
        request = self._client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            headers={
                "Host": url.netloc.decode(),
                "User-Agent": _USER_AGENT,
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
                **headers,
            },
            content=body.encode(),
            extensions={"sni_hostname": url.raw_host.decode()},
        )
        response = await self._client.send(request, stream=True)
        try:
            await _read_some(response)
        finally:
            await response.aclose()
        return response.status_code


async def _read_some(response: httpx.Response) -> None:
    """Read an answer to its end, if that is near, so that the connection can be used again."""
    read = 0
    async for part in response.aiter_raw():
        read += len(part)
        if read > limits.WEBHOOK_RESPONSE_BYTES_MAX:
            return


def _printable(text: str) -> str:
    """As much as the log keeps of a text in which the target may have had a say."""
    return "".join(each if each.isprintable() else "?" for each in text[: limits.REASON_LENGTH_MAX])


def _error_of_status(status_code: int) -> str | None:
    if 200 <= status_code < 300:
        return None
    if 300 <= status_code < 400:
        return f"answered {status_code}; redirects are not followed"
    return f"answered {status_code}"
