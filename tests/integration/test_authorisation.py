"""Who may do what: every route, by every role, with what is theirs, another's, and nobody's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
import redis
from sqlalchemy import create_engine

from shared.api_keys import Role, hash_secret, new_secret, write_token
from shared.database import api_keys, statements, webhooks
from shared.database.engine import Database
from shared.domain import SaleTerms
from shared.identifiers import new_id
from shared.line.codec import book_payload, cancel_payload, change_payload
from shared.line.producer import Submission
from shared.records import EventRecord
from shared.seals import new_event
from shared.settings import Authentication, Settings
from shared.webhooks.messages import MessageType
from shared.webhooks.records import new_webhook
from shared.webhooks.secrets import new_secret as new_webhook_secret
from tests.builders import make_key, outcomes_in_ledger, seed, submission, submit, wait_until
from tests.conftest import StartWorker
from tests.serving import serving

SECRET = "a secret of the identity provider!"
ISSUER = "https://id.example"
NOW = datetime.now(UTC)
JSON = {"Content-Type": "application/json"}


def token_of(user_id: str) -> str:
    claims = {"sub": user_id, "aud": "onsale", "iss": ISSUER, "exp": NOW + timedelta(hours=1)}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def make_event(database: Database, organiser_id: str) -> EventRecord:
    terms = SaleTerms(name="Test Event", total_tickets=100, max_tickets_per_user=50)
    event = new_event(id=new_id(), terms=terms, created_at=NOW, organiser_id=organiser_id)
    with database.transaction() as connection:
        statements.insert_event(connection, event)
    return event


def make_webhook(database: Database, event: EventRecord) -> str:
    webhook = new_webhook(
        event,
        url="https://onsale.example/",
        types=MessageType,
        secret=new_webhook_secret(),
        created_at=NOW,
    )
    with database.transaction() as connection:
        webhooks.insert_webhook(connection, webhook)
    return webhook.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """An event of an account, with a booking of ann and one of bob, and jobs about them."""

    event: str
    booking: str
    cancellation: str
    change: str
    bobs_booking: str
    webhook: str


def make_sale(settings: Settings, database: Database, organiser_id: str) -> Sale:
    event = make_event(database, organiser_id)
    seed(settings, event)
    booking, other = (
        Submission(job_id=new_id(), event_id=event.id, payload=book_payload(user, 1))
        for user in ("ann", "bob")
    )
    cancelled = submission(event.id, cancel_payload(booking.job_id))
    changed = submission(event.id, change_payload(name="Renamed"))
    submit(settings, [booking, other, cancelled, changed])
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 4)
    return Sale(
        event=event.id,
        booking=booking.job_id,
        cancellation=cancelled.job_id,
        change=changed.job_id,
        bobs_booking=other.job_id,
        webhook=make_webhook(database, event),
    )


@pytest.fixture
def secured(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "auth": Authentication.REQUIRED,
            "keys_refresh_seconds": 0.1,
            "jwt_secret": Settings(
                database_url=settings.database_url,
                redis_url=settings.redis_url,
                jwt_secret=SECRET,
                jwt_issuer=ISSUER,
            ).jwt_secret,
            "jwt_issuer": ISSUER,
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """An API that asks who calls, what two accounts have there, and the credentials of each role."""

    api: httpx.Client
    own: Sale
    other: Sale
    credentials: dict[str, str]

    def ask(
        self, caller: str, method: str, path: str, json: object = None, wait: bool = False
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.credentials[caller]}"} if caller != "nobody" else {}
        if wait:
            headers["Prefer"] = "wait=10"
        return self.api.request(method, path, json=json, headers=headers)


@pytest.fixture
def world(secured: Settings, database: Database, start_worker: StartWorker) -> Iterator[World]:
    start_worker()
    own, other = (make_sale(secured, database, account) for account in ("acme", "rival"))
    credentials = {
        "organiser": make_key(database, Role.ORGANISER, "acme")[1],
        "seller": make_key(database, Role.SELLER, "acme")[1],
        "seller of one": make_key(database, Role.SELLER, "acme", [own.event])[1],
        "seller of another": make_key(database, Role.SELLER, "acme", [new_id()])[1],
        "customer": token_of("ann"),
        "another customer": token_of("eve"),
    }
    with serving(secured) as served:
        yield World(api=served.client, own=own, other=other, credentials=credentials)


CALLERS = (
    "organiser",
    "seller",
    "seller of one",
    "seller of another",
    "customer",
    "another customer",
    "nobody",
)
BOOK = {"user_id": "ann", "ticket_count": 1}

# method, path, body, then the status for each caller, at the own account's event and at the other's.
TABLE: list[tuple[str, str, object, tuple[int, ...], tuple[int, ...]]] = [
    ("POST", "/events", {"name": "New", "total_tickets": 1},
     (201, 403, 403, 403, 403, 403, 401), (201, 403, 403, 403, 403, 403, 401)),
    ("GET", "/events", None, (200, 200, 200, 200, 200, 200, 401), (200, 200, 200, 200, 200, 200, 401)),
    ("GET", "/events/{event}", None,
     (200, 200, 200, 200, 200, 200, 401), (200, 200, 200, 200, 200, 200, 401)),
    ("PATCH", "/events/{event}", {"name": "Again"},
     (202, 403, 403, 403, 403, 403, 401), (404, 403, 403, 403, 403, 403, 401)),
    ("POST", "/events/{event}/bookings", BOOK,
     (202, 202, 202, 404, 202, 403, 401), (404, 404, 404, 404, 202, 403, 401)),
    ("GET", "/events/{event}/bookings", None,
     (200, 200, 200, 404, 200, 200, 401), (404, 404, 404, 404, 200, 200, 401)),
    ("GET", "/events/{event}/bookings?user_id=ann", None,
     (200, 200, 200, 404, 200, 403, 401), (404, 404, 404, 404, 200, 403, 401)),
    ("GET", "/events/{event}/ledger", None,
     (200, 403, 403, 403, 403, 403, 401), (404, 403, 403, 403, 403, 403, 401)),
    ("GET", "/events/{event}/box-office?snapshots=1", None,
     (200, 403, 403, 403, 403, 403, 401), (404, 403, 403, 403, 403, 403, 401)),
    ("GET", "/bookings/{booking}", None,
     (200, 200, 200, 404, 200, 404, 401), (404, 404, 404, 404, 200, 404, 401)),
    ("GET", "/bookings/{bobs_booking}", None,
     (200, 200, 200, 404, 404, 404, 401), (404, 404, 404, 404, 404, 404, 401)),
    ("DELETE", "/bookings/{booking}", None,
     (202, 202, 202, 404, 202, 404, 401), (404, 404, 404, 404, 202, 404, 401)),
    ("DELETE", "/bookings/{bobs_booking}", None,
     (202, 202, 202, 404, 404, 404, 401), (404, 404, 404, 404, 404, 404, 401)),
    *(
        (method, path, None, (200, 200, 200, 404, 200, 404, 401), (404, 404, 404, 404, 200, 404, 401))
        for method, path in (
            ("GET", "/jobs/{booking}"),
            ("GET", "/jobs/{cancellation}"),
            ("GET", "/jobs/{booking}/events"),
            ("GET", "/jobs/{cancellation}/events"),
            ("DELETE", "/jobs/{booking}"),
            ("DELETE", "/jobs/{cancellation}"),
        )
    ),
    *(
        (method, path, None, (200, 200, 200, 404, 404, 404, 401), (404, 404, 404, 404, 404, 404, 401))
        for method, path in (
            ("GET", "/jobs/{bobs_booking}"),
            ("GET", "/jobs/{bobs_booking}/events"),
            ("DELETE", "/jobs/{bobs_booking}"),
        )
    ),
    *(
        (method, path, None, (200, 404, 404, 404, 404, 404, 401), (404, 404, 404, 404, 404, 404, 401))
        for method, path in (
            ("GET", "/jobs/{change}"),
            ("GET", "/jobs/{change}/events"),
            ("DELETE", "/jobs/{change}"),
        )
    ),
    ("POST", "/events/{event}/webhooks", {"url": "https://onsale.example/", "types": ["booking.created"]},
     (201, 403, 403, 403, 403, 403, 401), (404, 403, 403, 403, 403, 403, 401)),
    *(
        (method, path, None, (status, 403, 403, 403, 403, 403, 401), (404, 403, 403, 403, 403, 403, 401))
        for method, path, status in (
            ("GET", "/events/{event}/webhooks", 200),
            ("GET", "/webhooks/{webhook}", 200),
            ("POST", "/webhooks/{webhook}/enable", 200),
            ("POST", "/webhooks/{webhook}/secret", 200),
            ("GET", "/webhooks/{webhook}/messages", 200),
            ("GET", "/webhooks/{webhook}/messages/{message}", 404),
            ("POST", "/webhooks/{webhook}/messages/{message}/redeliver", 404),
            ("DELETE", "/webhooks/{webhook}", 204),
        )
    ),
    ("GET", "/health", None, (200,) * 7, (200,) * 7),
    ("GET", "/ready", None, (200,) * 7, (200,) * 7),
    ("GET", "/metrics", None, (200,) * 7, (200,) * 7),
    ("GET", "/openapi.json", None, (200,) * 7, (200,) * 7),
]  # fmt: skip


def test_every_route_answers_every_role_as_the_table_says(world: World) -> None:
    wrong = []
    for method, path, body, at_own, at_others in TABLE:
        for sale, statuses in ((world.own, at_own), (world.other, at_others)):
            filled = path.format(
                event=sale.event,
                booking=sale.booking,
                bobs_booking=sale.bobs_booking,
                cancellation=sale.cancellation,
                change=sale.change,
                webhook=sale.webhook,
                message=new_id(),
            )
            for caller, status in zip(CALLERS, statuses, strict=True):
                answer = world.ask(caller, method, filled, body)
                if answer.status_code != status:
                    whose = "own" if sale is world.own else "other"
                    wrong.append(f"{method} {path} ({whose}) by {caller}: {answer.status_code}, not {status}")
    assert wrong == []


def test_the_table_has_every_call(world: World) -> None:
    document = world.api.get("/openapi.json").json()
    calls = {
        (method.upper(), re.sub(r"{.*?}", "{}", path))
        for path, operations in document["paths"].items()
        for method in operations
    }
    tested = {(method, re.sub(r"{.*?}", "{}", path.partition("?")[0])) for method, path, *_ in TABLE}
    assert calls <= tested


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/bookings/{id}"),
        ("DELETE", "/bookings/{id}"),
        ("GET", "/jobs/{id}"),
        ("DELETE", "/jobs/{id}"),
        ("GET", "/jobs/{id}/events"),
    ],
)
def test_what_is_anothers_looks_like_what_does_not_exist(world: World, method: str, path: str) -> None:
    nothing = new_id()
    for caller, anothers in (("organiser", world.other.booking), ("customer", world.own.bobs_booking)):
        answers = [world.ask(caller, method, path.format(id=id)) for id in (anothers, nothing)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].text.replace(anothers, nothing) == answers[1].text
        headers = [{name: answer.headers[name] for name in answer.headers} for answer in answers]
        for each in headers:
            for name in ("date", "ratelimit", "ratelimit-policy", "x-request-id"):
                each.pop(name, None)
        assert headers[0] == headers[1]


def test_another_event_of_the_account_is_not_a_sellers_who_is_held_to_one(
    world: World, secured: Settings, database: Database
) -> None:
    event = make_event(database, "acme")
    path = f"/events/{event.id}/bookings"
    assert world.ask("seller", "POST", path, BOOK).status_code == 202
    assert world.ask("seller of one", "POST", path, BOOK).status_code == 404


def test_customers_see_their_own_bookings_only(world: World) -> None:
    listed = world.ask("customer", "GET", f"/events/{world.own.event}/bookings").json()["items"]
    assert {booking["user_id"] for booking in listed} == {"ann"}
    everything = world.ask("organiser", "GET", f"/events/{world.own.event}/bookings").json()["items"]
    assert {booking["user_id"] for booking in everything} == {"ann", "bob"}


def test_organisers_and_sellers_list_the_events_of_their_account(world: World) -> None:
    for caller in ("organiser", "seller"):
        listed = world.ask(caller, "GET", "/events").json()["items"]
        assert [event["id"] for event in listed] == [world.own.event]
    everything = world.ask("customer", "GET", "/events").json()["items"]
    assert {event["id"] for event in everything} == {world.own.event, world.other.event}


def test_a_customer_books_withdraws_and_cancels_while_it_waits(world: World) -> None:
    booked = world.ask("customer", "POST", f"/events/{world.own.event}/bookings", BOOK, wait=True)
    assert (booked.status_code, booked.json()["user_id"]) == (201, "ann")
    cancelled = world.ask("customer", "DELETE", f"/bookings/{booked.json()['id']}", wait=True)
    assert cancelled.json()["status"] == "cancelled"


def test_two_callers_with_the_same_key_have_two_jobs(world: World) -> None:
    ids = set()
    for caller in ("organiser", "seller", "customer"):
        answer = world.api.post(
            f"/events/{world.own.event}/bookings",
            json=BOOK,
            headers={
                "Authorization": f"Bearer {world.credentials[caller]}",
                "Idempotency-Key": "the-same",
            },
        )
        assert answer.status_code == 202
        ids.add(answer.json()["id"])
    assert len(ids) == 3


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic YW5uOmFubg==",
        "Bearer",
        "Bearer nonsense",
        "Bearer onsale_00000000000000000000000000000000_" + "x" * 43,
        "Bearer " + "x" * 9_000,
        "Bearer \xe4",
    ],
)
def test_credentials_that_are_not_good_are_told_so(world: World, authorization: str) -> None:
    for path in ("/events", f"/events/{world.own.event}/bookings"):
        answer = world.api.post(path, json=BOOK, headers={b"Authorization": authorization.encode("latin-1")})
        assert (answer.status_code, answer.json()["type"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_who_may_not_is_told_so_before_their_body_is_read(world: World) -> None:
    event = world.own.event
    paths = [("POST", "/events"), ("PATCH", f"/events/{event}"), ("POST", f"/events/{event}/webhooks")]
    customer = {"Authorization": f"Bearer {world.credentials['customer']}"}
    for method, path in [*paths, ("POST", f"/events/{event}/bookings")]:
        for content in (b"no JSON", b"\xff"):
            answer = world.api.request(method, path, content=content, headers=JSON)
            assert (answer.status_code, answer.json()["type"]) == (401, "unauthenticated")
    for method, path in paths:
        answer = world.api.request(method, path, content=b"no JSON", headers={**JSON, **customer})
        assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")


def test_credentials_in_two_lines_are_not_good_anywhere(world: World) -> None:
    lines = [
        ("Authorization", f"Bearer {world.credentials['organiser']}"),
        ("Authorization", "Bearer of bad news"),
    ]
    event = world.own.event
    for method, path in (
        ("GET", "/events"),
        ("GET", f"/events/{event}/box-office?snapshots=1"),
        ("POST", f"/events/{event}/bookings"),
    ):
        answer = world.api.request(method, path, json=BOOK, headers=lines)
        assert (answer.status_code, answer.json()["type"]) == (401, "unauthenticated")


def test_a_revoked_key_is_good_no_more(world: World, database: Database) -> None:
    key, token = make_key(database, Role.ORGANISER, "acme")

    def status() -> int:
        return world.api.get("/events", headers={"Authorization": f"Bearer {token}"}).status_code

    wait_until(lambda: status() == 200)
    with database.transaction() as connection:
        assert api_keys.revoke_key(connection, key.id, NOW)
    wait_until(lambda: status() == 401)


def test_a_rotated_key_is_good_with_its_new_secret(world: World, database: Database) -> None:
    key, old_token = make_key(database, Role.ORGANISER, "acme")
    secret = new_secret()
    with database.transaction() as connection:
        api_keys.rotate_key(connection, key.id, hash_secret(secret), previous_until=NOW)
    new_token = write_token(key.id, secret)

    def status(token: str) -> int:
        return world.api.get("/events", headers={"Authorization": f"Bearer {token}"}).status_code

    wait_until(lambda: status(new_token) == 200)
    assert status(old_token) == 401


def test_known_keys_are_good_while_postgresql_is_away_but_not_for_ever(
    secured: Settings, database: Database, start_worker: StartWorker
) -> None:
    """The API's own database is made unreachable, once it has read the keys."""
    _, token = make_key(database, Role.ORGANISER, "acme")
    headers = {"Authorization": f"Bearer {token}"}
    unreachable = create_engine("postgresql+psycopg2://127.0.0.1:1/nowhere")
    with serving(secured, keys_trust_seconds=2.0) as served:
        api = served.client
        wait_until(lambda: api.get("/events", headers=headers).status_code == 200)
        served.context.database.engine.dispose()
        served.context.database.engine = unreachable
        assert api.get("/events/nonsense", headers=headers).status_code == 404
        wait_until(lambda: api.get("/events/nonsense", headers=headers).status_code == 503)


def test_a_customer_who_asks_too_often_is_told_when_to_come_again(
    secured: Settings, database: Database, redis_client: redis.Redis
) -> None:
    with serving(secured, requests_per_customer=3) as served:
        api = served.client
        headers = {"Authorization": f"Bearer {token_of('ann')}"}
        path = f"/events/{new_id()}/bookings"
        answers = [
            api.get("/events", headers=headers),
            api.post(path, json=BOOK, headers=headers),
            api.get("/events", headers=headers),
            api.post(path, json=BOOK, headers=headers),
            api.get("/events", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [200, 404, 200, 429, 429]
        assert [answer.headers["ratelimit"].partition(";t=")[0] for answer in answers] == [
            f'"caller";r={left}' for left in (2, 1, 0, 0, 0)
        ]
        assert answers[-1].json()["type"] == "too-many-requests"
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].headers["ratelimit-policy"] == '"caller";q=3;w=60'
        other = api.get("/events", headers={"Authorization": f"Bearer {token_of('bob')}"})
        assert other.status_code == 200


def test_no_secret_stands_in_the_logs(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    spoilt = world.credentials["customer"] + "x"
    for token in (*world.credentials.values(), spoilt, SECRET):
        world.api.get("/events", headers={"Authorization": f"Bearer {token}"})
        world.api.get("/jobs/nonsense", headers={"Authorization": f"Bearer {token}"})
    printed = caplog.text + "".join(capfd.readouterr())
    for token in (*world.credentials.values(), spoilt, SECRET):
        assert token not in printed
        assert token[-20:] not in printed
