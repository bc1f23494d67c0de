"""Versions of commands live side by side: what an older one left in line, and what a newer one puts there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.database.engine import Database
from shared.domain import OutcomeCode
from shared.settings import Settings
from tests.builders import (
    apply_waiting,
    create_event,
    outcomes_in_ledger,
    seed,
    violations,
)

RECORDED = Path(__file__).parent.parent / "recorded" / "version-1.json"

LATER = {
    "version 2": {"v": 2, "kind": "book", "user_id": "bob", "ticket_count": 1},
    "version 2 in a form of its own": {"v": 2, "command": {"book": [{"seat": "A1"}]}},
    "a kind of later": {"v": 1, "kind": "hold", "user_id": "bob", "ticket_count": 1},
}


@pytest.fixture
def recorded() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(RECORDED.read_text())
    return loaded


def put_in_line(client: redis.Redis, event_id: str, jobs: list[dict[str, Any]]) -> None:
    """The keys of a line as they were recorded, past every script of today."""
    for job in jobs:
        client.hset(f"rq:job:{job['id']}", mapping=job["fields"])
        client.rpush(f"onsale:order:{event_id}", job["id"])
        client.rpush(f"rq:queue:event:{event_id}", job["id"])


def test_jobs_of_the_first_version_are_applied_by_this_one(
    settings: Settings, database: Database, redis_client: redis.Redis, recorded: dict[str, Any]
) -> None:
    event = create_event(database, id=recorded["event_id"])
    put_in_line(redis_client, event.id, recorded["jobs"])
    seed(settings, event)
    apply_waiting(settings, database, redis_client, event.id)
    assert outcomes_in_ledger(database, event.id) == [
        (position, job["id"], OutcomeCode(job["outcome"]))
        for position, job in enumerate(recorded["jobs"], start=1)
    ]
    assert redis_client.llen(f"onsale:order:{event.id}") == 0
    assert violations(database) == []


@pytest.mark.parametrize("payload", LATER.values(), ids=LATER.keys())
def test_a_job_of_a_later_version_fails_with_a_reason_and_holds_nobody_up(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    recorded: dict[str, Any],
    payload: dict[str, Any],
) -> None:
    event = create_event(database, id=recorded["event_id"])
    jobs = recorded["jobs"][:3]
    jobs[1]["fields"]["data"] = json.dumps(["worker.stock.apply_command", None, [event.id, payload], {}])
    put_in_line(redis_client, event.id, jobs)
    seed(settings, event)
    apply_waiting(settings, database, redis_client, event.id)
    assert [outcome for _, _, outcome in outcomes_in_ledger(database, event.id)] == [
        OutcomeCode.BOOKED,
        OutcomeCode.COMMAND_UNREADABLE,
        OutcomeCode.CANCELLED,
    ]
    failed = redis_client.zrange(f"rq:failed:event:{event.id}", 0, -1)
    assert failed == [jobs[1]["id"].encode()]
    assert violations(database) == []
