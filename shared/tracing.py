"""OpenTelemetry: where spans go, if the environment says so, and the trace context as a command carries it.

The SDK reads its variables by itself, sampling and bounds included. Where none of them asks for spans,
nothing that makes them is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.settings import SpanSettings

_HEADER = "traceparent"

_propagator = TraceContextTextMapPropagator()


@contextmanager
def tracing(service_name: str, settings: SpanSettings) -> Iterator[Tracer | None]:
    """What makes spans, or None where nobody wants them; what is left to be sent is sent at the end."""
    if not settings.wanted:
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": settings.service_name or service_name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("onsale")
    finally:
        provider.shutdown()


def context_of(traceparent: str | None) -> Context:
    """The trace that a `traceparent` continues; a new one if there is none."""
    return _propagator.extract({_HEADER: traceparent} if traceparent else {}, context=Context())


def traceparent_of(span: Span) -> str:
    """What a span's children name as their parent."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=set_span_in_context(span, Context()))
    return carrier[_HEADER]
