"""Webhooks over HTTP: register, look, delete, read the log, redeliver."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from shared import limits
from shared.database.engine import Database
from shared.records import EventRecord
from shared.settings import Settings
from shared.webhooks.records import MessageStatus, WebhookRecord
from tests.builders import UNKNOWN_ID, create_event, tamper
from tests.receivers import Receiver, running_receiver
from tests.webhooks import current, deliverer, make_all, messages_of, register, sell

ALL_TYPES = ["booking.cancelled", "booking.created", "event.sold_out"]


@pytest.fixture
def allow_private() -> bool:
    """A test that is about where webhooks may not go sets it otherwise."""
    return True


@pytest.fixture
def settings(settings: Settings, allow_private: bool) -> Settings:
    return settings.model_copy(update={"webhooks_allow_private": allow_private})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def event(database: Database) -> EventRecord:
    return create_event(database, total_tickets=100)


@pytest.fixture
def webhook(database: Database, event: EventRecord, receiver: Receiver) -> WebhookRecord:
    return register(database, event, receiver.url)


def post(api: httpx.Client, event_id: str, url: str, types: list[str] | None = None) -> httpx.Response:
    return api.post(f"/events/{event_id}/webhooks", json={"url": url, "types": types or ALL_TYPES})


def assert_problem(answer: httpx.Response, status: int, type: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["status"], problem["type"]) == (status, type)
    return problem


def test_a_webhook_is_registered_with_a_secret_that_is_shown_once(
    api: httpx.Client, database: Database, event: EventRecord, receiver: Receiver, settings: Settings
) -> None:
    answer = post(api, event.id, receiver.url, ["event.sold_out", "booking.created", "booking.created"])
    assert answer.status_code == 201
    webhook = answer.json()
    assert answer.headers["location"] == f"/webhooks/{webhook['id']}"
    assert answer.headers["cache-control"] == "no-store"
    secret = webhook.pop("secret")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert webhook["types"] == ["booking.created", "event.sold_out"]
    assert (webhook["url"], webhook["status"], webhook["failures"]) == (receiver.url, "active", 0)
    assert api.get(f"/webhooks/{webhook['id']}").json() == webhook
    assert api.get(f"/events/{event.id}/webhooks").json() == {"items": [webhook]}
    sell(database, event, "ann")
    make_all(database)
    deliverer(database, settings).deliver(webhook["id"])
    assert receiver.received[0].verified(secret)["data"]["booking"]["user_id"] == "ann"


def test_a_deleted_webhook_is_gone(api: httpx.Client, event: EventRecord, webhook: WebhookRecord) -> None:
    assert api.delete(f"/webhooks/{webhook.id}").status_code == 204
    for answer in (
        api.delete(f"/webhooks/{webhook.id}"),
        api.get(f"/webhooks/{webhook.id}"),
        api.get(f"/webhooks/{webhook.id}/messages"),
        api.post(f"/webhooks/{webhook.id}/enable"),
        api.post(f"/webhooks/{webhook.id}/secret"),
    ):
        assert_problem(answer, 404, "webhook-not-found")
    assert api.get(f"/events/{event.id}/webhooks").json() == {"items": []}


@pytest.mark.parametrize("id", [UNKNOWN_ID, "nonsense", "'; DROP TABLE webhooks"])
def test_what_is_not_there_is_not_found(api: httpx.Client, webhook: WebhookRecord, id: str) -> None:
    assert_problem(api.get(f"/webhooks/{id}"), 404, "webhook-not-found")
    assert_problem(api.get(f"/events/{id}/webhooks"), 404, "event-not-found")
    assert_problem(post(api, id, "http://127.0.0.1/"), 404, "event-not-found")
    path = f"/webhooks/{webhook.id}/messages/{id}"
    assert_problem(api.get(path), 404, "message-not-found")
    assert_problem(api.post(f"{path}/redeliver"), 404, "message-not-found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"types": ["booking.created"]}, "url"),
        ({"url": "http://127.0.0.1/"}, "types"),
        ({"url": "http://127.0.0.1/", "types": []}, "types"),
        ({"url": "http://127.0.0.1/", "types": ["booking.moved"]}, "types"),
        ({"url": "http://127.0.0.1/", "types": ["booking.created"], "more": 1}, "more"),
        ({"url": "http://127.0.0.1/" + "a" * limits.WEBHOOK_URL_LENGTH_MAX, "types": ALL_TYPES}, "url"),
        ({"url": "ftp://127.0.0.1/", "types": ALL_TYPES}, "url"),
        ({"url": "http://ann:secret@127.0.0.1/", "types": ALL_TYPES}, "url"),
        ({"url": "http://127.0.0.1/\x00", "types": ALL_TYPES}, "url"),
    ],
)
def test_a_wrong_field_is_named(
    api: httpx.Client, event: EventRecord, body: dict[str, object], field: str
) -> None:
    answer = api.post(f"/events/{event.id}/webhooks", json=body)
    problem = assert_problem(answer, 422, "invalid-request")
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("allow_private", [False])
@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
        "https://169.254.169.254/latest/meta-data",
    ],
)
def test_a_url_that_may_not_be_sent_to_is_refused_when_it_is_registered(
    api: httpx.Client, event: EventRecord, url: str
) -> None:
    problem = assert_problem(post(api, event.id, url), 422, "invalid-request")
    assert [error["field"] for error in problem["errors"]] == ["url"]
    assert api.get(f"/events/{event.id}/webhooks").json() == {"items": []}


@pytest.mark.parametrize("allow_private", [False])
def test_a_host_without_an_address_may_have_one_later(api: httpx.Client, event: EventRecord) -> None:
    assert post(api, event.id, "https://nowhere.invalid/").status_code == 201


def test_an_event_has_a_bounded_number_of_webhooks(api: httpx.Client, event: EventRecord) -> None:
    answers = [post(api, event.id, "http://127.0.0.1/") for _ in range(limits.WEBHOOKS_PER_EVENT_MAX + 1)]
    assert {answer.status_code for answer in answers[:-1]} == {201}
    assert_problem(answers[-1], 409, "too-many-webhooks")
    api.delete(f"/webhooks/{answers[0].json()['id']}")
    assert post(api, event.id, "http://127.0.0.1/").status_code == 201


def test_the_log_is_read_in_pages_newest_first_and_stable_under_writes(
    api: httpx.Client, database: Database, event: EventRecord, webhook: WebhookRecord
) -> None:
    sell(database, event, *(f"user{number}" for number in range(7)))
    make_all(database)
    path, positions = f"/webhooks/{webhook.id}/messages?limit=3", []
    while path:
        answer = api.get(path)
        assert answer.status_code == 200
        positions.append([message["position"] for message in answer.json()["items"]])
        path = answer.links.get("next", {}).get("url", "")
        assert (answer.json()["next_cursor"] or "no cursor") in (path or "no cursor")
        sell(database, event, f"later{len(positions)}")
        make_all(database)
    assert positions == [[7, 6, 5], [4, 3, 2], [1]]


def test_the_log_can_be_read_by_status(
    api: httpx.Client, database: Database, event: EventRecord, webhook: WebhookRecord
) -> None:
    sell(database, event, *(f"user{number}" for number in range(6)))
    make_all(database)
    tamper(
        database,
        "UPDATE webhook_messages SET status = 'failed', next_attempt_at = NULL WHERE position % 2 = 0",
    )
    first = api.get(f"/webhooks/{webhook.id}/messages?limit=2&status=failed")
    second = api.get(first.links["next"]["url"])
    assert [message["position"] for message in (*first.json()["items"], *second.json()["items"])] == [6, 4, 2]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=many", "cursor=x", "cursor=1-x", "cursor=-1-", "status=lost"]
)
def test_a_wrong_query_is_named(api: httpx.Client, webhook: WebhookRecord, query: str) -> None:
    problem = assert_problem(api.get(f"/webhooks/{webhook.id}/messages?{query}"), 422, "invalid-request")
    assert [error["field"] for error in problem["errors"]] == [query.partition("=")[0]]


def test_a_message_shows_what_is_sent_and_every_attempt(
    api: httpx.Client,
    database: Database,
    settings: Settings,
    event: EventRecord,
    webhook: WebhookRecord,
    receiver: Receiver,
) -> None:
    receiver.reply = lambda _handler, _received: 500
    sell(database, event, "ann")
    make_all(database)
    deliverer(database, settings).deliver(webhook.id)
    [message] = api.get(f"/webhooks/{webhook.id}/messages").json()["items"]
    assert (message["status"], message["attempts"]) == ("pending", 1)
    assert message["next_attempt_at"] > message["created_at"]
    shown = api.get(f"/webhooks/{webhook.id}/messages/{message['id']}").json()
    assert shown["body"].encode() == receiver.received[0].body
    [attempt] = shown["log"]
    assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, 500, "answered 500")
    assert api.get(f"/webhooks/{webhook.id}").json()["failures"] == 1


@pytest.mark.parametrize("status", list(MessageStatus))
def test_a_message_is_delivered_again_with_the_same_id(
    api: httpx.Client,
    database: Database,
    settings: Settings,
    event: EventRecord,
    webhook: WebhookRecord,
    receiver: Receiver,
    status: MessageStatus,
) -> None:
    sell(database, event, "ann")
    make_all(database)
    deliverer(database, settings).deliver(webhook.id)
    time = "now() + interval '1 day'" if status is MessageStatus.PENDING else "NULL"
    columns = f"status = '{status.value}', tries = 9, next_attempt_at = {time}"
    tamper(database, f"UPDATE webhook_messages SET {columns}")
    [message] = messages_of(database, webhook)
    answer = api.post(f"/webhooks/{webhook.id}/messages/{message.id}/redeliver")
    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    deliverer(database, settings).deliver(webhook.id)
    assert [received.id for received in receiver.received] == [message.id] * 2
    [message] = messages_of(database, webhook)
    assert (message.status, message.attempts) == (MessageStatus.DELIVERED, 2)


def test_a_message_of_another_webhook_is_not_found(
    api: httpx.Client, database: Database, event: EventRecord, webhook: WebhookRecord
) -> None:
    other = register(database, event, "http://127.0.0.1/")
    sell(database, event, "ann")
    make_all(database)
    [message] = messages_of(database, webhook)
    path = f"/webhooks/{other.id}/messages/{message.id}"
    assert_problem(api.get(path), 404, "message-not-found")
    assert_problem(api.post(f"{path}/redeliver"), 404, "message-not-found")


def test_a_disabled_webhook_goes_on_where_it_stopped_when_it_is_enabled(
    api: httpx.Client,
    database: Database,
    settings: Settings,
    event: EventRecord,
    webhook: WebhookRecord,
    receiver: Receiver,
) -> None:
    receiver.reply = lambda _handler, _received: 410
    sell(database, event, "ann")
    make_all(database)
    deliverer(database, settings).deliver(webhook.id)
    sell(database, event, "bob")
    make_all(database)
    disabled = api.get(f"/webhooks/{webhook.id}").json()
    assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", "the target answered 410 Gone")
    [failed] = messages_of(database, webhook)
    path = f"/webhooks/{webhook.id}/messages/{failed.id}/redeliver"
    assert_problem(api.post(path), 409, "webhook-disabled")
    receiver.reply = lambda _handler, _received: 200
    assert api.post(f"/webhooks/{webhook.id}/enable").json()["status"] == "active"
    assert api.post(path).status_code == 202
    make_all(database)
    deliverer(database, settings).deliver(webhook.id)
    told = {received.data["booking"]["user_id"] for received in receiver.received[1:]}
    assert told == {"ann", "bob"}
    assert current(database, webhook).failures == 0


def test_a_new_secret_signs_beside_the_old_one(
    api: httpx.Client,
    database: Database,
    settings: Settings,
    event: EventRecord,
    webhook: WebhookRecord,
    receiver: Receiver,
) -> None:
    secret = api.post(f"/webhooks/{webhook.id}/secret").json()["secret"]
    assert secret != webhook.secret
    sell(database, event, "ann")
    make_all(database)
    deliverer(database, settings).deliver(webhook.id)
    receiver.received[0].verified(secret)
    receiver.received[0].verified(webhook.secret)


def test_the_document_of_the_api_is_complete_about_webhooks(api: httpx.Client) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    operations = [
        operation for path, routes in paths.items() if "webhook" in path for operation in routes.values()
    ]
    assert len(operations) == 9
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert {"404", "503"} <= set(operation["responses"])
        for status, answer in operation["responses"].items():
            if status.startswith("2") and status != "204":
                assert answer["content"]["application/json"]["schema"]
            elif not status.startswith("2"):
                assert "application/problem+json" in answer["content"]
