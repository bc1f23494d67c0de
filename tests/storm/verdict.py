"""Was anything lost, doubled or out of order, and was every answer true? Ledger against journal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2

from api.callers import ANYONE
from api.idempotency import keyed_job_id
from shared.domain import CommandKind, OutcomeCode
from tests.storm.journal import SentCommand, Told

KEY_REUSED = "idempotency-key-reused"
STALE_SECONDS_MAX = 20.0
"""How long a job may be said to wait after a later one was done: its worker may have died in between."""
BOOKING_NOT_FOUND = OutcomeCode.BOOKING_NOT_FOUND.value


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One applied command, as PostgreSQL has it."""

    job_id: str
    event_id: str
    position: int
    kind: CommandKind
    payload: Mapping[str, Any]
    outcome: OutcomeCode
    detail: Mapping[str, Any]
    booking_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the verdict is about."""

    commands: Sequence[SentCommand]
    foreign_job_ids: set[str]
    """What the faults put in line."""
    waiting_job_ids: set[str]
    """What still stands in a line, and so is not lost."""
    rows: Sequence[LedgerRow]
    applied_positions: Mapping[str, int]
    """By event: the newest position, as its row says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Counts of everything, and a line with ids for each thing that is wrong, by what is wrong."""

    sent: int
    accepted: int
    applied: Mapping[str, int]
    violations: Mapping[str, Sequence[str]]

    def count(self, what: str) -> int:
        """How often this went wrong."""
        return len(self.violations.get(what, ()))


LOST = "lost"
DUPLICATED = "duplicated"
OUT_OF_ORDER = "out of order"
UNTRUE = "answered wrongly"
UNANSWERED = "accepted, but never answered"


def read_evidence(
    database_url: str,
    commands: Sequence[SentCommand],
    *,
    foreign_job_ids: set[str],
    waiting_job_ids: set[str],
) -> Evidence:
    """Take the ledger from PostgreSQL."""
    connection = psycopg2.connect(database_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT job_id::text, event_id::text, position, kind, payload, outcome, detail,"
                " booking_id::text FROM ledger ORDER BY event_id, position"
            )
            rows = [
                LedgerRow(
                    job_id=job_id,
                    event_id=event_id,
                    position=position,
                    kind=CommandKind(kind),
                    payload=payload or {},
                    outcome=OutcomeCode(outcome),
                    detail=detail or {},
                    booking_id=booking_id,
                )
                for job_id, event_id, position, kind, payload, outcome, detail, booking_id in cursor
            ]
            cursor.execute("SELECT id::text, applied_position FROM events")
            applied_positions = dict(cursor.fetchall())
    finally:
        connection.close()
    return Evidence(
        commands=commands,
        foreign_job_ids=foreign_job_ids,
        waiting_job_ids=waiting_job_ids,
        rows=rows,
        applied_positions=applied_positions,
    )


def judge(evidence: Evidence, further: Mapping[str, Sequence[str]]) -> Verdict:
    """Compare everything with everything; `further` are violations that were found elsewhere."""
    ledger = {row.job_id: row for row in evidence.rows}
    repeated = {
        (row.payload["job_id"], row.position) for row in evidence.rows if row.kind is CommandKind.REPEAT
    }
    found = {
        LOST: list(_lost(evidence, ledger)),
        DUPLICATED: list(_unexplained(evidence)),
        OUT_OF_ORDER: [*_gaps(evidence), *_overtaken(evidence.commands, ledger)],
        UNTRUE: [*_untrue(evidence.commands, ledger, repeated), *_stale(evidence.commands, ledger)],
        UNANSWERED: [
            f"{_name(command)}: job {command.job_id} is not done, as its client is told"
            for command in evidence.commands
            if command.is_accepted and not command.is_answered
            if command.job_id not in evidence.waiting_job_ids
        ],
        **further,
    }
    return Verdict(
        sent=len(evidence.commands),
        accepted=sum(
            command.is_accepted or (bool(command.told) and _job_id(command) in ledger)
            for command in evidence.commands
        ),
        applied=Counter(row.outcome.value for row in evidence.rows),
        violations={what: lines for what, lines in found.items() if lines},
    )


def _lost(evidence: Evidence, ledger: Mapping[str, LedgerRow]) -> Iterator[str]:
    """Accepted, without an outcome, and no longer in line for one."""
    for command in evidence.commands:
        for job_id in {told.job_id for told in command.told if told.job_id is not None}:
            if job_id not in ledger and job_id not in evidence.waiting_job_ids:
                yield f"{_name(command)}: job {job_id} was accepted and is not in the ledger"


def _unexplained(evidence: Evidence) -> Iterator[str]:
    """One key is one job, so what the ledger has beside those jobs was applied without being asked for."""
    commands = {_job_id(command): command for command in evidence.commands}
    for row in evidence.rows:
        command = commands.get(row.job_id)
        if command is not None:
            yield from _other_than_sent(command, row)
        elif row.kind is CommandKind.REPEAT:
            if row.payload["job_id"] not in commands:
                yield f"{_row_name(row)}: repeats a job that nobody sent"
        elif row.job_id not in evidence.foreign_job_ids or row.outcome is not OutcomeCode.COMMAND_UNREADABLE:
            yield f"{_row_name(row)}: {row.outcome} without a command that asked for it"


def _other_than_sent(command: SentCommand, row: LedgerRow) -> Iterator[str]:
    applied = {name: row.payload.get(name) for name in command.payload}
    if applied != command.payload or row.event_id != command.event_id:
        yield f"{_row_name(row)}: {applied} was applied where {_name(command)} asked for {command.payload}"


def _gaps(evidence: Evidence) -> Iterator[str]:
    positions = defaultdict(list)
    for row in evidence.rows:
        positions[row.event_id].append(row.position)
    for event_id, applied_position in evidence.applied_positions.items():
        if positions[event_id] != list(range(1, applied_position + 1)):
            yield f"event {event_id}: positions are not 1 to {applied_position} without a gap"


def _stale(commands: Iterable[SentCommand], ledger: Mapping[str, LedgerRow]) -> Iterator[str]:
    """Said to wait long after one that stands behind it was done."""
    for line in _lines(commands, ledger).values():
        later_done_at = float("inf")
        for position, command in sorted(line, key=lambda entry: entry[0], reverse=True):
            for told in command.told:
                seconds = told.sent_at - later_done_at
                if not told.is_done and seconds > STALE_SECONDS_MAX:
                    later = f"one behind its position {position} was done {seconds:.0f} s before"
                    yield f"{_name(command)}: told that job {told.job_id} is not done, but {later}"
            done_at = min((told.told_at for told in command.told if told.is_done), default=float("inf"))
            later_done_at = min(later_done_at, done_at)


def _lines(
    commands: Iterable[SentCommand], ledger: Mapping[str, LedgerRow]
) -> Mapping[str, Sequence[tuple[int, SentCommand]]]:
    """By event: its commands that were applied, each with its position."""
    lines: dict[str, list[tuple[int, SentCommand]]] = defaultdict(list)
    for command in commands:
        row = ledger.get(_job_id(command))
        if row is not None:
            lines[row.event_id].append((row.position, command))
    return lines


def _overtaken(commands: Iterable[SentCommand], ledger: Mapping[str, LedgerRow]) -> Iterator[str]:
    """Who was told of their place before another even sent their command stands before that one."""
    for line in _lines(commands, ledger).values():
        latest: SentCommand | None = None
        for _, command in sorted(line, key=lambda entry: entry[0]):
            told_at = min((told.told_at for told in command.told if told.says_accepted), default=float("inf"))
            if latest is not None and latest.first_sent_at > told_at:
                yield f"{_name(latest)} stands before {_name(command)}, and was sent after that was accepted"
            if latest is None or command.first_sent_at > latest.first_sent_at:
                latest = command


def _untrue(
    commands: Iterable[SentCommand], ledger: Mapping[str, LedgerRow], repeated: set[tuple[str, int]]
) -> Iterator[str]:
    for command in commands:
        job_id = _job_id(command)
        row = ledger.get(job_id)
        for told in command.told:
            for complaint in _complaints(command, job_id, row, told, ledger, repeated):
                yield f"{_name(command)}: told {told}, but {complaint}"
        for told in command.told_of_other_body:
            if told.error_type != KEY_REUSED and (told.job_id, told.position) not in repeated:
                yield f"{_name(command)}: its key was used for another command, which was answered {told}"
        if row is not None and row.outcome is OutcomeCode.WITHDRAWN and not command.is_withdrawal_asked:
            yield f"{_name(command)}: withdrawn though nobody asked for that"


def _complaints(
    command: SentCommand,
    job_id: str,
    row: LedgerRow | None,
    told: Told,
    ledger: Mapping[str, LedgerRow],
    repeated: set[tuple[str, int]],
) -> Iterator[str]:
    if told.job_id is not None and told.job_id != job_id:
        yield f"the job of this key is {job_id}"
    if row is None:
        if told.job_id is None and not _is_never_accepted(command, told, ledger):
            yield "the ledger does not have it"
        return
    if told.position not in (None, row.position) and (job_id, told.position) not in repeated:
        yield f"its position is {row.position}"
    if not told.is_done and _was_told_done_before(command, told):
        yield "it was told before what became of it"
    if told.is_done:
        yield from _wrong_result(command, row, told, ledger)


def _wrong_result(
    command: SentCommand, row: LedgerRow, told: Told, ledger: Mapping[str, LedgerRow]
) -> Iterator[str]:
    if told.error_type is not None:
        if told.error_type != row.outcome.value and not _is_never_accepted(command, told, ledger):
            yield f"its outcome is {row.outcome}"
        if told.figures != (row.detail.get("available_tickets"), row.detail.get("held_tickets")):
            yield f"the ledger gives the figures {row.detail}"
    elif told.job_status != row.outcome.job_status.value:
        yield f"its outcome is {row.outcome}"
    elif told.booking_id != row.booking_id:
        yield f"its booking is {row.booking_id}"
    if told.holder is not None and command.kind is CommandKind.BOOK:
        if told.holder != (command.user_id, command.ticket_count):
            yield "the booking is another's"


def _was_told_done_before(command: SentCommand, told: Told) -> bool:
    return any(earlier.is_done and earlier.told_at < told.sent_at for earlier in command.told)


def _is_never_accepted(command: SentCommand, told: Told, ledger: Mapping[str, LedgerRow]) -> bool:
    """Refused before it got a place: there is nothing that this command could cancel."""
    if command.kind is not CommandKind.CANCEL or told.error_type != BOOKING_NOT_FOUND:
        return False
    booking = ledger.get(command.booking_id or "")
    return booking is None or booking.outcome is not OutcomeCode.BOOKED


def _job_id(command: SentCommand) -> str:
    return keyed_job_id(ANYONE.id, command.key)


def _name(command: SentCommand) -> str:
    return f"{command.kind} {command.key} of event {command.event_id}"


def _row_name(row: LedgerRow) -> str:
    return f"event {row.event_id} position {row.position} job {row.job_id}"
