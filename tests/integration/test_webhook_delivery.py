"""Messages delivered to a real HTTP server: signed, retried, logged, and only where they may go."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from standardwebhooks import WebhookVerificationError

from shared import limits
from shared.database import webhooks as statements
from shared.database.engine import Database
from shared.records import EventRecord
from shared.settings import Settings
from shared.webhooks.messages import MessageType
from shared.webhooks.records import MessageStatus, WebhookRecord
from shared.webhooks.schedule import TRIES_MAX
from shared.webhooks.secrets import new_secret
from tests.builders import create_event, tamper, wait_until
from tests.certificates import make_certificate
from tests.clocks import MovableClock
from tests.receivers import Received, Receiver, running_receiver
from tests.webhooks import (
    attempts_of,
    current,
    deliverer,
    make_all,
    messages_of,
    register,
    sell,
)
from worker.webhooks.deliver import Tally


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A generous time limit: a test that does not wait for it must not meet it on a busy machine."""
    return settings.model_copy(update={"webhooks_allow_private": True, "webhooks_attempt_seconds_max": 20.0})


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhooks_attempt_seconds_max": 0.2})


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


def tell(database: Database, event: EventRecord, *user_ids: str) -> None:
    """Sell to these users and make the messages of it."""
    sell(database, event, *user_ids)
    make_all(database)


def only_error(database: Database, webhook: WebhookRecord) -> str | None:
    """What went wrong with the only attempt at the only message."""
    [message] = messages_of(database, webhook)
    [attempt] = attempts_of(database, message)
    return attempt.error


def test_what_happened_arrives_in_order_and_with_a_signature_that_verifies(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    jobs = sell(database, event, "ann", "bob", "eve")
    make_all(database)
    assert deliverer(database, settings).deliver(webhook.id) == Tally(delivered=3)
    messages = messages_of(database, webhook)
    assert [received.id for received in receiver.received] == [message.id for message in messages]
    for received, job_id, user_id in zip(receiver.received, jobs, ("ann", "bob", "eve"), strict=True):
        body = received.verified(webhook.secret)
        assert body["type"] == "booking.created"
        assert body["data"]["job_id"] == job_id
        assert body["data"]["booking"]["user_id"] == user_id
        assert received.path == "/hook"
        assert received.headers["content-type"] == "application/json"
        assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
        with pytest.raises(WebhookVerificationError):
            received.verified(new_secret())
    for message in messages:
        assert (message.status, message.attempts) == (MessageStatus.DELIVERED, 1)
        [attempt] = attempts_of(database, message)
        assert (attempt.number, attempt.status_code, attempt.error) == (1, 200, None)
    assert deliverer(database, settings).deliver(webhook.id) == Tally()
    assert current(database, webhook).claimed_until is None


def test_for_a_while_messages_are_signed_with_the_old_secret_too(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    clock = MovableClock()
    secret = new_secret()
    with database.transaction() as connection:
        statements.replace_secret(connection, webhook.id, secret, clock.now().replace(year=2100))
    tell(database, event, "ann")
    deliverer(database, settings).deliver(webhook.id)
    receiver.received[0].verified(secret)
    receiver.received[0].verified(webhook.secret)
    tamper(database, "UPDATE webhooks SET old_secret_until = now()")
    tell(database, event, "bob")
    deliverer(database, settings).deliver(webhook.id)
    receiver.received[1].verified(secret)
    with pytest.raises(WebhookVerificationError):
        receiver.received[1].verified(webhook.secret)


def test_a_message_is_tried_again_by_the_clock_until_it_is_taken(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    clock = MovableClock()
    delivering = deliverer(database, settings, clock)
    receiver.reply = lambda _handler, _received: 500
    tell(database, event, "ann")
    assert delivering.deliver(webhook.id) == Tally(failed=1)
    assert delivering.deliver(webhook.id) == Tally()
    clock.advance(seconds=4)
    assert delivering.deliver(webhook.id) == Tally()
    clock.advance(seconds=3)
    receiver.reply = lambda _handler, _received: 200
    assert delivering.deliver(webhook.id) == Tally(delivered=1)
    [message] = messages_of(database, webhook)
    assert [attempt.status_code for attempt in attempts_of(database, message)] == [500, 200]
    assert [received.id for received in receiver.received] == [message.id] * 2
    bodies = {received.body for received in receiver.received}
    assert bodies == {message.body.encode()}


def test_a_message_that_is_never_taken_fails_after_the_whole_schedule(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    clock = MovableClock()
    receiver.reply = lambda _handler, _received: 503
    tell(database, event, "ann")
    for _ in range(TRIES_MAX):
        assert deliverer(database, settings, clock).deliver(webhook.id) == Tally(failed=1)
        clock.advance(hours=29)
        # Long before it is disabled: other messages were taken in between.
        tamper(database, "UPDATE webhooks SET failing_since = NULL")
    assert deliverer(database, settings, clock).deliver(webhook.id) == Tally()
    [message] = messages_of(database, webhook)
    assert (message.status, message.attempts) == (MessageStatus.FAILED, TRIES_MAX)
    assert len(receiver.received) == TRIES_MAX


def test_one_message_that_is_not_taken_does_not_hold_up_the_others(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    clock = MovableClock()
    receiver.reply = lambda _handler, received: 400 if received.data["position"] == 1 else 200
    tell(database, event, "ann", "bob", "eve")
    assert deliverer(database, settings, clock).deliver(webhook.id) == Tally(failed=1)
    clock.advance(seconds=2)
    assert deliverer(database, settings, clock).deliver(webhook.id) == Tally(delivered=2)
    statuses = [message.status.value for message in messages_of(database, webhook)]
    assert statuses == ["pending", "delivered", "delivered"]


def test_a_target_that_fails_rests_as_a_whole(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    clock = MovableClock()
    receiver.reply = lambda _handler, _received: 500
    tell(database, event, "ann", "bob", "eve")
    for seconds, requests in ((0, 1), (0, 1), (2, 2), (2, 2), (6, 3), (10, 3)):
        clock.advance(seconds=seconds)
        deliverer(database, settings, clock).deliver(webhook.id)
        assert len(receiver.received) == requests


def test_410_gone_disables_a_webhook_and_fails_what_waits(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    receiver.reply = lambda _handler, _received: 410
    tell(database, event, "ann", "bob")
    deliverer(database, settings).deliver(webhook.id)
    assert current(database, webhook).disabled_reason == "the target answered 410 Gone"
    assert {message.status for message in messages_of(database, webhook)} == {MessageStatus.FAILED}
    clock = MovableClock()
    clock.advance(days=1)
    assert deliverer(database, settings, clock).deliver(webhook.id) == Tally()
    assert len(receiver.received) == 1


def test_a_target_that_does_not_answer_in_time_is_noted_as_slow(
    database: Database, impatient: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    receiver.reply = receiver.hang
    tell(database, event, "ann")
    assert deliverer(database, impatient).deliver(webhook.id) == Tally(failed=1)
    assert only_error(database, webhook) == "no answer within 0.2 seconds"
    assert current(database, webhook).slow


def test_a_target_that_answers_byte_by_byte_meets_the_same_limit(
    database: Database, impatient: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    def drip(handler: BaseHTTPRequestHandler, _received: Received) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        while not receiver.released.wait(0.02):
            handler.wfile.write(b"x")

    receiver.reply = drip
    tell(database, event, "ann")
    assert deliverer(database, impatient).deliver(webhook.id) == Tally(failed=1)
    assert only_error(database, webhook) == "no answer within 0.2 seconds"


def test_no_more_than_a_bound_is_read_of_an_answer(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    written: list[int] = []

    def flood(handler: BaseHTTPRequestHandler, _received: Received) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        part = b"x" * 65_536
        try:
            for _ in range(15_000):
                handler.wfile.write(part)
                written.append(len(part))
        except OSError:
            receiver.released.set()

    receiver.reply = flood
    tell(database, event, "ann")
    assert deliverer(database, settings).deliver(webhook.id) == Tally(delivered=1)
    assert receiver.released.wait(30)
    assert sum(written) < 500_000_000


def test_an_answer_that_is_none_is_logged_in_characters_that_can_be_stored(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    def babble(handler: BaseHTTPRequestHandler, _received: Received) -> None:
        handler.wfile.write("\x00\x01\ud7ff no HTTP at all\r\n\r\n".encode())
        handler.close_connection = True

    receiver.reply = babble
    tell(database, event, "ann")
    deliverer(database, settings).deliver(webhook.id)
    assert "RemoteProtocolError" in str(only_error(database, webhook))


def test_a_redirect_is_not_followed(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    def redirect(handler: BaseHTTPRequestHandler, _received: Received) -> None:
        handler.send_response(307)
        handler.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.reply = redirect
    tell(database, event, "ann")
    deliverer(database, settings).deliver(webhook.id)
    assert only_error(database, webhook) == "answered 307; redirects are not followed"
    assert [received.path for received in receiver.received] == ["/hook"]


def test_a_target_that_is_not_there_is_tried_again_later(
    database: Database, settings: Settings, event: EventRecord
) -> None:
    with running_receiver() as gone:
        webhook = register(database, event, gone.url)
    tell(database, event, "ann")
    deliverer(database, settings).deliver(webhook.id)
    assert "ConnectError" in str(only_error(database, webhook))
    [message] = messages_of(database, webhook)
    assert message.status is MessageStatus.PENDING


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/",
        "https://2130706433:{port}/",
        "https://[::1]:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "https://localhost:{port}/",
        "https://rebound.example:{port}/",
        "http://rebound.example:{port}/",
    ],
)
def test_nothing_is_sent_to_a_private_address(
    database: Database, settings: Settings, event: EventRecord, receiver: Receiver, url: str
) -> None:
    """Whatever was allowed when it was registered."""
    webhook = register(database, event, url.format(port=receiver.port))
    tell(database, event, "ann")
    strict = settings.model_copy(update={"webhooks_allow_private": False})
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.215.14", "127.0.0.1"] if host == "rebound.example" else [host.strip("[]")]

    resolving = {"resolve": resolve} if "example" in url else {}
    deliverer(database, strict, **resolving).deliver(webhook.id)  # type: ignore[arg-type]
    assert str(only_error(database, webhook)).startswith("not sent: it")
    assert receiver.received == []


def test_a_request_goes_to_the_address_that_was_looked_at_and_keeps_its_host(
    database: Database, settings: Settings, event: EventRecord, receiver: Receiver
) -> None:
    webhook = register(database, event, f"http://shop.example:{receiver.port}/hook?shop=1")
    tell(database, event, "ann")
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    assert deliverer(database, settings, resolve=resolve).deliver(webhook.id) == Tally(delivered=1)
    assert asked == [("shop.example", receiver.port)]
    [received] = receiver.received
    assert received.headers["host"] == f"shop.example:{receiver.port}"
    assert received.path == "/hook?shop=1"


def test_the_next_address_of_a_host_is_tried_where_nothing_listens(
    database: Database, settings: Settings, event: EventRecord, receiver: Receiver
) -> None:
    webhook = register(database, event, f"http://shop.example:{receiver.port}/")
    tell(database, event, "ann")
    delivering = deliverer(database, settings, resolve=lambda _host, _port: ["127.0.0.77", "127.0.0.1"])
    assert delivering.deliver(webhook.id) == Tally(delivered=1)


@pytest.mark.parametrize("error", [OSError("no such host"), UnicodeError("label too long")])
def test_a_host_without_an_address_is_an_answer_too(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, error: Exception
) -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise error

    tell(database, event, "ann")
    deliverer(database, settings, resolve=resolve).deliver(webhook.id)
    assert only_error(database, webhook) == f"ConnectError: the host has no address ({error})"


def test_a_resolver_that_hangs_meets_the_limit(
    database: Database, impatient: Settings, event: EventRecord, webhook: WebhookRecord
) -> None:
    released = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        released.wait(30)
        return ["127.0.0.1"]

    tell(database, event, "ann")
    assert deliverer(database, impatient, resolve=resolve).deliver(webhook.id) == Tally(failed=1)
    released.set()
    assert only_error(database, webhook) == "no answer within 0.2 seconds"


def test_a_proxy_of_the_environment_is_not_used(
    database: Database,
    settings: Settings,
    event: EventRecord,
    webhook: WebhookRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    tell(database, event, "ann")
    assert deliverer(database, settings).deliver(webhook.id) == Tally(delivered=1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "shop.example")


@pytest.mark.parametrize(("host", "taken"), [("shop.example", True), ("other.example", False)])
def test_a_target_must_show_the_certificate_of_the_host_in_its_url(
    database: Database, settings: Settings, event: EventRecord, certificate: Path, host: str, taken: bool
) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    asked: list[str | None] = []
    serving.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with running_receiver(serving) as secure:
        webhook = register(database, event, f"https://{host}:{secure.port}/hook")
        tell(database, event, "ann")
        delivering = deliverer(
            database, settings, resolve=lambda _host, _port: ["127.0.0.1"], certificates=trusting
        )
        assert delivering.deliver(webhook.id) == (Tally(delivered=1) if taken else Tally(failed=1))
        assert asked == [host]
        assert len(secure.received) == taken
    error = only_error(database, webhook)
    assert error is None if taken else "certificate" in str(error)


def test_two_deliveries_at_the_same_time_send_each_message_once(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    tell(database, event, *(f"user{number}" for number in range(20)))
    with ThreadPoolExecutor(4) as pool:
        tallies = list(pool.map(lambda _: deliverer(database, settings).deliver(webhook.id), range(4)))
    assert sum(tally.delivered for tally in tallies) == 20
    ids = [received.id for received in receiver.received]
    assert ids == [message.id for message in messages_of(database, webhook)]


def test_a_delivery_that_was_frozen_leaves_the_webhook_to_who_took_it_over(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    tell(database, event, "ann", "bob")
    receiver.reply = receiver.hang
    clock = MovableClock()
    clock.advance(seconds=settings.webhooks_attempt_seconds_max + limits.WEBHOOK_CLAIM_MARGIN_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        frozen = pool.submit(deliverer(database, settings).deliver, webhook.id)
        wait_until(lambda: receiver.received)
        receiver.reply = lambda _handler, _received: 200
        assert deliverer(database, settings, clock).deliver(webhook.id) == Tally(delivered=2)
        receiver.released.set()
        assert frozen.result(30) == Tally(failed=1)
    first, second = messages_of(database, webhook)
    assert [received.id for received in receiver.received] == [first.id, first.id, second.id]
    assert {message.attempts for message in (first, second)} == {1}


def test_a_webhook_that_is_deleted_while_it_is_delivered_stops(
    database: Database, settings: Settings, event: EventRecord, webhook: WebhookRecord, receiver: Receiver
) -> None:
    tell(database, event, "ann", "bob")

    def delete_it(_handler: BaseHTTPRequestHandler, _received: Received) -> int:
        tamper(database, "UPDATE webhooks SET deleted_at = now()")
        return 200

    receiver.reply = delete_it
    assert deliverer(database, settings).deliver(webhook.id) == Tally(failed=1)
    assert len(receiver.received) == 1


def test_the_log_of_a_message_keeps_the_newest_attempts(
    database: Database,
    settings: Settings,
    event: EventRecord,
    webhook: WebhookRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_ATTEMPTS_LOGGED_MAX", 3)
    receiver.reply = lambda _handler, _received: 500
    clock = MovableClock()
    tell(database, event, "ann")
    for _ in range(5):
        deliverer(database, settings, clock).deliver(webhook.id)
        clock.advance(hours=6)
    [message] = messages_of(database, webhook)
    assert [attempt.number for attempt in attempts_of(database, message)] == [3, 4, 5]


def test_a_stretch_ends_for_the_others_turn_and_gives_the_webhook_back(
    database: Database,
    settings: Settings,
    event: EventRecord,
    webhook: WebhookRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_STRETCH_SECONDS_MAX", 0.0)
    tell(database, event, "ann", "bob")
    assert deliverer(database, settings).deliver(webhook.id) == Tally(delivered=1)
    assert current(database, webhook).claimed_until is None
    assert deliverer(database, settings).deliver(webhook.id) == Tally(delivered=1)
    assert [received.data["position"] for received in receiver.received] == [1, 2]


def test_only_what_was_asked_for_is_delivered(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    event = create_event(database, total_tickets=2)
    webhook = register(database, event, receiver.url, [MessageType.EVENT_SOLD_OUT])
    sell(database, event, "ann", "bob")
    make_all(database)
    deliverer(database, settings).deliver(webhook.id)
    assert [(received.type, received.data["position"]) for received in receiver.received] == [
        ("event.sold_out", 2)
    ]
