"""A real Chromium, one for all tests of this folder, and a clean profile of it for each.

Chromium comes from the machine (Debian: `apt-get install chromium-headless-shell`), not from
Playwright's own download; without one these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

# The first has no windows to draw and takes half the CPU of the others.
CHROMIUM_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

QUIET = ["--disable-background-networking", "--disable-component-update"]
# Two hundred pages of as many hosts would be two hundred processes, and five gigabytes.
FEW_PROCESSES = [
    "--renderer-process-limit=24",
    "--disable-site-isolation-trials",
    "--disable-features=IsolateOrigins,site-per-process",
]

# Pages pause up to ten seconds between two tries; a busy machine makes it more.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Ends with this folder: while it lasts, Playwright's event loop has the thread that runs the tests."""
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        # Chromium refuses to run its sandbox as root, which is what a container's tests run as.
        browser = playwright.chromium.launch(
            executable_path=executable, args=QUIET + FEW_PROCESSES, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


class Complaints:
    """What a page must never give cause for: errors, breaches of its policy, requests to other machines."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def listen(self, context: BrowserContext) -> None:
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.found.append(str(error.error)))
        context.on("request", self._look)

    def _hear(self, message: ConsoleMessage) -> None:
        # The browser notes each refused or failed request itself; that is no fault of the page.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.found.append(message.text)

    def _look(self, request: Request) -> None:
        url = urlsplit(request.url)
        host = url.hostname or ""
        if url.scheme != "data" and host != "127.0.0.1" and not host.endswith(".localhost"):
            self.found.append(request.url)


@contextmanager
def watched(context: BrowserContext) -> Iterator[BrowserContext]:
    """A profile whose pages may give no cause for complaint, until it is closed."""
    complaints = Complaints()
    complaints.listen(context)
    yield context
    context.close()
    assert complaints.found == []


@pytest.fixture
def browser_context(chromium: Browser) -> Iterator[BrowserContext]:
    with watched(chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")) as context:
        yield context


@pytest.fixture
def plain_context(chromium: Browser) -> Iterator[BrowserContext]:
    """Small and without motion: what two hundred pages draw is a machine's worth of work."""
    phone: ViewportSize = {"width": 320, "height": 480}
    with watched(chromium.new_context(viewport=phone, reduced_motion="reduce", locale="en-GB")) as context:
        yield context


@pytest.fixture
def page(browser_context: BrowserContext) -> Page:
    return browser_context.new_page()
