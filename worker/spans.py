"""The OpenTelemetry spans of a batch: one of its own, and one in the trace of each command that has one."""

from __future__ import annotations

from datetime import datetime

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Tracer, get_current_span

from shared.trace import read_trace
from shared.tracing import context_of
from worker.applied_batch import AppliedBatch

_NANOSECONDS = 1_000_000_000


def tell_spans(tracer: Tracer, batch: AppliedBatch, *, started_at: datetime, ended_at: datetime) -> None:
    """Make the spans of a batch that was applied between these two moments.

    A command's span is a child of the submit's and links to that of the batch, as a batch belongs to the
    traces of all its commands.
    """
    sampled = [
        (command, context)
        for command in batch.waiting
        if (context := _sampled_context(command.trace)) is not None
    ]
    if not sampled:
        return
    begin, end = _nanoseconds(started_at), _nanoseconds(ended_at)
    together = tracer.start_span(
        "apply batch",
        context=Context(),
        start_time=begin,
        attributes={"onsale.event_id": batch.event_id, "onsale.commands": len(batch.waiting)},
    )
    link = Link(together.get_span_context())
    results = dict(batch.results)
    for command, context in sampled:
        tracer.start_span(
            "apply",
            context=context,
            kind=SpanKind.CONSUMER,
            links=[link],
            start_time=begin,
            attributes={
                "onsale.event_id": batch.event_id,
                "onsale.job_id": command.command.id,
                "onsale.position": command.position,
                "onsale.outcome": results[command.command.id]["outcome"],
            },
        ).end(end)
    together.end(end)


def _sampled_context(carried: str | None) -> Context | None:
    """The trace that a command is part of, if anybody will be told of it."""
    trace = read_trace(carried)
    if trace is None or trace.traceparent is None:
        return None
    context = context_of(trace.traceparent)
    return context if get_current_span(context).get_span_context().trace_flags.sampled else None


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * _NANOSECONDS)
