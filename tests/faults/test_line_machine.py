"""Random interleavings of everything that can happen to a line, on real servers, against a naive model.

Rules are steps of clients, of three consumers and of fate. The model is a list of what was accepted,
applied one by one by a few lines that know nothing of batches, claims or Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import hypothesis.strategies as st
import redis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from local.servers import ValkeyServer
from shared import limits
from shared.clock import SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.domain import OutcomeCode
from shared.errors import EventNotFound, IdempotencyKeyReused, StaleClaim
from shared.identifiers import new_id
from shared.line.codec import book_payload, cancel_payload, change_payload
from shared.line.connections import connect, connect_async
from shared.line.consumer import Claim, Consumer, GiveBack
from shared.line.producer import Acceptance, Producer, Submission
from shared.records import CommandPayload, job_result
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    completion_of,
    create_event,
    outcomes_in_ledger,
    tamper,
    violations,
)
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.memory import Memory

TOTAL_TICKETS = 5
LIMIT = 2
CONSUMERS = st.sampled_from(["first", "second", "third"])
Result = TypeVar("Result")


@dataclass
class Servers:
    settings: Settings
    database: Database
    valkey: ValkeyServer


@dataclass
class Accepted:
    """A command that was accepted, and what is known of its withdrawal."""

    submission: Submission
    must_be_withdrawn: bool = False
    may_be_withdrawn: bool = False


@dataclass
class AtWork:
    """What a consumer holds in memory; gone when it crashes."""

    claim: Claim
    batch: AppliedBatch | None = None


@dataclass
class Model:
    """The naive engine."""

    total: int = TOTAL_TICKETS
    left: int = TOTAL_TICKETS
    closed: bool = False
    held: dict[str, int] = field(default_factory=dict)
    booked: dict[str, tuple[str, int, bool]] = field(default_factory=dict)

    def apply(self, job_id: str, payload: CommandPayload) -> OutcomeCode:
        if payload["kind"] == "book":
            user, tickets = payload["user_id"], payload["ticket_count"]
            if self.closed:
                return OutcomeCode.SALES_CLOSED
            if self.held.get(user, 0) + tickets > LIMIT:
                return OutcomeCode.USER_LIMIT_EXCEEDED
            if tickets > self.left:
                return OutcomeCode.NOT_ENOUGH_TICKETS
            self.left -= tickets
            self.held[user] = self.held.get(user, 0) + tickets
            self.booked[job_id] = (user, tickets, True)
            return OutcomeCode.BOOKED
        if payload["kind"] == "change":
            return self.change(payload)
        if payload["booking_id"] not in self.booked:
            return OutcomeCode.BOOKING_NOT_FOUND
        user, tickets, active = self.booked[payload["booking_id"]]
        if not active:
            return OutcomeCode.ALREADY_CANCELLED
        self.left += tickets
        self.held[user] -= tickets
        self.booked[payload["booking_id"]] = (user, tickets, False)
        return OutcomeCode.CANCELLED

    def change(self, payload: CommandPayload) -> OutcomeCode:
        total = payload.get("total_tickets", self.total)
        if total < self.total - self.left:
            return OutcomeCode.TOTAL_BELOW_SOLD
        self.left += total - self.total
        self.total = total
        self.closed = payload.get("sales_closed", self.closed)
        return OutcomeCode.CHANGED


class LineMachine(RuleBasedStateMachine):
    def __init__(self, servers: Servers) -> None:
        super().__init__()
        self.database, self.valkey = servers.database, servers.valkey
        # Claims end when a step says so, however long the steps take.
        self.settings = servers.settings.model_copy(
            update={"batch_commands_max": 3, "lease_seconds": limits.LEASE_SECONDS_MAX}
        )
        tamper(self.database, "TRUNCATE events, bookings, ledger")
        self.redis: redis.Redis = connect(self.settings)
        self.redis.flushdb()
        self.loop = asyncio.new_event_loop()
        self.client = connect_async(self.settings)
        self.producer = Producer(self.client, self.client, SystemClock(), self.settings)
        self.event = create_event(self.database, total_tickets=TOTAL_TICKETS, max_tickets_per_user=LIMIT)
        self.accepted: list[Accepted] = []
        self.at_work: dict[str, AtWork] = {}
        self.memories: dict[str, Memory] = {}
        self.looked_at = 0

    def wait_for(self, step: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(step)

    def consumer(self, name: str) -> Consumer:
        return Consumer(self.redis, self.settings, worker_name=name)

    def tell_redis(self) -> None:
        with self.database.transaction() as connection:
            event = statements.find_event(connection, self.event.id)
        assert event is not None
        self.wait_for(self.producer.seed_event(event))

    def submit(self, submission: Submission) -> Acceptance:
        try:
            return self.wait_for(self.producer.submit(submission))
        except EventNotFound:
            self.tell_redis()
            return self.wait_for(self.producer.submit(submission))

    def accept(self, payload: CommandPayload) -> None:
        submission = Submission(job_id=new_id(), event_id=self.event.id, payload=payload)
        acceptance = self.submit(submission)
        self.accepted.append(Accepted(submission))
        assert acceptance.position == len(self.accepted)

    def applied(self) -> int:
        return len(outcomes_in_ledger(self.database, self.event.id))

    @rule(user=st.sampled_from(["ann", "bob", "cid", "dan"]), tickets=st.integers(1, 2))
    def book(self, user: str, tickets: int) -> None:
        self.accept(book_payload(user, tickets))

    @rule(total=st.none() | st.integers(1, TOTAL_TICKETS + 2), closed=st.none() | st.booleans())
    def change(self, total: int | None, closed: bool | None) -> None:
        self.accept(change_payload(total_tickets=total, sales_closed=closed))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.accept(cancel_payload(data.draw(st.sampled_from(self.accepted)).submission.job_id))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """As with an Idempotency-Key: the ledger is asked first."""
        number = data.draw(st.integers(0, len(self.accepted) - 1))
        submission = self.accepted[number].submission
        with self.database.transaction() as connection:
            recorded = statements.find_ledger_records(connection, [submission.job_id])
        if not recorded:
            acceptance = self.submit(submission)
            assert (acceptance.known, acceptance.position) == (True, number + 1)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def reuse(self, data: st.DataObject) -> None:
        """The same key with another command, while Redis knows the first."""
        submission = data.draw(st.sampled_from(self.accepted)).submission
        if not self.redis.exists(f"rq:job:{submission.job_id}"):
            return
        other = Submission(job_id=submission.job_id, event_id=self.event.id, payload=book_payload("eve", 1))
        try:
            self.submit(other)
        except IdempotencyKeyReused:
            return
        raise AssertionError("another command was accepted under the same key")

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.accepted) - 1))
        command = self.accepted[number]
        applied_before = number < self.applied()
        waits = self.wait_for(self.producer.withdraw(command.submission.job_id))
        if waits and not applied_before:
            command.may_be_withdrawn = True
            command.must_be_withdrawn |= number >= self.looked_at

    @rule(name=CONSUMERS)
    def claim(self, name: str) -> None:
        claim = self.consumer(name).claim()
        if claim is not None:
            self.at_work[name] = AtWork(claim)
            self.look(claim)

    def look(self, claim: Claim) -> None:
        positions = [command.position or 0 for command in claim.peeked.commands]
        self.looked_at = max([self.looked_at, *positions])

    @precondition(lambda self: self.at_work)
    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.at_work)))
        at_work = self.at_work[name]
        claim = at_work.claim
        try:
            at_work.batch = apply_to_database(
                self.database,
                SystemClock(),
                claim.event_id,
                claim.peeked.commands,
                claim.token,
                self.memories.setdefault(name, Memory()),
            )
        except StaleClaim as stale:
            self.consumer(name).release(claim.event_id, claim.token, newest_token=stale.newest_token)
            del self.at_work[name]

    @precondition(lambda self: any(each.batch for each in self.at_work.values()))
    @rule(data=st.data(), give_back=st.sampled_from(GiveBack))
    def complete(self, data: st.DataObject, give_back: GiveBack) -> None:
        name = data.draw(st.sampled_from(sorted(name for name in self.at_work if self.at_work[name].batch)))
        at_work = self.at_work[name]
        assert at_work.batch is not None
        claim = at_work.claim
        peeked = self.consumer(name).complete(
            claim.event_id, claim.token, completion_of(at_work.batch), give_back
        )
        if peeked is None:
            del self.at_work[name]
        else:
            following = Claim(event_id=claim.event_id, token=claim.token, taken_from=None, peeked=peeked)
            self.at_work[name] = AtWork(following)
            self.look(following)

    @precondition(lambda self: self.at_work)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.at_work)))
        del self.at_work[name]
        self.memories.pop(name, None)

    @rule()
    def time_passes(self) -> None:
        """So much that every claim has ended."""
        for key in ("onsale:leased", "onsale:ready"):
            self.redis.zadd(key, {self.event.id: 0}, xx=True)

    @rule()
    def postgresql_ends_its_connections(self) -> None:
        with self.database.transaction() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'onsale' AND pid <> pg_backend_pid()"
                )
            )
        self.database.close_idle()

    @rule()
    def redis_restarts(self) -> None:
        self.valkey.kill()
        self.valkey.start()

    @rule()
    def results_and_projection_expire(self) -> None:
        for number in range(self.applied()):
            job_id = self.accepted[number].submission.job_id
            if self.redis.hget(f"rq:job:{job_id}", "completed"):
                self.redis.delete(f"rq:job:{job_id}", f"rq:results:{job_id}")
        self.redis.delete(f"onsale:event:{self.event.id}")

    @invariant()
    def the_ledger_is_what_the_model_makes_of_the_accepted_commands(self) -> None:
        model = Model()
        for number, (position, job_id, outcome) in enumerate(
            outcomes_in_ledger(self.database, self.event.id)
        ):
            command = self.accepted[number]
            assert (position, job_id) == (number + 1, command.submission.job_id)
            if outcome is OutcomeCode.WITHDRAWN:
                assert command.may_be_withdrawn
            else:
                assert not command.must_be_withdrawn
                assert outcome is model.apply(job_id, command.submission.payload)

    def teardown(self) -> None:
        try:
            self.work_off()
            self.the_ledger_is_what_the_model_makes_of_the_accepted_commands()
            self.check_the_end()
        finally:
            self.wait_for(self.client.aclose())
            self.loop.close()
            self.redis.close()

    def work_off(self) -> None:
        """Whatever happened, a consumer that begins now finishes the line."""
        consumer = self.consumer("last")
        for _ in range(len(self.accepted) * 3 + 3):
            self.time_passes()
            if claim := consumer.claim():
                self.at_work = {"last": AtWork(claim)}
                try:
                    batch = apply_to_database(
                        self.database, SystemClock(), claim.event_id, claim.peeked.commands, claim.token
                    )
                except StaleClaim as stale:
                    consumer.release(claim.event_id, claim.token, newest_token=stale.newest_token)
                    continue
                consumer.complete(claim.event_id, claim.token, completion_of(batch), GiveBack.ALWAYS)
        assert self.applied() == len(self.accepted)
        assert self.redis.llen(f"onsale:order:{self.event.id}") == 0
        assert self.redis.llen(f"rq:queue:event:{self.event.id}") == 0

    def check_the_end(self) -> None:
        assert_books_balance(self.database, self.event.id)
        assert violations(self.database) == []
        with self.database.transaction() as connection:
            entries = statements.find_ledger_records(
                connection, [command.submission.job_id for command in self.accepted]
            )
        for command in self.accepted:
            record = self.wait_for(self.producer.read_job(command.submission.job_id))
            if record is not None:
                assert record.result == job_result(entries[command.submission.job_id])


def test_whatever_happens_in_whatever_order_the_ledger_is_what_the_model_says(
    settings: Settings, database: Database, valkey: ValkeyServer
) -> None:
    servers = Servers(settings, database, valkey)
    run_state_machine_as_test(
        cast(Any, lambda: LineMachine(servers)),
        settings=hypothesis_settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            # A failure is shown as it was found: making it smaller on real servers takes minutes.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
