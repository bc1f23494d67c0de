"""The trace of a request: what is taken from its headers, and what is refused."""

from __future__ import annotations

import contextvars

import pytest

from shared import limits
from shared.identifiers import canonical_id
from shared.line.codec import book_payload, decode_waiting_command, encode_job_data
from shared.trace import Trace, begin_trace, carried_trace, current_trace, read_trace

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HOSTILE = [
    "",
    "a b",
    "a\tb",
    "a\nb",
    "a\r\nX-Evil: 1",
    "a,b",
    "a\x00",
    "\x1b[31m",
    "über",
    '"',
    "x" * (limits.REQUEST_ID_LENGTH_MAX + 1),
]


def begin(request_id: str | None, traceparent: str | None) -> tuple[Trace, str]:
    """A trace, and what of it goes along with a command, without leaving a mark on other tests."""

    def run() -> tuple[Trace, str]:
        trace = begin_trace(request_id, traceparent)
        assert current_trace() == trace
        return trace, carried_trace()

    return contextvars.Context().run(run)


def test_a_request_without_an_id_is_given_one_that_does_not_travel() -> None:
    trace, carried = begin(None, None)
    assert canonical_id(trace.request_id)
    assert carried == ""


@pytest.mark.parametrize("parent", [None, PARENT])
@pytest.mark.parametrize("id", ["order-4711", "Root=1-67891233-abcdef012345678912345678", "a" * 128])
def test_what_a_client_sent_travels(id: str, parent: str | None) -> None:
    trace, carried = begin(id, parent)
    assert (trace.request_id, trace.traceparent) == (id, parent)
    assert read_trace(carried) == trace


def test_a_traceparent_alone_travels_with_an_id_that_was_made() -> None:
    trace, carried = begin(None, PARENT)
    assert carried == f"{trace.request_id} {PARENT}"


@pytest.mark.parametrize("id", HOSTILE)
def test_an_id_that_could_break_a_line_counts_as_none(id: str) -> None:
    trace, carried = begin(id, None)
    assert canonical_id(trace.request_id)
    assert carried == ""


@pytest.mark.parametrize(
    "parent",
    [
        *HOSTILE,
        PARENT.upper(),
        PARENT + "-00",
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
    ],
)
def test_a_traceparent_that_is_not_well_formed_counts_as_none(parent: str) -> None:
    trace, carried = begin("mine", parent)
    assert trace.traceparent is None
    assert carried == "mine"


@pytest.mark.parametrize("text", [*HOSTILE[1:], "a b c", f"a {PARENT} b", f"{PARENT}\n", "a\n"])
def test_what_others_wrote_into_the_line_as_a_trace_never_reaches_the_ledger(text: str) -> None:
    waiting = decode_waiting_command(
        "01a20844-1bb3-729c-9943-6bebca52f2f1",
        encode_job_data("01a20844-1bb3-729c-9943-6bebca52f2f1", book_payload("ann", 1)),
        b"2026-11-23T10:00:00.000000Z",
        b"1",
        None,
        text.encode(),
    )
    assert waiting.trace is None


def test_outside_of_a_request_there_is_no_trace() -> None:
    assert contextvars.Context().run(current_trace) is None
    assert contextvars.Context().run(carried_trace) == ""
