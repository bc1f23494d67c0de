"""The box office in a real browser: numbers that move, what an organiser does, and what is lost."""

from __future__ import annotations

import math
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import redis
from playwright.sync_api import BrowserContext, Page, expect

from local.servers import ValkeyServer, free_port
from shared.api_keys import Role
from shared.database.engine import Database
from shared.database.roles import API
from shared.settings import Authentication, Settings
from tests.browser.accessible import barriers
from tests.browser.pictures import take
from tests.builders import book as command
from tests.builders import create_event, make_key, outcomes_in_ledger, submit, violations, wait_until
from tests.conftest import StartWorker
from tests.serving import Serving, serving
from tests.storm.loop_thread import LoopThread
from tests.storm.proxy import Proxy, Traffic

NAME = "Nils Frahm: Summer Night at the Docks"
Serve = Callable[..., Serving]


@pytest.fixture
def serve(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis
) -> Iterator[Serve]:
    """Starts an API whose box offices are quick."""
    with ExitStack() as stack:
        usual: dict[str, Any] = {"database_url": logins[API], "stream_position_seconds": 0.1}
        yield lambda **changes: stack.enter_context(serving(settings, **(usual | changes)))


@pytest.fixture
def page(serve: Serve, browser_context: BrowserContext) -> Page:
    """Closed before the API ends, which waits for its open streams."""
    return browser_context.new_page()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@contextmanager
def proxied(api: Serving) -> Iterator[tuple[str, Callable[[Traffic], None]]]:
    """A way to the API that can be cut, and how to."""
    proxy = Proxy(port=free_port(), target_port=api.address[1])
    with LoopThread() as loop:
        loop.call(proxy.start())
        try:
            yield f"http://127.0.0.1:{proxy.port}", lambda traffic: loop.call(proxy.switch(traffic))
        finally:
            loop.call(proxy.close())


def put_on_sale(api: httpx.Client, **terms: object) -> str:
    answer = api.post("/events", json={"name": NAME, "total_tickets": 120, **terms})
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


def book(api: httpx.Client, event_id: str, users: list[str], tickets: int = 1) -> None:
    for user in users:
        answer = api.post(f"/events/{event_id}/bookings", json={"user_id": user, "ticket_count": tickets})
        assert answer.status_code == 202, answer.text


def open_office(page: Page, base_url: object, event_id: str) -> None:
    page.goto(f"{base_url}/box-office/{event_id}")


def figure(page: Page, id: str, text: str | re.Pattern[str]) -> None:
    expect(page.locator(f"#{id}")).to_have_text(text)


def connection(page: Page, text: str | re.Pattern[str]) -> None:
    figure(page, "connection", text)


def refusal(page: Page, reason: str, count: int) -> None:
    expect(page.locator("#refusals li").filter(has_text=reason)).to_contain_text(str(count))


def line_of(page: Page, chart: str) -> str:
    """The first curve of a chart, as it is drawn."""
    path = page.locator(f"#{chart} .series-1 .line").first
    expect(path).to_have_attribute("d", re.compile("M"))
    return path.get_attribute("d") or ""


def test_numbers_and_charts_move_as_bookings_come(
    page: Page, serve: Serve, database: Database, start_worker: StartWorker
) -> None:
    api = serve()
    event_id = put_on_sale(api.client, total_tickets=20)
    open_office(page, api.client.base_url, event_id)
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    connection(page, "Live")
    figure(page, "state", "On sale")
    figure(page, "sold", "0")
    figure(page, "left", "20")
    expect(page.get_by_text("Nobody has been refused.")).to_be_visible()
    expect(page.get_by_text("Nothing has been decided yet")).to_be_visible()
    assert barriers(page) == []
    take(page, "box-office-empty")

    book(api.client, event_id, [f"user{number}" for number in range(9)], tickets=2)
    figure(page, "line", "9")
    expect(page.locator("#oldest")).to_contain_text("the first for")
    drawn = line_of(page, "line-chart")
    start_worker()
    figure(page, "line", "0")
    figure(page, "sold", "18")
    figure(page, "left", "2")
    figure(page, "sold-share", "90 % of 20 tickets")
    expect(page.locator("#p99")).to_contain_text("s")
    assert line_of(page, "line-chart") != drawn
    assert line_of(page, "latency-chart")

    book(api.client, event_id, ["user0", "zoe", "yan"], tickets=2)
    refusal(page, "Over the buyer", 1)
    refusal(page, "Not enough tickets left", 1)
    figure(page, "state", "Sold out")
    figure(page, "refused", "2")
    expect(page.locator("#ledger tr")).to_have_count(12)
    newest = page.locator("#ledger tr").first
    expect(newest).to_contain_text("12")
    expect(newest).to_contain_text("yan")
    expect(newest).to_contain_text("Not enough tickets left")
    assert len(outcomes_in_ledger(database, event_id)) == 12
    assert barriers(page) == []


def test_figures_of_seven_digits_fit_their_tiles_at_any_width(page: Page, serve: Serve) -> None:
    api = serve()
    event_id = put_on_sale(api.client, total_tickets=1_000_000)
    open_office(page, api.client.base_url, event_id)
    figure(page, "left", "1,000,000")
    page.evaluate(
        "document.querySelectorAll('.figure').forEach((figure) => { figure.textContent = '1,000,000'; })"
    )
    too_wide = (
        "Array.from(document.querySelectorAll('.tile, html'))"
        ".filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.textContent)"
    )
    for width in (320, 390, 560, 768, 960, 1280, 1440, 1920, 3840):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(too_wide) == [], width


def test_who_does_not_see_the_chart_is_told_what_it_shows(
    page: Page, serve: Serve, database: Database, start_worker: StartWorker
) -> None:
    start_worker()
    api = serve()
    event_id = put_on_sale(api.client)
    book(api.client, event_id, ["ann", "bob"])
    wait_until(lambda: len(outcomes_in_ledger(database, event_id)) == 2)
    open_office(page, api.client.base_url, event_id)
    image = page.get_by_role("img", name=re.compile(r"From submit to result\. Half in: .* last"))
    expect(image).to_be_visible()
    chart = page.locator("#line-chart")
    chart.get_by_text("In numbers").click()
    expect(chart.get_by_role("columnheader", name="Commands")).to_be_visible()
    expect(chart.get_by_role("row")).not_to_have_count(1)
    # Not each number is told as it changes: only what changes the situation is, and what is asked for.
    told = page.get_by_role("status")
    expect(told).to_contain_text("2 tickets sold, 118 left.")
    book(api.client, event_id, ["eve"])
    figure(page, "sold", "3")
    expect(told).to_contain_text("2 tickets sold, 118 left.")
    page.get_by_role("button", name="Read the numbers out").focus()
    page.keyboard.press("Enter")
    expect(told).to_contain_text("3 tickets sold, 117 left.")
    assert barriers(page) == []


def test_sales_are_closed_and_opened_in_line_with_the_bookings(
    page: Page, serve: Serve, database: Database, start_worker: StartWorker
) -> None:
    api = serve()
    event_id = put_on_sale(api.client)
    book(api.client, event_id, ["ann", "bob"])
    open_office(page, api.client.base_url, event_id)
    page.get_by_role("button", name="Close sales").click()
    dialog = page.get_by_role("dialog", name="Close sales?")
    expect(dialog).to_be_visible()
    assert barriers(page) == []
    take(page, "box-office-close")
    dialog.get_by_role("button", name="Keep selling").click()
    expect(dialog).to_be_hidden()
    assert api.client.get(f"/events/{event_id}").json()["sales_closed"] is False

    page.get_by_role("button", name="Close sales").click()
    dialog.get_by_role("button", name="Close sales").click()
    expect(page.get_by_text("Closing sales: 2 before it in line")).to_be_visible()
    start_worker()
    expect(page.get_by_text("Sales are closed. It was number 3 in line.")).to_be_visible()
    figure(page, "state", "Sales are closed")
    figure(page, "sold", "2")
    book(api.client, event_id, ["eve"])
    refusal(page, "Sales closed", 1)
    expect(page.locator("#ledger")).to_contain_text("Close sales")
    assert barriers(page) == []
    take(page, "box-office-closed")

    page.get_by_role("button", name="Open sales").click()
    figure(page, "state", "On sale")
    book(api.client, event_id, ["eve"])
    figure(page, "sold", "3")
    assert violations(database) == []


def test_the_total_is_changed_and_never_below_what_is_sold(
    page: Page, serve: Serve, start_worker: StartWorker
) -> None:
    start_worker()
    api = serve()
    event_id = put_on_sale(api.client)
    book(api.client, event_id, ["ann", "bob"])
    open_office(page, api.client.base_url, event_id)
    figure(page, "sold", "2")
    dialog = page.get_by_role("dialog", name="Change the total")
    for total, told in (
        ("1,500", "There are 1,500 tickets in all now."),
        ("1", "Not done."),
    ):
        page.get_by_role("button", name="Change total").click()
        expect(dialog).to_contain_text("2 tickets sold so far")
        dialog.get_by_label("Tickets in all").fill("many")
        dialog.get_by_role("button", name="Change it").click()
        expect(dialog.get_by_role("alert")).to_have_text("Write a whole number, 1 at least.")
        assert barriers(page) == []
        dialog.get_by_label("Tickets in all").fill(total)
        page.keyboard.press("Enter")
        expect(page.locator("#command")).to_contain_text(told)
        figure(page, "left", "1,498")


def test_an_event_is_added(page: Page, serve: Serve) -> None:
    api = serve()
    open_office(page, api.client.base_url, "new")
    dialog = page.get_by_role("dialog", name="Add an event")
    dialog.get_by_role("button", name="Put it on sale").click()
    expect(dialog.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    expect(dialog.get_by_label("Name")).to_be_focused()
    dialog.get_by_label("Name").fill(NAME)
    dialog.get_by_label("Tickets", exact=True).fill("1.200")
    dialog.get_by_label("Tickets per buyer").fill("4")
    dialog.get_by_label(re.compile("Sales open at")).fill("2099-12-31T20:00")
    assert barriers(page) == []
    take(page, "box-office-add")
    dialog.get_by_role("button", name="Put it on sale").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    figure(page, "state", "Not on sale yet")
    expect(page.locator("#opens-at")).to_contain_text("2099")
    added = api.client.get(f"/events/{page.url.rpartition('/')[2]}").json()
    assert (added["total_tickets"], added["max_tickets_per_user"]) == (1200, 4)


def test_a_lost_connection_is_said_and_comes_back(
    page: Page, serve: Serve, start_worker: StartWorker
) -> None:
    start_worker()
    api = serve()
    event_id = put_on_sale(api.client)
    book(api.client, event_id, ["ann"])
    with proxied(api) as (address, switch):
        open_office(page, address, event_id)
        figure(page, "sold", "1")
        switch(Traffic.CUT)
        connection(page, "Connection lost")
        away = page.locator("#away-text")
        expect(away).to_contain_text("be reached. Trying again… The numbers are those of ")
        expect(page.get_by_role("status")).to_have_text("The connection is lost. Trying again.")
        figure(page, "sold", "1")
        assert barriers(page) == []
        take(page, "box-office-lost")
        book(api.client, event_id, ["bob"])
        switch(Traffic.FLOWS)
        figure(page, "sold", "2")
        connection(page, "Live")
        expect(away).to_be_hidden()
        expect(page.get_by_role("status")).to_have_text("Connected again.")
        page.close()


def test_a_server_that_says_nothing_is_noticed(page: Page, serve: Serve) -> None:
    api = serve()
    event_id = put_on_sale(api.client)
    page.clock.install()
    with proxied(api) as (address, switch):
        open_office(page, address, event_id)
        connection(page, "Live")
        switch(Traffic.STALLED)
        page.clock.run_for(8_000)
        connection(page, re.compile(r"No news for \d+ s"))
        expect(page.locator("#away-text")).to_contain_text("Onsale has said nothing for")
        switch(Traffic.FLOWS)
        connection(page, "Live")
        page.close()


def test_a_line_that_can_not_be_seen_is_said(
    page: Page, serve: Serve, valkey: ValkeyServer, start_worker: StartWorker
) -> None:
    api = serve()
    event_id = put_on_sale(api.client)
    book(api.client, event_id, ["ann"])
    open_office(page, api.client.base_url, event_id)
    figure(page, "line", "1")
    valkey.stop()
    try:
        connection(page, "Live, in part")
        expect(page.locator("#away-text")).to_contain_text("Redis, which holds the line, does not answer")
        assert barriers(page) == []
        take(page, "box-office-redis-away")
    finally:
        valkey.start()
    connection(page, "Live")
    start_worker()
    figure(page, "sold", "1")


def test_an_organiser_comes_with_a_key(
    page: Page, serve: Serve, database: Database, start_worker: StartWorker
) -> None:
    start_worker()
    _, key = make_key(database, Role.ORGANISER, "acme")
    _, sellers = make_key(database, Role.SELLER, "acme")
    own, others = (create_event(database, organiser_id=account) for account in ("acme", "rival"))
    api = serve(auth=Authentication.REQUIRED)
    open_office(page, api.client.base_url, own.id)
    field = page.get_by_label("API key of the organiser")
    expect(field).to_be_focused()
    assert barriers(page) == []
    take(page, "box-office-key")
    for wrong, told in (
        ("", "Paste the key here."),
        ("onsale_nonsense", "This key is not good"),
        (sellers, "This key is a seller"),
    ):
        field.fill(wrong)
        page.keyboard.press("Enter")
        expect(page.locator("#key-error")).to_contain_text(told)
        expect(field).to_be_focused()
    assert barriers(page) == []
    take(page, "box-office-wrong-key")
    field.fill(key)
    page.keyboard.press("Enter")
    connection(page, "Live")
    figure(page, "left", "10")
    page.get_by_role("button", name="Close sales").click()
    page.get_by_role("dialog").get_by_role("button", name="Close sales").click()
    figure(page, "state", "Sales are closed")

    open_office(page, api.client.base_url, others.id)
    expect(page.get_by_role("heading", name="There is no such event")).to_be_visible()
    expect(page.get_by_text("you need their key.")).to_be_visible()
    assert barriers(page) == []
    take(page, "box-office-missing")
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    assert key not in page.content()

    page.get_by_role("button", name="Forget the key").click()
    expect(field).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_without_authentication_no_key_is_asked_for_and_an_unknown_event_is_said_to_be(
    page: Page, serve: Serve
) -> None:
    api = serve()
    open_office(page, api.client.base_url, "nonsense")
    expect(page.get_by_role("heading", name="There is no such event")).to_be_visible()
    expect(page.get_by_label("API key of the organiser")).to_be_hidden()
    page.get_by_role("button", name="Add an event").click()
    expect(page.get_by_role("dialog", name="Add an event")).to_be_visible()


def test_without_demo_mode_there_is_no_stampede(page: Page, serve: Serve) -> None:
    api = serve()
    open_office(page, api.client.base_url, put_on_sale(api.client))
    connection(page, "Live")
    expect(page.get_by_role("button", name="Send them")).to_be_hidden()


def test_in_demo_mode_a_stampede_can_be_sent(
    page: Page, serve: Serve, database: Database, start_worker: StartWorker
) -> None:
    start_worker()
    api = serve(demo=True)
    event_id = put_on_sale(api.client, total_tickets=100)
    open_office(page, api.client.base_url, event_id)
    page.get_by_label("Buyers").select_option("100")
    page.get_by_role("button", name="Send them").click()
    expect(page.locator("#stampede-text")).to_contain_text("100 sent in")
    expect(page.locator("#stampede-text")).to_contain_text("100 got a place in line, 0 were turned away.")
    figure(page, "line", "0")
    figure(page, "refused-share", re.compile(r"of 10\d decided"))
    assert sum(outcome == "booked" for _, _, outcome in outcomes_in_ledger(database, event_id)) > 50
    assert violations(database) == []
    assert barriers(page) == []


def test_a_stampede_can_be_stopped(page: Page, serve: Serve, database: Database) -> None:
    api = serve(demo=True)
    event_id = put_on_sale(api.client)
    open_office(page, api.client.base_url, event_id)
    page.get_by_label("Buyers").select_option("2000")
    page.get_by_role("button", name="Send them").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#stampede-text")).to_contain_text("sent in")
    expect(page.get_by_role("button", name="Send them")).to_be_focused()


def test_the_keyboard_is_enough(page: Page, serve: Serve, start_worker: StartWorker) -> None:
    start_worker()
    api = serve()
    open_office(page, api.client.base_url, put_on_sale(api.client))
    connection(page, "Live")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the sale")).to_be_focused()
    button = page.get_by_role("button", name="Close sales")
    for _ in range(12):
        page.keyboard.press("Tab")
        if button.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Close sales")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    figure(page, "state", "Sales are closed")


def test_a_phone_needs_no_scrolling_sideways(page: Page, serve: Serve, start_worker: StartWorker) -> None:
    start_worker()
    api = serve(demo=True)
    event_id = put_on_sale(api.client)
    book(api.client, event_id, ["ann", "a-buyer-with-quite-a-long-address@tickets.example.org"])
    page.set_viewport_size({"width": 360, "height": 740})
    open_office(page, api.client.base_url, event_id)
    figure(page, "sold", "2")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.skipif("ONSALE_PICTURES" not in os.environ, reason="for the pictures of the documents only")
def test_pictures_of_a_busy_sale(
    page: Page, serve: Serve, settings: Settings, start_worker: StartWorker, pool: ThreadPoolExecutor
) -> None:
    """An on-sale that comes in waves, with its worker late, so that the charts have something to show."""
    api = serve(demo=True, stream_position_seconds=1.0)
    event_id = put_on_sale(api.client, total_tickets=30_000)
    open_office(page, api.client.base_url, event_id)
    for second in range(60):
        expected_at = time.monotonic() + 1
        if second == 2:
            worker = start_worker("first")
        if second == 36:
            worker.stop()
        if second == 38:
            start_worker("second")
        wave = int(220 + 160 * math.sin(second / 4) + random.randint(0, 60))
        buyers = [f"buyer-{random.randint(1, 9_000)}" for _ in range(wave)]
        commands = [command(event_id, buyer, random.randint(1, 2)) for buyer in buyers]
        # In a thread: Playwright has the event loop of this one.
        pool.submit(submit, settings, commands).result()
        page.wait_for_timeout(max(expected_at - time.monotonic(), 0) * 1_000)
    take(page, "box-office-sale", whole=True)
