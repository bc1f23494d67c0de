"""The demo against a running Onsale: true where all is true, clear where it can't be run or is held up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest
import redis
import uvloop
from rich.console import RenderableType

from demo.buyers import make_buyers
from demo.course import run_demo
from demo.errors import DemoError
from demo.evidence import read_evidence
from demo.figures import Figures, Meter
from demo.journal import Journal
from demo.options import Options
from demo.stampede import Stampede, Watching, run_stampede
from demo.verdict import judge
from demo.visitor import LOST, Shop
from local.servers import free_port
from shared.api_keys import Role
from shared.database.engine import Database
from shared.settings import Authentication, Settings
from tests.builders import make_key, tamper
from tests.conftest import StartWorker
from tests.serving import serving
from tests.storm.proxy import Proxy, Traffic

UNSEEN = Watching(show=lambda figures: None)
FEW = Options(buyers=120, tickets=20, cancel_rate=0.3, greedy_rate=0.3)


class Seen:
    """A view that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.results: list[RenderableType] = []
        self.figures: list[Figures] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def print(self, what: RenderableType) -> None:
        self.results.append(what)

    def show(self, figures: Figures) -> None:
        self.figures.append(figures)

    def conclude(self, figures: Figures) -> None:
        self.figures.append(figures)


def at(url: object) -> Options:
    return replace(FEW, url=str(url).rstrip("/"))


def test_a_stampede_at_a_running_onsale_is_found_true(api: httpx.Client, start_worker: StartWorker) -> None:
    start_worker()
    seen = Seen()
    assert run_demo(at(api.base_url), {}, seen)
    last = seen.figures[-1]
    assert {"not-enough-tickets", "user-limit-exceeded", "invalid-request"} == set(last.refused)
    assert last.given_back > 0
    assert last.in_line == 0
    assert last.placed > 0
    assert "Using the Onsale at" in seen.lines[0]
    [event] = api.get("/events").json()["items"]
    assert (event["name"], event["total_tickets"]) == ("Demo stampede", FEW.tickets)


def test_what_was_changed_by_hand_is_found(
    api: httpx.Client, start_worker: StartWorker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One booking changes its holder between the last answer and the check."""
    start_worker()
    seen = Seen()

    def tampering(line: str) -> None:
        if line.startswith("Reading"):
            tamper(database, "UPDATE bookings SET user_id = 'thief' WHERE status = 'active'")

    monkeypatch.setattr(seen, "say", tampering)
    assert not run_demo(at(api.base_url), {}, seen)


def test_where_onsale_asks_who_calls_the_key_of_an_organiser_is_used(
    settings: Settings, start_worker: StartWorker, database: Database, redis_client: redis.Redis
) -> None:
    _, token = make_key(database, Role.ORGANISER, "demo")
    start_worker()
    with serving(settings, auth=Authentication.REQUIRED) as served:
        options = at(served.client.base_url)
        with pytest.raises(DemoError, match="ONSALE_API_KEY"):
            run_demo(options, {}, Seen())
        assert run_demo(options, {"Authorization": f"Bearer {token}"}, Seen())


def test_where_no_onsale_answers_there_is_one_clear_line() -> None:
    with pytest.raises(DemoError, match="no Onsale answers at"):
        run_demo(at(f"http://127.0.0.1:{free_port()}"), {}, Seen())


def test_a_bound_on_requests_is_shown_and_the_time_limit_ends_it(
    settings: Settings, start_worker: StartWorker, database: Database, redis_client: redis.Redis
) -> None:
    _, token = make_key(database, Role.ORGANISER, "demo")
    headers = {"Authorization": f"Bearer {token}"}
    start_worker()
    with serving(settings, auth=Authentication.REQUIRED, requests_per_key=40) as served:
        shop = new_shop(served.client, served.address[1], headers)
        stampede = uvloop.run(run_stampede(shop, make_buyers(FEW), a_meter(), 1.0, UNSEEN))
    assert not stampede.is_over
    assert stampede.last.put_off["too-many-requests"] > 0
    assert any(command.outcome is None for command in stampede.journal.commands)


def test_who_is_cut_off_comes_again_and_books_once(
    settings: Settings, start_worker: StartWorker, database: Database, redis_client: redis.Redis
) -> None:
    start_worker()
    with serving(settings) as served:
        shop = new_shop(served.client, free_port(), {})
        stampede = uvloop.run(cut_in_the_middle(shop, served.address[1]))
        evidence = read_evidence(served.client, shop.event_id)
    assert stampede.is_over
    assert stampede.last.put_off[LOST] > 0
    assert all(finding.is_kept for finding in judge(stampede.journal.commands, evidence))


async def cut_in_the_middle(shop: Shop, port: int) -> Stampede:
    """A stampede whose connections are all cut at once."""
    proxy = Proxy(port=int(shop.url.rpartition(":")[2]), target_port=port)
    await proxy.start()
    cutting: list[asyncio.Task[None]] = []

    async def cut() -> None:
        await proxy.switch(Traffic.CUT)
        await proxy.switch(Traffic.FLOWS)

    def start_to_cut(_last: bool) -> str:
        cutting.append(asyncio.create_task(cut()))
        return "connections cut"

    watching = Watching(show=lambda figures: None, break_something=start_to_cut)
    stampede = await run_stampede(shop, make_buyers(FEW), a_meter(), 60.0, watching)
    await cutting[0]
    await proxy.close()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
    return stampede


def a_meter() -> Meter:
    return Meter("Onsale", Journal(), buyers=FEW.buyers, tickets=FEW.tickets)


def new_shop(client: httpx.Client, port: int, headers: dict[str, str]) -> Shop:
    """An event, to be reached at this port."""
    made = client.post("/events", json={"name": "Test", "total_tickets": FEW.tickets}, headers=headers)
    return Shop(
        url=f"http://127.0.0.1:{port}",
        event_id=made.json()["id"],
        headers=headers,
        knows_keys=True,
        answer_seconds_max=30.0,
    )
