"""Breaks the code on purpose, one way for each invariant at least, and shows that a test notices.

`python -m tests.mutations` copies the project, breaks the copy, runs the test that is named, and expects it
to fail. Before that all these tests must pass in a copy that is whole. With `--report FILE` the table goes
between the marks in that file.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
COPIED = (
    "api",
    "deploy",
    "local",
    "shared",
    "tests",
    "worker",
    "pyproject.toml",
    "README.md",
    "requirements",
)
SECONDS_MAX = 300
SECONDS_MAX_UNBROKEN = 900
TEST_SECONDS_MAX = 120
"""Of one test of a broken copy: well under all of them, so that a test that a break makes hang is named."""

AT_ONCE = 2
BEGIN, END = "<!-- mutations -->", "<!-- /mutations -->"


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One break, and the test that must fail with it."""

    invariant: str
    what: str
    path: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        invariant="I1",
        what="a booking is let through with one ticket too few",
        path="shared/domain.py",
        old="if command.ticket_count > draft.available_tickets:",
        new="if command.ticket_count > draft.available_tickets + 1:",
        test="tests/properties/test_apply_batch.py",
    ),
    Mutation(
        invariant="I1",
        what="the database does not count what others insert",
        path="shared/database/migrations/versions/0002_seals_and_safety_net.py",
        old="    for trigger in _TRIGGERS:\n        op.execute(trigger)\n",
        new="    for trigger in _TRIGGERS[1:]:\n        op.execute(trigger)\n",
        test="tests/integration/test_safety_net.py",
    ),
    Mutation(
        invariant="I1",
        what="a cancellation gives the tickets back twice",
        path="shared/domain.py",
        old="    if booking.status is BookingStatus.CANCELLED:\n",
        new="    if False:\n",
        test="tests/properties/test_apply_batch.py",
    ),
    Mutation(
        invariant="I2",
        what="what a user holds from earlier batches is not counted",
        path="worker/batch.py",
        old="            holdings=holdings,\n",
        new="            holdings={},\n",
        test="tests/faults/test_line_machine.py",
    ),
    Mutation(
        invariant="I2",
        what="a user is refused for what a worker only remembers",
        path="worker/plan.py",
        old="return _plan(clock, remembered.event, holdings, waiting, token, _nobody)",
        new="return _plan(clock, remembered.event, holdings, waiting, token, _everybody)",
        test="tests/integration/test_memory.py",
    ),
    Mutation(
        invariant="I2",
        what="a user is refused who holds something that a worker did not read",
        path="worker/plan.py",
        old="_plan(clock, event, holdings, waiting, token, _who_is_refused_in_any_case, guesses=True)",
        new="_plan(clock, event, holdings, waiting, token, _everybody, guesses=True)",
        test="tests/integration/test_plan.py",
    ),
    Mutation(
        invariant="I2",
        what="a user is refused who may hold more than what they were booked",
        path="worker/plan.py",
        old="refusal.held_tickets == event.max_tickets_per_user",
        new="refusal.held_tickets",
        test="tests/integration/test_plan.py",
    ),
    Mutation(
        invariant="I2",
        what="what users hold is read beside a batch that guesses what its own hold",
        path="worker/plan.py",
        old="before.batch.holdings, before.guesses",
        new="before.batch.holdings, False",
        test="tests/integration/test_plan.py",
    ),
    Mutation(
        invariant="I2",
        what="the database lets others insert past the limit",
        path="shared/database/migrations/versions/0002_seals_and_safety_net.py",
        old="    WHERE held.tickets > events.max_tickets_per_user\n",
        new="    WHERE false\n",
        test="tests/integration/test_safety_net.py",
    ),
    Mutation(
        invariant="I3",
        what="commands are popped before the commit",
        path="shared/line/scripts/common.lua",
        old="redis.call('LRANGE', K.order .. event_id, skip, skip + count - 1)",
        new="redis.call('LPOP', K.order .. event_id, count) or {}",
        test="tests/faults/test_crashes.py::test_a_worker_that_is_killed_at_any_boundary_is_made_up_for",
    ),
    Mutation(
        invariant="I3",
        what="the ledger is not asked whether a command was applied",
        path="worker/batch.py",
        old="return statements.find_ledger_records(connection, perhaps_applied) if perhaps_applied else {}",
        new="return {}",
        test="tests/faults/test_crashes.py::test_a_worker_that_is_killed_at_any_boundary_is_made_up_for",
    ),
    Mutation(
        invariant="I3",
        what="the line is trimmed by count, not by id",
        path="shared/line/scripts/complete.lua",
        old="while heads[length + 1] and completed[heads[length + 1]] do",
        new="while heads[length + 1] do",
        test="tests/integration/test_line.py",
    ),
    Mutation(
        invariant="I3",
        what="a command that is sent again is accepted again",
        path="shared/line/scripts/enqueue.lua",
        old="  if known[1] then\n",
        new="  if false then\n",
        test="tests/faults/test_line_machine.py",
    ),
    Mutation(
        invariant="I3",
        what="the same Idempotency-Key gives a new job each time",
        path="api/submit.py",
        old="new_id() if key is None else keyed_job_id(caller.id, key)",
        new="new_id()",
        test="tests/integration/test_idempotency.py",
    ),
    Mutation(
        invariant="I3",
        what="a withdrawal is noted and not heeded",
        path="shared/line/codec.py",
        old="        if Mark.WITHDRAWN in noted:\n",
        new="        if False:\n",
        test="tests/integration/test_withdraw.py",
    ),
    Mutation(
        invariant="I3",
        what="a command for an archived event is applied",
        path="worker/batch.py",
        old="if event is None or event.archived_at is not None:",
        new="if event is None:",
        test="tests/integration/test_archive.py",
    ),
    Mutation(
        invariant="I4",
        what="what was decided on an event as it was remembered is written whatever it is now",
        path="shared/database/batches.py",
        old=") WHEN true THEN '1' ELSE 'the event is not as it was remembered' END AS bigint)",
        new=") WHEN true THEN '1' ELSE '1' END AS bigint)",
        test="tests/integration/test_memory.py",
    ),
    Mutation(
        invariant="I4",
        what="positions that a restored PostgreSQL lacks are left out",
        path="worker/reconcile.py",
        old="before.head > event.applied_position + 1:",
        new="False:",
        test="tests/integration/test_restore.py",
    ),
    Mutation(
        invariant="I4",
        what="the position is given when a command is applied, whatever was promised",
        path="worker/batch.py",
        old="        if position > next_position:\n",
        new="        if False:\n",
        test="tests/integration/test_batch.py",
    ),
    Mutation(
        invariant="I4",
        what="a refused command uses up a position",
        path="shared/line/scripts/enqueue.lua",
        old="    answer(LINE_FULL, 0, line)\n",
        new="    line.accepted = line.accepted + 1\n    answer(LINE_FULL, 0, line)\n",
        test="tests/integration/test_line.py",
    ),
    Mutation(
        invariant="I4",
        what="applied commands that still stand in the line are counted twice",
        path="shared/line/scripts/seed_event.lua",
        old="      return position + behind\n",
        new="      return applied + length\n",
        test="tests/integration/test_line.py",
    ),
    Mutation(
        invariant="I5",
        what="a 202 does not wait for the replica",
        path="shared/line/producer.py",
        old="        if durable < replicas:\n",
        new="        if False:\n",
        test="tests/integration/test_outages.py",
    ),
    Mutation(
        invariant="I5",
        what="less durability than asked for is called ready",
        path="api/routes/health.py",
        old="_rank(durability) >= _rank(required)",
        new="True",
        test="tests/integration/test_api.py",
    ),
    Mutation(
        invariant="I6",
        what="the event's row is not locked",
        path="shared/database/batches.py",
        old='SELECT FROM events WHERE id = %(event_id)s FOR UPDATE"',
        new='SELECT FROM events WHERE id = %(event_id)s"',
        test="tests/integration/test_batch.py",
    ),
    Mutation(
        invariant="I6",
        what="a consumer that has lost its claim takes it back",
        path="shared/line/scripts/common.lua",
        old="  return redis.call('HGET', K.event .. event_id, 'token') == token\n    and",
        new="  return true\n    and",
        test="tests/integration/test_line.py",
    ),
    Mutation(
        invariant="I6",
        what="a consumer frozen with the row locked keeps it",
        path="shared/database/engine.py",
        old='"idle_timeout": f"{idle_seconds * 1000:.0f}ms"',
        new='"idle_timeout": "0"',
        test="tests/integration/test_outages.py",
    ),
    Mutation(
        invariant="I7",
        what="finished jobs stay in Redis for ever",
        path="shared/line/scripts/complete.lua",
        old="  redis.call('PEXPIREAT', key, ends_at .. '000')\n  local result",
        new="  local result",
        test="tests/integration/test_line.py",
    ),
    Mutation(
        invariant="I7",
        what="the ledger is not asked for a job that Redis has forgotten",
        path="api/jobs.py",
        old="    entry = await context.ledger.find(job_id)\n",
        new="    entry = None\n",
        test="tests/integration/test_api.py",
    ),
    Mutation(
        invariant="I8",
        what="the queue is not registered with RQ",
        path="shared/line/scripts/enqueue.lua",
        old="    redis.call('SADD', K.rq_queues, queue_key(event_id))\n",
        new="",
        test="tests/integration/test_rq_tools.py",
    ),
    Mutation(
        invariant="I8",
        what="a queue without work stays listed",
        path="shared/line/scripts/sweep.lua",
        old="      redis.call('SREM', K.rq_queues, key)\n",
        new="",
        test="tests/integration/test_line.py",
    ),
    Mutation(
        invariant="I9",
        what="the line has no bound",
        path="shared/line/scripts/enqueue.lua",
        old="  elseif line.length >= line_length_max then\n",
        new="  elseif false then\n",
        test="tests/integration/test_line.py",
    ),
    Mutation(
        invariant="I9",
        what="a frozen PostgreSQL is waited for without end",
        path="shared/database/deadlines.py",
        old="                    if deadline < now:\n",
        new="                    if False:\n",
        test="tests/integration/test_outages.py",
    ),
    Mutation(
        invariant="I9",
        what="sellers wait for as long as a migration makes an index",
        path="shared/database/online.py",
        old="CREATE INDEX CONCURRENTLY IF NOT EXISTS",
        new="CREATE INDEX IF NOT EXISTS",
        test="tests/integration/test_online_migrations.py",
    ),
    Mutation(
        invariant="I9",
        what="any number of clients may wait",
        path="api/slots.py",
        old="        if self.taken >= self._count_max:\n",
        new="        if False:\n",
        test="tests/integration/test_waiting.py",
    ),
    Mutation(
        invariant="I9",
        what="a client that has hung up is kept waiting",
        path="api/wait.py",
        old="        listener.add_done_callback(partial(_end, reply))\n",
        new="",
        test="tests/integration/test_waiting.py",
    ),
    Mutation(
        invariant="I9",
        what="a client that hangs up is kept waiting on the short way",
        path="api/http_protocol.py",
        old="            self._awaited.cancel()\n",
        new="            pass\n",
        test="tests/integration/test_waiting.py",
    ),
    Mutation(
        invariant="I9",
        what="a client that has hung up before its wait is kept waiting on the short way",
        path="api/http_protocol.py",
        old="        if awaited is not None and self._is_lost:\n            awaited.cancel()\n",
        new="",
        test="tests/integration/test_waiting.py",
    ),
    Mutation(
        invariant="I9",
        what="answers pile up for a client that reads none of them",
        path="api/exchange.py",
        old="return not self._cycle.flow.write_paused",
        new="return True",
        test="tests/integration/test_fast_lane.py",
    ),
    Mutation(
        invariant="I5",
        what="what comes behind an answer that ends the connection is done, and its client not told",
        path="api/http_protocol.py",
        old="        if self.transport.is_closing():\n            return\n        self.flow.resume_reading()",
        new="        self.flow.resume_reading()",
        test="tests/integration/test_fast_lane.py",
    ),
    Mutation(
        invariant="I1",
        what="a batch after which the database counts other tickets than the rules is committed",
        path="shared/database/batches.py",
        old="CASE WHEN available_tickets = %(available_tickets)s THEN",
        new="CASE WHEN true THEN",
        test="tests/integration/test_batch.py",
    ),
    Mutation(
        invariant="I10",
        what="a command that can't be read is an error of the worker",
        path="shared/line/codec.py",
        old="    except UNREADABLE as error:\n        reason",
        new="    except LookupError as error:\n        reason",
        test="tests/integration/test_rq_tools.py tests/unit/test_codec.py",
    ),
    Mutation(
        invariant="I10",
        what="a foreign job at the head of RQ's list is left there",
        path="shared/line/scripts/remove_strays.lua",
        old="  redis.call('LPOP', queue_key(event_id))\n",
        new="",
        test="tests/integration/test_line.py",
    ),
)


def caught_by(mutation: Mutation) -> str | None:
    """The first test that fails with this break, or None if none does."""
    return _first_failure(mutation.test.split(), mutation)


def failing_already(mutations: Sequence[Mutation]) -> str | None:
    """The first of their tests that fails in a copy that nothing has broken: it could notice no break."""
    return _first_failure(
        sorted({test for mutation in mutations for test in mutation.test.split()}), None, SECONDS_MAX_UNBROKEN
    )


def _first_failure(
    tests: Sequence[str], mutation: Mutation | None = None, seconds_max: float = SECONDS_MAX
) -> str | None:
    with tempfile.TemporaryDirectory(prefix="onsale-mutation-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        if mutation is not None:
            broken = copy / mutation.path
            broken.write_text(broken.read_text().replace(mutation.old, mutation.new))
            tests = [f"--timeout={TEST_SECONDS_MAX}", *tests]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            *tests,
        ]
        process = subprocess.Popen(
            command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        with process:
            try:
                output, _ = process.communicate(timeout=seconds_max)
            except subprocess.TimeoutExpired:
                _end_with_its_servers(process)
                return f"{' '.join(tests)} (did not end)"
        if process.returncode == 1:
            return _failed_test(output)
        if process.returncode != 0 and mutation is None:
            return f"{' '.join(tests)} (pytest ended with {process.returncode})"
        return None


def _end_with_its_servers(process: subprocess.Popen[str]) -> None:
    """The servers that it has started end with it, but one that a test has frozen only once it goes on."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for each in started:
        with suppress(psutil.NoSuchProcess):
            each.resume()


def _failed_test(output: str) -> str | None:
    for line in output.splitlines():
        if line.startswith(("FAILED tests/", "ERROR tests/")):
            return line.partition(" ")[2].partition(" - ")[0]
    return None


def table(caught: Sequence[tuple[Mutation, str | None]]) -> str:
    """The breaks and what noticed them, as Markdown."""
    lines = ["| invariant | break | noticed by |", "| --- | --- | --- |"]
    for mutation, test in caught:
        noticed_by = f"`{test}`" if test else "**nothing**"
        lines.append(f"| {mutation.invariant} | {mutation.what} (`{mutation.path}`) | {noticed_by} |")
    return "\n".join(lines)


def main() -> int:
    """Run all; gives 1 if a break goes unnoticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--report", type=Path, help="a file with the marks between which the table goes")
    parser.add_argument("--only", default="", help="breaks whose description has this text")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.what]
    if not chosen:
        parser.error(f"no break has {arguments.only!r} in its description")
    failing = failing_already(chosen)
    if failing is not None:
        print(f"{failing} fails without any break")
        return 1
    caught = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutation, test in zip(chosen, pool.map(caught_by, chosen), strict=True):
            print(f"{mutation.invariant} {mutation.what}: {test or 'NOT NOTICED'}", flush=True)
            caught.append((mutation, test))
    if arguments.report:
        text = arguments.report.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        arguments.report.write_text(f"{before}{BEGIN}\n{table(caught)}\n{END}{after}")
    return 0 if all(test for _, test in caught) else 1


if __name__ == "__main__":
    sys.exit(main())
