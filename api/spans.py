"""The OpenTelemetry span of a submit, which travels with the command as its trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace
from opentelemetry.trace import SpanKind, Tracer

from shared.identifiers import new_id
from shared.line.producer import Submission
from shared.trace import Trace, current_trace
from shared.tracing import context_of, traceparent_of


@contextmanager
def submit_span(tracer: Tracer, submission: Submission) -> Iterator[Submission]:
    """A span around the acceptance of a command; gives the command as it is to be sent on.

    The span continues the client's trace, if it sent one. The command carries the span if it is sampled,
    and otherwise what the client sent.
    """
    trace = current_trace() or Trace(request_id=new_id())
    with tracer.start_as_current_span(
        "submit",
        context=context_of(trace.traceparent),
        kind=SpanKind.PRODUCER,
        attributes={
            "onsale.event_id": submission.event_id,
            "onsale.job_id": submission.job_id,
            "onsale.request_id": trace.request_id,
        },
    ) as span:
        if span.is_recording():
            carried = Trace(request_id=trace.request_id, traceparent=traceparent_of(span))
            submission = replace(submission, trace=str(carried))
        yield submission
