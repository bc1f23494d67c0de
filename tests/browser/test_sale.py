"""The buyer's view in a real browser: buying, being refused, giving back, and losing the connection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from pydantic import SecretStr

from shared.api_keys import Role
from shared.clock import format_time
from shared.database.engine import Database
from shared.database.roles import API
from shared.settings import Authentication, Settings
from tests.browser.accessible import barriers
from tests.browser.pictures import take
from tests.builders import make_key, outcomes_in_ledger, queue_length, violations, wait_until
from tests.conftest import StartWorker
from tests.serving import serving

PAGES = 200
IN_PAGE_MS_MAX = 60_000

NAME = "Nils Frahm: Summer Night at the Docks"


@pytest.fixture
def page(api: httpx.Client, browser_context: BrowserContext) -> Page:
    """Closed before the API ends, which waits for its open streams."""
    return browser_context.new_page()


def put_on_sale(api: httpx.Client, **terms: object) -> str:
    answer = api.post("/events", json={"name": NAME, "total_tickets": 120, **terms})
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


def open_sale(page: Page, api: httpx.Client, event_id: str) -> None:
    page.goto(f"{api.base_url}/sale/{event_id}")


def ask_for(page: Page, number: int, user: str = "ann@example.org") -> None:
    page.get_by_label(f"{number} ticket").check(force=True)
    page.get_by_label("Your e-mail address or name").fill(user)
    page.get_by_role("button", name="Get my tickets").click()


def stand_in_line(api: httpx.Client, event_id: str, users: list[str]) -> None:
    for user in users:
        answer = api.post(f"/events/{event_id}/bookings", json={"user_id": user, "ticket_count": 1})
        assert answer.status_code == 202, answer.text


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=2, name=text)).to_be_visible()


def place_in_line(page: Page) -> int:
    position = page.locator("#position")
    expect(position).to_have_text(re.compile(r"^#\d+$"))
    return int(position.inner_text().removeprefix("#"))


def booked(database: Database, event_id: str) -> list[str]:
    return [outcome.value for _, _, outcome in outcomes_in_ledger(database, event_id)]


def test_a_buyer_gets_tickets_and_gives_them_back(
    page: Page, api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    start_worker()
    event_id = put_on_sale(api)
    open_sale(page, api, event_id)
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    expect(page.get_by_text("120 tickets of 120 left")).to_be_visible()
    assert barriers(page) == []
    take(page, "sale-buy")
    ask_for(page, 2)
    heading(page, "You have 2 tickets")
    expect(page.get_by_role("article", name=NAME)).to_contain_text("ann@example.org")
    assert barriers(page) == []
    take(page, "sale-ticket")

    page.get_by_role("button", name="Cancel booking").click()
    expect(page.get_by_text("Give back 2 tickets?")).to_be_visible()
    assert barriers(page) == []
    take(page, "sale-cancel")
    page.get_by_role("button", name="Keep them").click()
    page.get_by_role("button", name="Cancel booking").click()
    page.get_by_role("button", name="Yes, give them back").click()
    heading(page, "Your booking is cancelled")
    assert barriers(page) == []
    take(page, "sale-cancelled")
    assert booked(database, event_id) == ["booked", "cancelled"]
    page.reload()
    heading(page, "Your booking is cancelled")
    page.get_by_role("button", name="Get tickets again").click()
    expect(page.get_by_text("120 tickets of 120 left")).to_be_visible()
    assert violations(database) == []


def test_a_place_in_line_moves_and_outlives_a_reload(
    page: Page,
    api: httpx.Client,
    database: Database,
    redis_client: redis.Redis,
    start_worker: StartWorker,
) -> None:
    event_id = put_on_sale(api, total_tickets=1000)
    stand_in_line(api, event_id, [f"user-{number}" for number in range(311)])
    open_sale(page, api, event_id)
    ask_for(page, 1)
    heading(page, "You have a place in line")
    expect(page.locator("#place")).to_have_text("311")
    expect(page.locator("#position")).to_have_text("#312")
    expect(page.get_by_role("status")).to_have_text("311 requests ahead of you.")
    assert barriers(page) == []
    take(page, "sale-line")
    page.reload()
    heading(page, "You have a place in line")
    expect(page.locator("#place")).to_have_text("311")
    assert queue_length(redis_client, event_id) == 312
    start_worker()
    heading(page, "You have 1 ticket")
    assert len(booked(database, event_id)) == 312
    assert violations(database) == []


def test_a_buyer_can_leave_the_line(
    page: Page, api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event_id = put_on_sale(api)
    open_sale(page, api, event_id)
    ask_for(page, 1)
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.get_by_role("button", name="Leave the line").click()
    start_worker()
    heading(page, "You left the line")
    assert booked(database, event_id) == ["withdrawn"]
    page.get_by_role("button", name="Get tickets").click()
    ask_for(page, 1)
    heading(page, "You have 1 ticket")
    assert booked(database, event_id) == ["withdrawn", "booked"]


@pytest.mark.parametrize(
    ("terms", "before", "title", "picture"),
    [
        ({"total_tickets": 2}, ["bob", "bob"], "Sold out", "sale-sold-out"),
        ({"total_tickets": 3}, ["bob", "bob"], "Not enough tickets left", "sale-not-enough"),
        ({}, ["ann@example.org"], "You have reached the limit", "sale-limit"),
    ],
)
def test_a_buyer_is_told_why_there_are_no_tickets(
    page: Page,
    api: httpx.Client,
    database: Database,
    start_worker: StartWorker,
    terms: dict[str, int],
    before: list[str],
    title: str,
    picture: str,
) -> None:
    event_id = put_on_sale(api, **terms)
    stand_in_line(api, event_id, before)
    open_sale(page, api, event_id)
    ask_for(page, 2)
    heading(page, "You have a place in line")
    start_worker()
    heading(page, title)
    assert barriers(page) == []
    take(page, picture)
    assert booked(database, event_id)[-1] in {"not-enough-tickets", "user-limit-exceeded"}


def test_before_sales_open_the_page_counts_down_and_opens_by_itself(
    page: Page, api: httpx.Client, start_worker: StartWorker
) -> None:
    start_worker()
    late = put_on_sale(api, sales_open_at=format_time(datetime.now(UTC) + timedelta(hours=26)))
    open_sale(page, api, late)
    heading(page, "Sales open in")
    expect(page.locator("#countdown")).to_contain_text("1 d 0")
    assert barriers(page) == []
    take(page, "sale-not-open")
    soon = put_on_sale(api, sales_open_at=format_time(datetime.now(UTC) + timedelta(seconds=2)))
    open_sale(page, api, soon)
    heading(page, "How many tickets?")
    ask_for(page, 1)
    heading(page, "You have 1 ticket")


def test_closed_sales_and_sold_out_events_say_so(
    page: Page, api: httpx.Client, start_worker: StartWorker
) -> None:
    start_worker()
    event_id = put_on_sale(api, total_tickets=1)
    api.post(
        f"/events/{event_id}/bookings",
        json={"user_id": "bob", "ticket_count": 1},
        headers={"Prefer": "wait=10"},
    )
    open_sale(page, api, event_id)
    heading(page, "Sold out")
    assert barriers(page) == []
    api.patch(f"/events/{event_id}", json={"sales_closed": True}, headers={"Prefer": "wait=10"})
    page.reload()
    heading(page, "Sales are closed")
    take(page, "sale-closed")


def test_an_event_that_is_not_there_is_said_to_be_so(page: Page, api: httpx.Client) -> None:
    open_sale(page, api, "01a206d1-4a02-7c44-8c0b-0f6a7be1d9c2")
    heading(page, "There is no such event")
    assert barriers(page) == []
    take(page, "sale-missing")


def test_a_field_that_is_missing_is_named(page: Page, api: httpx.Client) -> None:
    open_sale(page, api, put_on_sale(api))
    page.get_by_role("button", name="Get my tickets").click()
    expect(page.get_by_role("alert")).to_have_text(
        "Say who the tickets are for: an e-mail address or a name."
    )
    expect(page.get_by_label("Your e-mail address or name")).to_be_focused()
    assert barriers(page) == []


def test_two_clicks_buy_once(
    page: Page, api: httpx.Client, redis_client: redis.Redis, database: Database
) -> None:
    event_id = put_on_sale(api)
    open_sale(page, api, event_id)
    page.get_by_label("Your e-mail address or name").fill("ann@example.org")
    page.get_by_role("button", name="Get my tickets").dblclick()
    expect(page.locator("#position")).to_have_text("#1")
    assert queue_length(redis_client, event_id) == 1


def test_a_submit_whose_answer_was_lost_is_sent_again_as_the_same(
    page: Page, api: httpx.Client, redis_client: redis.Redis
) -> None:
    event_id = put_on_sale(api)
    open_sale(page, api, event_id)
    sent = []

    def lose_the_answer(route: Route) -> None:
        sent.append(route.request.headers["idempotency-key"])
        route.fetch() if len(sent) == 1 else None
        route.abort() if len(sent) == 1 else route.continue_()

    page.route("**/bookings", lose_the_answer)
    ask_for(page, 1)
    expect(page.locator("#position")).to_have_text("#1")
    assert len(sent) == 2
    assert len(set(sent)) == 1
    assert queue_length(redis_client, event_id) == 1


def test_a_reload_before_the_answer_keeps_the_key(
    page: Page, api: httpx.Client, redis_client: redis.Redis
) -> None:
    event_id = put_on_sale(api)
    open_sale(page, api, event_id)
    page.route("**/bookings", lambda route: (route.fetch(), route.abort()) and None)
    ask_for(page, 1)
    expect(page.locator("#away").get_by_text("The ticket service can")).to_be_visible()
    page.unroute("**/bookings")
    page.reload()
    expect(page.locator("#position")).to_have_text("#1")
    assert queue_length(redis_client, event_id) == 1


def test_a_connection_that_is_cut_in_line_costs_nothing(
    page: Page, api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event_id = put_on_sale(api)
    stand_in_line(api, event_id, ["bob"])
    open_sale(page, api, event_id)
    ask_for(page, 1)
    expect(page.locator("#place")).to_have_text("1")
    page.context.set_offline(True)
    expect(page.locator("#away").get_by_text("You are offline")).to_be_visible()
    expect(page.locator("#away").get_by_text("Your place in line is safe")).to_be_visible()
    assert barriers(page) == []
    take(page, "sale-offline")
    start_worker()
    page.context.set_offline(False)
    heading(page, "You have 1 ticket")
    expect(page.locator("#away").get_by_text("You are offline")).to_be_hidden()
    assert booked(database, event_id) == ["booked", "booked"]


def test_a_service_that_is_away_is_waited_for(page: Page, api: httpx.Client) -> None:
    event_id = put_on_sale(api)
    page.route(f"**/events/{event_id}", lambda route: route.abort())
    open_sale(page, api, event_id)
    expect(page.locator("#away").get_by_text("The ticket service can")).to_be_visible()
    assert barriers(page) == []
    take(page, "sale-away")
    page.unroute(f"**/events/{event_id}")
    heading(page, "How many tickets?")
    expect(page.locator("#away").get_by_text("The ticket service can")).to_be_hidden()


def test_the_keyboard_is_enough(
    page: Page, api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    start_worker()
    event_id = put_on_sale(api)
    open_sale(page, api, event_id)
    heading(page, "How many tickets?")
    page.get_by_label("1 ticket").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.type("ann@example.org")
    page.keyboard.press("Enter")
    heading(page, "You have 2 tickets")
    expect(page.get_by_role("heading", name="You have 2 tickets")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel booking")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep them")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    heading(page, "Your booking is cancelled")
    expect(page.get_by_role("heading", name="Your booking is cancelled")).to_be_focused()


# Playwright's locators bring their own code into a page first, which is too much for two hundred of them.
BUY = """(user) => {
    if (!shown("view-buy")) return null;
    element("user").value = user;
    element("buy").click();
    return user;
}"""
PLACE = '() => /^#(\\d+)$/.exec(shown("position"))?.[1]'
END = '() => shown("ticket-title") ?? shown("refused-title")'


def in_page(page: Page, script: str, argument: str | None = None) -> str:
    """What a script gives in a page as soon as it gives something."""
    found: str = page.evaluate(
        f"""async (argument) => {{
            const element = (id) => document.getElementById(id);
            const shown = (id) => (element(id)?.checkVisibility() ? element(id).textContent : null);
            const look = {script};
            const end = Date.now() + {IN_PAGE_MS_MAX};
            while (Date.now() < end) {{
                const found = look(argument);
                if (found) return found;
                await new Promise((again) => setTimeout(again, 50));
            }}
            throw new Error("this has not happened in time: " + document.body.innerText);
        }}""",
        argument,
    )
    return found


@pytest.mark.timeout(600)
def test_two_hundred_pages_stand_in_one_line(
    api: httpx.Client, plain_context: BrowserContext, database: Database, start_worker: StartWorker
) -> None:
    tickets = PAGES - 3
    event_id = put_on_sale(api, total_tickets=tickets)
    pages = [plain_context.new_page() for _ in range(PAGES)]
    for number, page in enumerate(pages):
        # A host of its own is a buyer of its own: what a page keeps is kept by origin.
        address = f"http://buyer-{number}.localhost:{api.base_url.port}/sale/{event_id}"
        page.goto(address, wait_until="commit")
    for number, page in enumerate(pages):
        in_page(page, BUY, f"buyer-{number}")
    positions = [int(in_page(page, PLACE)) for page in pages]
    assert sorted(positions) == list(range(1, PAGES + 1))
    start_worker()
    for page, position in zip(pages, positions, strict=True):
        assert in_page(page, END) == ("You have 1 ticket" if position <= tickets else "Sold out")
    assert booked(database, event_id) == ["booked"] * tickets + ["not-enough-tickets"] * 3
    assert violations(database) == []


def test_another_tab_shows_the_same_purchase(
    api: httpx.Client, browser_context: BrowserContext, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    event_id = put_on_sale(api)
    first, second = browser_context.new_page(), browser_context.new_page()
    open_sale(first, api, event_id)
    open_sale(second, api, event_id)
    ask_for(first, 1)
    expect(first.locator("#position")).to_have_text("#1")
    expect(second.locator("#position")).to_have_text("#1")
    assert queue_length(redis_client, event_id) == 1
    start_worker()
    heading(second, "You have 1 ticket")
    second.get_by_role("button", name="Cancel booking").click()
    second.get_by_role("button", name="Yes, give them back").click()
    heading(second, "Your booking is cancelled")
    heading(first, "Your booking is cancelled")


def test_where_no_more_streams_are_served_the_page_asks_now_and_then(
    settings: Settings,
    logins: dict[str, str],
    database: Database,
    redis_client: redis.Redis,
    chromium: Browser,
    start_worker: StartWorker,
) -> None:
    with serving(settings, database_url=logins[API], streams_max=1) as served:
        event_id = put_on_sale(served.client)
        with chromium.new_context() as context:
            first, second = context.new_page(), context.new_page()
            open_sale(first, served.client, event_id)
            ask_for(first, 1, "first")
            expect(first.locator("#position")).to_have_text("#1")
            second.goto(f"http://second.localhost:{served.address[1]}/sale/{event_id}")
            ask_for(second, 1, "second")
            expect(second.locator("#position")).to_have_text("#2")
            start_worker()
            heading(second, "You have 1 ticket")
            heading(first, "You have 1 ticket")


SECRET = "a secret of the identity provider!"
ISSUER = "https://id.example"


@pytest.fixture
def guarded(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis
) -> Iterator[httpx.Client]:
    """A client, as an organiser, of an API that asks who calls."""
    with serving(
        settings,
        database_url=logins[API],
        auth=Authentication.REQUIRED,
        jwt_secret=SecretStr(SECRET),
        jwt_issuer=ISSUER,
    ) as served:
        _, key = make_key(database, Role.ORGANISER, "acme")
        served.client.headers["Authorization"] = f"Bearer {key}"
        wait_until(lambda: served.client.get("/events").status_code == 200)
        yield served.client


def token_of(user: str, *, valid_seconds: float = 3600) -> str:
    expires = datetime.now(UTC) + timedelta(seconds=valid_seconds)
    claims = {"sub": user, "aud": "onsale", "iss": ISSUER, "exp": expires}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def test_a_ticket_shop_hands_over_who_buys(
    guarded: httpx.Client, browser_context: BrowserContext, database: Database, start_worker: StartWorker
) -> None:
    start_worker()
    event_id = put_on_sale(guarded)
    with browser_context.new_page() as page:
        page.goto(f"{guarded.base_url}/sale/{event_id}#token={token_of('ann')}")
        heading(page, "How many tickets?")
        assert page.url == f"{guarded.base_url}/sale/{event_id}"
        expect(page.get_by_text("Signed in as ann")).to_be_visible()
        expect(page.get_by_label("Your e-mail address or name")).to_be_hidden()
        assert barriers(page) == []
        page.get_by_role("button", name="Get my tickets").click()
        heading(page, "You have 1 ticket")
        expect(page.get_by_role("article", name=NAME)).to_contain_text("ann")
        page.reload()
        heading(page, "You have 1 ticket")
        assert token_of("ann")[:40] not in page.evaluate("JSON.stringify(localStorage)")


@pytest.mark.parametrize("fragment", ["", "#token=nonsense", f"#token={token_of('ann', valid_seconds=-60)}"])
def test_whom_no_shop_knows_is_asked_to_sign_in(
    guarded: httpx.Client, browser_context: BrowserContext, fragment: str
) -> None:
    event_id = put_on_sale(guarded)
    with browser_context.new_page() as page:
        page.goto(f"{guarded.base_url}/sale/{event_id}{fragment}")
        heading(page, "Sign in first")
        assert barriers(page) == []
        if not fragment:
            take(page, "sale-sign-in")


def test_another_users_purchase_in_the_same_browser_is_not_shown(
    guarded: httpx.Client, browser_context: BrowserContext, start_worker: StartWorker
) -> None:
    start_worker()
    event_id = put_on_sale(guarded)
    with browser_context.new_page() as page:
        page.goto(f"{guarded.base_url}/sale/{event_id}#token={token_of('ann')}")
        page.get_by_role("button", name="Get my tickets").click()
        heading(page, "You have 1 ticket")
    with browser_context.new_page() as page:
        page.goto(f"{guarded.base_url}/sale/{event_id}#token={token_of('bob')}")
        heading(page, "How many tickets?")
        expect(page.get_by_text("Signed in as bob")).to_be_visible()


def test_the_list_of_events_leads_to_each(page: Page, api: httpx.Client) -> None:
    later = format_time(datetime.now(UTC) + timedelta(days=30))
    for name, terms in [("Winter Revue", {"sales_open_at": later}), ("Summer Night", {})]:
        api.post("/events", json={"name": name, "total_tickets": 1200, **terms})
    page.goto(str(api.base_url))
    expect(page.get_by_role("article")).to_have_count(2)
    assert barriers(page) == []
    take(page, "events")
    page.get_by_role("link", name="Get tickets for Summer Night").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Summer Night")


def test_the_list_of_events_asks_for_a_key_where_there_are_accounts(
    guarded: httpx.Client, browser_context: BrowserContext
) -> None:
    put_on_sale(guarded)
    with browser_context.new_page() as page:
        page.goto(str(guarded.base_url))
        page.get_by_label("API key").fill("guessed")
        page.get_by_role("button", name="Show events").click()
        expect(page.get_by_role("alert")).to_contain_text("is not good")
        assert barriers(page) == []
        key = guarded.headers["Authorization"].removeprefix("Bearer ")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Show events").click()
        expect(page.get_by_role("article")).to_contain_text(NAME)
