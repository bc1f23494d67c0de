"""Was every promise kept, and every answer true? The answers against the ledger. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from demo.evidence import Evidence, Row, Sale
from demo.journal import BY_THE_RULES, Command, Told
from demo.recount import Recount, differences, recount
from shared.domain import CommandKind, OutcomeCode

SOLD_EXACTLY = "Sold exactly"
UNDER_THE_LIMIT = "Nobody over the limit"
ORDER_KEPT = "First come, first served"
ANSWERED_ONCE = "Every command answered once"
EVERYONE_ANSWERED = "Everyone answered"

INVALID = "invalid-request"
"""The answer to who asks for more at once than anybody may have."""

Asked = tuple[str, str]
"""The kind of a command, and the buyer or the booking that it names."""

Pair = tuple[Command, Row | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One promise: what speaks for it, and a line for everything that speaks against it."""

    promise: str
    facts: str
    complaints: Sequence[str]

    @property
    def is_kept(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.complaints


def judge(commands: Sequence[Command], evidence: Evidence) -> list[Finding]:
    """Compare everything that the buyers were told with everything that Onsale has."""
    count = recount(evidence.sale, evidence.rows)
    pairs, unasked = pair(commands, evidence.rows)
    return [
        _sold_exactly(commands, evidence, count),
        _under_the_limit(evidence, count),
        _order_kept(pairs, evidence.rows),
        _answered_once(pairs, unasked, evidence.rows),
        _everyone_answered(commands, evidence.sale),
    ]


def judge_answers(commands: Sequence[Command], sale: Sale) -> list[Finding]:
    """The same for a service that has no ledger: what the buyers were told must add up."""
    sold = _sold_as_told(commands)
    held = _held_as_told(commands)
    return [
        Finding(
            promise=SOLD_EXACTLY,
            facts=f"{sold:,} of {sale.total_tickets:,} tickets",
            complaints=[*_wrong_sum(commands, sale), *_turned_away_for_nothing(commands, sale)],
        ),
        Finding(
            promise=UNDER_THE_LIMIT,
            facts=f"the most that anybody has: {max(held.values(), default=0)}",
            complaints=list(_over_limit(held, sale)),
        ),
        _everyone_answered(commands, sale),
    ]


def _sold_exactly(commands: Sequence[Command], evidence: Evidence, count: Recount) -> Finding:
    sale = evidence.sale
    complaints = [*_wrong_sum(commands, sale), *count.wrong_outcomes]
    complaints += differences(count.bookings, evidence.bookings)
    if count.left != sale.available_tickets:
        complaints.append(f"{count.left} must be left by the ledger, the event says {sale.available_tickets}")
    if count.least_left < 0:
        complaints.append(f"oversold: {-count.least_left} more were sold than there were")
    returned = sum(not booking.is_active for booking in count.bookings.values())
    facts = f"{sale.total_tickets - count.left:,} of {sale.total_tickets:,} tickets"
    return Finding(
        promise=SOLD_EXACTLY, facts=f"{facts}; bookings given back: {returned:,}", complaints=complaints
    )


def _wrong_sum(commands: Sequence[Command], sale: Sale) -> Iterator[str]:
    """What was never answered may have been applied or not."""
    sold = _sold_as_told(commands)
    unknown = Counter[CommandKind]()
    for command in commands:
        unknown[command.kind] += command.ticket_count if command.outcome is None else 0
    gone = sale.total_tickets - sale.available_tickets
    if not sold - unknown[CommandKind.CANCEL] <= gone <= sold + unknown[CommandKind.BOOK]:
        yield f"the buyers were told of {sold} tickets, the event has sold {gone}"
    if not 0 <= sale.available_tickets <= sale.total_tickets:
        yield f"{sale.available_tickets} of {sale.total_tickets} tickets can't be left"


def _turned_away_for_nothing(commands: Sequence[Command], sale: Sale) -> Iterator[str]:
    """Where no ticket ever came back, as many as are left in the end were there for everyone."""
    if any(command.kind is CommandKind.CANCEL for command in commands):
        return
    left = sale.available_tickets
    for command in commands:
        if command.outcome == OutcomeCode.NOT_ENOUGH_TICKETS and command.ticket_count <= left:
            yield f"{_name(command)} was refused, with {left} left"


def _sold_as_told(commands: Sequence[Command]) -> int:
    return sum(_held_as_told(commands).values())


def _held_as_told(commands: Sequence[Command]) -> Mapping[str, int]:
    held: Counter[str] = Counter()
    for command in commands:
        held[command.user_id] += command.tickets_gained - command.tickets_given_back
    return held


def _under_the_limit(evidence: Evidence, count: Recount) -> Finding:
    held: Counter[str] = Counter()
    for booking in evidence.bookings:
        held[booking.user_id] += booking.ticket_count if booking.is_active else 0
    complaints = list(_over_limit(held, evidence.sale))
    most, limit = count.most_held, evidence.sale.max_tickets_per_user
    if most > limit:
        complaints.append(f"at one time somebody held {most}, by the ledger")
    return Finding(
        promise=UNDER_THE_LIMIT,
        facts=f"the most that anybody ever held: {most} of {limit}",
        complaints=complaints,
    )


def _over_limit(held: Mapping[str, int], sale: Sale) -> Iterator[str]:
    for user_id, tickets in held.items():
        if tickets > sale.max_tickets_per_user:
            yield f"{user_id} has {tickets} tickets, {sale.max_tickets_per_user} are allowed"


def pair(commands: Sequence[Command], rows: Sequence[Row]) -> tuple[list[Pair], list[Row]]:
    """Which row is about which command, and the rows that are about none.

    A buyer sends one command after the other, each under their own name, so the rows of a name are about the
    commands of that buyer, in the same order. It takes no job id: who waits for the result is told none.
    """
    found: defaultdict[Asked, deque[Row]] = defaultdict(deque)
    for row in sorted(rows, key=lambda row: row.position):
        found[_asked_by(row.kind, row.asked.get("user_id") or row.asked.get("booking_id"))].append(row)
    pairs = []
    for command in commands:
        if command.outcome is None or command.is_accepted:
            candidates = found[_asked_by(command.kind, command.cancels or command.user_id)]
            pairs.append((command, candidates.popleft() if candidates else None))
    return pairs, [row for left in found.values() for row in left]


def _asked_by(kind: str, name: object) -> Asked:
    return str(kind), str(name)


def _order_kept(pairs: Sequence[Pair], rows: Sequence[Row]) -> Finding:
    complaints = [] if [row.position for row in rows] == list(range(1, len(rows) + 1)) else [_gap(rows)]
    complaints += [
        f"{_name(command)}: told position {told.position}, applied at {row.position}"
        for command, row in pairs
        for told in command.told
        if row is not None and told.position not in (None, row.position)
    ]
    complaints += _overtaken([(row.position, command) for command, row in pairs if row is not None])
    return Finding(
        promise=ORDER_KEPT,
        facts=f"positions 1 to {len(rows):,} without a gap, as told; nobody was overtaken",
        complaints=complaints,
    )


def _gap(rows: Sequence[Row]) -> str:
    wrong = next(number for number, row in enumerate(rows, start=1) if row.position != number)
    return f"row {wrong} of the ledger has position {rows[wrong - 1].position}"


def _overtaken(placed: Sequence[tuple[int, Command]]) -> Iterator[str]:
    """Who had an answer before another even sent their command stands before that one."""
    latest: Command | None = None
    for _, command in sorted(placed, key=lambda each: each[0]):
        told_at = min((told.at for told in command.told), default=float("inf"))
        if latest is not None and latest.sent_at > told_at:
            yield f"{_name(latest)} stands before {_name(command)}, and was sent after that was answered"
        if latest is None or command.sent_at > latest.sent_at:
            latest = command


def _answered_once(pairs: Sequence[Pair], unasked: Sequence[Row], rows: Sequence[Row]) -> Finding:
    complaints = [
        f"job {job_id} has {times} rows"
        for job_id, times in Counter(row.job_id for row in rows).items()
        if times > 1
    ]
    complaints += [f"position {row.position}: applied without a command that asked for it" for row in unasked]
    for command, row in pairs:
        complaints += [f"{_name(command)}: {complaint}" for complaint in _untrue(command, row)]
    accepted = sum(command.is_accepted for command, _ in pairs)
    return Finding(
        promise=ANSWERED_ONCE,
        facts=f"{accepted:,} accepted, {len(rows):,} in the ledger, each as its buyer was told",
        complaints=complaints,
    )


def _untrue(command: Command, row: Row | None) -> Iterator[str]:
    """Where the answers to one command are not what the ledger has."""
    if row is None:
        if command.is_accepted:
            yield "accepted, and not in the ledger"
        return
    asked = {name: row.asked.get(name) for name in command.asked}
    if asked != command.asked:
        yield f"{asked} was applied where {command.asked} was asked for"
    for told in command.told:
        yield from _wrong_answer(command, told, row)


def _wrong_answer(command: Command, told: Told, row: Row) -> Iterator[str]:
    if told.job_id not in (None, row.job_id):
        yield f"told of job {told.job_id}, it is {row.job_id}"
    if not told.is_done:
        return
    if told.outcome != row.outcome:
        yield f"told {told.outcome}, the ledger has {row.outcome}"
    elif told.outcome == OutcomeCode.BOOKED:
        if (told.booking_id, told.holder) != (row.booking_id, (command.user_id, command.ticket_count)):
            yield f"told of booking {told.booking_id} of {told.holder}, it is {row.booking_id}"
    elif told.outcome == OutcomeCode.CANCELLED and told.booking_id != command.cancels:
        yield f"told that booking {told.booking_id} was given back, it was {command.cancels}"


def _everyone_answered(commands: Sequence[Command], sale: Sale) -> Finding:
    nothing = [] if commands else ["nobody asked for anything"]
    silent = [f"{_name(command)} was never answered" for command in commands if command.outcome is None]
    strange = [
        f"{_name(command)} was answered {command.outcome}"
        for command in commands
        if command.outcome is not None and command.outcome not in _expected(command, sale)
    ]
    return Finding(
        promise=EVERYONE_ANSWERED,
        facts=f"{len(commands) - len(silent):,} of {len(commands):,} commands",
        complaints=nothing + silent + strange,
    )


def _expected(command: Command, sale: Sale) -> Sequence[str]:
    """All that this command can be answered; anything else is a fault of the service."""
    is_greedy = command.kind is CommandKind.BOOK and command.ticket_count > sale.max_tickets_per_user
    return (*BY_THE_RULES, INVALID) if is_greedy else BY_THE_RULES


def _name(command: Command) -> str:
    what = f"asked for {command.ticket_count}" if command.kind is CommandKind.BOOK else "gave back"
    return f"{command.user_id} ({what})"
