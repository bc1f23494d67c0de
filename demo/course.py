"""The course of a demo: find or start an Onsale, let the buyers in, check, compare, draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvloop

from bench.measures.hot_event import PEER_SETTINGS
from bench.options import scratch
from bench.processes import BenchmarkError
from bench.targets import synchronous_peer
from demo import picture
from demo.buyers import make_buyers
from demo.errors import DemoError
from demo.evidence import Sale, read_evidence
from demo.figures import Meter
from demo.journal import Journal
from demo.options import API_KEY_VARIABLE, DEFAULT_URL, Options
from demo.product import OwnProduct, find_running, own_product
from demo.report import Trial, side_by_side, verdict
from demo.stampede import Stampede, Watching, run_stampede
from demo.verdict import judge, judge_answers
from demo.view import View
from demo.visitor import Shop
from local.open_files import allow_open_files

EVENT_NAME = "Demo stampede"
WORKERS_DEFAULT = 2
OTHER_FILES = 200
"""What is open beside the buyers' connections."""

HTTP_SECONDS_MAX = 30.0
PEER_SETTING = PEER_SETTINGS[1]
"""The one that is usually its best."""

PEER_TICKETS_PER_USER_MAX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the buyers go; what is our own can be broken."""

    name: str
    url: str
    headers: Mapping[str, str]
    product: OwnProduct | None = None


def run_demo(options: Options, headers: Mapping[str, str], view: View) -> bool:
    """Run the demo; whether everything at Onsale was true.

    Raises:
        DemoError: it can't be run.
    """
    wanted = options.buyers + OTHER_FILES
    if allow_open_files(wanted) < wanted:
        raise DemoError(
            f"this system lets a program open fewer than {wanted:,} connections; ask for fewer --buyers"
        )
    with _place(options, headers, view) as place:
        trials = [_try_onsale(options, place, view)]
        results = [verdict(trials[0])]
        view.print(results[0])
    if options.compare:
        trials.append(_try_peer(options, view))
        results.append(side_by_side(trials))
        view.print(results[1])
    if options.picture is not None:
        picture.write(options.picture, picture.draw(command_of(options), trials[0].stampede.last, results))
        view.say(f"Written: {options.picture}")
    return trials[0].is_true


@contextmanager
def _place(options: Options, headers: Mapping[str, str], view: View) -> Iterator[Place]:
    """The Onsale that was asked for: the one at the URL, or one of our own."""
    url = options.url or DEFAULT_URL
    if not options.needs_own and find_running(url):
        view.say(f"Using the Onsale at {url}; it gets one more event, {EVENT_NAME!r}.")
        yield Place(name="Onsale", url=url, headers=headers)
        return
    if options.url is not None:
        raise DemoError(f"no Onsale answers at {url}; start one with `make up`, or leave out --url")
    workers = options.workers or WORKERS_DEFAULT
    view.say(f"Starting an Onsale of its own, with {workers} worker{'s' if workers > 1 else ''} …")
    with own_product(workers) as product:
        yield Place(name="Onsale", url=product.url, headers={}, product=product)


def _try_onsale(options: Options, place: Place, view: View) -> Trial:
    with httpx.Client(
        base_url=place.url, headers=place.headers, timeout=HTTP_SECONDS_MAX, trust_env=False
    ) as client:
        event = _make_event(client, options.tickets)
        stampede = _rush(options, place, event["id"], view, knows_keys=True)
        view.say("Reading the event, its ledger and its bookings, and checking every answer …")
        evidence = read_evidence(client, event["id"])
    if options.kill_worker and not stampede.last.faults:
        view.say("No worker was killed: it was over too soon. Ask for more --buyers.")
    return Trial(name=place.name, stampede=stampede, findings=judge(stampede.journal.commands, evidence))


def _try_peer(options: Options, view: View) -> Trial:
    """The same at the synchronous design, which has no line that could be broken."""
    view.say("Starting a synchronous booking service: FastAPI, SQLAlchemy, a row lock per booking …")
    try:
        with scratch() as directory, synchronous_peer(directory, PEER_SETTING) as target:
            place = Place(name="synchronous", url=target.base_url, headers={})
            with httpx.Client(base_url=place.url, timeout=HTTP_SECONDS_MAX, trust_env=False) as client:
                event = _make_event(client, options.tickets)
                stampede = _rush(options, place, event["id"], view, knows_keys=False)
                left = client.get(f"/events/{event['id']}").raise_for_status().json()["available_tickets"]
    except (BenchmarkError, httpx.HTTPError) as error:
        raise DemoError(f"the synchronous service could not be measured: {error}") from error
    sale = Sale(
        total_tickets=options.tickets,
        available_tickets=left,
        max_tickets_per_user=PEER_TICKETS_PER_USER_MAX,
    )
    return Trial(name=place.name, stampede=stampede, findings=judge_answers(stampede.journal.commands, sale))


def _make_event(client: httpx.Client, tickets: int) -> dict[str, Any]:
    try:
        answer = client.post("/events", json={"name": EVENT_NAME, "total_tickets": tickets})
    except httpx.TransportError as error:
        raise DemoError(f"{client.base_url} does not answer ({error}); is it still running?") from error
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise DemoError(
            f"{client.base_url} asks who calls; set {API_KEY_VARIABLE} to an organiser's API key"
            " (`python -m api keys create --role organiser --account demo`)"
        )
    if answer.status_code != httpx.codes.CREATED:
        raise DemoError(f"POST /events is answered {answer.status_code} {answer.text}")
    document: dict[str, Any] = answer.json()
    return document


def _rush(options: Options, place: Place, event_id: str, view: View, *, knows_keys: bool) -> Stampede:
    shop = Shop(
        url=place.url,
        event_id=event_id,
        headers=place.headers,
        knows_keys=knows_keys,
        answer_seconds_max=float(options.seconds),
    )
    meter = Meter(place.name, Journal(), buyers=options.buyers, tickets=options.tickets)
    watching = Watching(show=view.show)
    if options.kill_worker and place.product is not None:
        product = place.product
        watching = Watching(
            show=view.show,
            break_something=lambda last: product.kill_worker(event_id, or_an_idle_one=last),
        )
    view.say(f"{options.buyers:,} buyers come to {place.name} at {place.url} …")
    stampede = uvloop.run(run_stampede(shop, make_buyers(options), meter, float(options.seconds), watching))
    view.conclude(stampede.last)
    return stampede


def command_of(options: Options) -> str:
    """The command that gives such a demo."""
    default = Options()
    words = []
    for name in ("buyers", "tickets", "workers", "cancel_rate", "greedy_rate", "seed", "seconds"):
        value = getattr(options, name)
        if value != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--kill-worker"] if options.kill_worker else []
    words += ["--compare"] if options.compare else []
    return f'make demo ARGS="{" ".join(words)}"' if words else "make demo"
