"""OpenTelemetry: what a collector gets of a command, and that without one there is nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import Tracer
from pydantic import ValidationError

from shared.database.engine import Database
from shared.settings import Settings, SpanSettings, explain_settings_error
from shared.tracing import tracing
from tests.builders import build_worker, create_event, violations, wait_until
from tests.integration.test_trace import PARENT, trace_in_ledger
from tests.serving import serving

TRACE_ID, SPAN_ID = PARENT.split("-")[1:3]


class Collector:
    """An OTLP collector over HTTP that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[str, Span]]] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.keep(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def keep(self, request: ExportTraceServiceRequest) -> None:
        for resource_spans in request.resource_spans:
            (service,) = (
                attribute.value.string_value
                for attribute in resource_spans.resource.attributes
                if attribute.key == "service.name"
            )
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self.spans.setdefault(span.name, []).append((service, span))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


@contextmanager
def working(settings: Settings, database: Database, tracer: Tracer | None) -> Iterator[None]:
    worker = build_worker(settings, database, name="traced-worker", tracer=tracer)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


def book(settings: Settings, database: Database, headers: dict[str, str]) -> str:
    """The job of a booking that went all the way; all spans are with the collector at the end."""
    event = create_event(database)
    with (
        tracing("onsale-worker", SpanSettings()) as tracer,
        working(settings, database, tracer),
        serving(settings) as api,
    ):
        answer = api.client.post(
            f"/events/{event.id}/bookings",
            json={"user_id": "ann", "ticket_count": 1},
            headers=headers,
        )
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["id"]
        wait_until(lambda: api.client.get(f"/jobs/{id}").json()["done"])
    assert violations(database) == []
    return id


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes if each.value.string_value}


def test_a_submit_and_what_came_of_it_are_spans_of_the_clients_trace(
    settings: Settings, database: Database, redis_client: redis.Redis, collector: Collector
) -> None:
    job_id = book(settings, database, {"traceparent": PARENT, "X-Request-ID": "mine"})
    ((submit_service, submit),) = collector.spans["submit"]
    ((apply_service, apply),) = collector.spans["apply"]
    ((_, batch),) = collector.spans["apply batch"]
    assert (submit_service, apply_service) == ("onsale-api", "onsale-worker")
    assert submit.trace_id.hex() == apply.trace_id.hex() == TRACE_ID
    assert submit.parent_span_id.hex() == SPAN_ID
    assert apply.parent_span_id == submit.span_id
    assert [link.span_id for link in apply.links] == [batch.span_id]
    assert batch.trace_id != apply.trace_id
    assert attributes(submit)["onsale.request_id"] == "mine"
    assert attributes(apply)["onsale.outcome"] == "booked"
    assert attributes(submit)["onsale.job_id"] == attributes(apply)["onsale.job_id"] == job_id
    assert apply.start_time_unix_nano >= submit.start_time_unix_nano
    assert apply.end_time_unix_nano > apply.start_time_unix_nano
    carried = trace_in_ledger(database, job_id)
    assert carried == f"mine 00-{TRACE_ID}-{submit.span_id.hex()}-01"


def test_a_submit_without_a_trace_begins_one(
    settings: Settings, database: Database, redis_client: redis.Redis, collector: Collector
) -> None:
    book(settings, database, {})
    ((_, submit),) = collector.spans["submit"]
    ((_, apply),) = collector.spans["apply"]
    assert not submit.parent_span_id
    assert apply.trace_id == submit.trace_id
    assert apply.parent_span_id == submit.span_id


def test_what_is_not_sampled_is_not_told_and_the_clients_own_trace_goes_on(
    settings: Settings, database: Database, redis_client: redis.Redis, collector: Collector
) -> None:
    unsampled = PARENT[:-2] + "00"
    job_id = book(settings, database, {"traceparent": unsampled, "X-Request-ID": "mine"})
    assert collector.spans == {}
    assert trace_in_ledger(database, job_id) == f"mine {unsampled}"


def test_a_refused_submit_says_so_in_its_span(
    settings: Settings, database: Database, redis_client: redis.Redis, collector: Collector
) -> None:
    with serving(settings, line_length_max=1) as api:
        event = create_event(database)
        url = f"/events/{event.id}/bookings"
        answers = [
            api.client.post(url, json={"user_id": "ann", "ticket_count": 1}).status_code for _ in range(2)
        ]
    assert answers == [202, 429]
    last = max((span for _, span in collector.spans["submit"]), key=lambda span: span.start_time_unix_nano)
    assert last.status.code == last.status.STATUS_CODE_ERROR


def test_a_collector_that_is_away_costs_nobody_a_booking(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    book(settings, database, {})


def test_without_a_collector_nothing_that_makes_spans_is_loaded() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    program = """if True:
        import sys, api.main, worker.__main__
        from shared.settings import SpanSettings
        from shared.tracing import tracing
        with tracing("onsale", SpanSettings()) as tracer:
            assert tracer is None
        assert "opentelemetry.sdk.trace" not in sys.modules
        assert not [name for name in sys.modules if name.startswith("opentelemetry.exporter")]
    """
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
    ],
)
def test_spans_are_made_where_the_environment_asks_for_them(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert SpanSettings().wanted is wanted


def test_a_protocol_that_is_not_spoken_is_refused_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValidationError) as caught:
        SpanSettings()
    assert explain_settings_error(caught.value).startswith(
        "OTEL_EXPORTER_OTLP_PROTOCOL: Input should be 'http/"
    )
