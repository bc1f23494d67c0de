"""What a command costs each part, in processor time, for docs/costs.json.

`make bench` measures it after all else, `python -m bench.costs` alone.

Processor time hardly changes when others use the machine too, so this can run where `make bench` can't. Rates
and latencies are not taken from here.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict

import psycopg2
import uvloop

from bench.clients import connect_clients
from bench.load import book_for, ensure_wrk
from bench.measures.latency import PER_SECOND, STAMPEDE_TICKETS, WARM_UP_SECONDS, ask_steadily, book
from bench.options import Options, scratch
from bench.processes import REPOSITORY, allow_clients
from bench.record import Occasion, this_occasion
from bench.stack import Stack, new_users, stack, used_between

COSTS = REPOSITORY / "docs/costs.json"
SECONDS = 4
ACCEPTS_WARM_UP_SECONDS = 1
ALL_SECONDS = 45
"""About what all of it takes."""
STORED_COMMANDS = 20_000


def main() -> int:
    """Measure all, on this occasion, and print what was written down."""
    wrk = ensure_wrk()
    with scratch() as directory:
        occasion = this_occasion(directory, wrk)
    renew(occasion)
    print(COSTS.read_text())
    return 0


def renew(occasion: Occasion) -> None:
    """Measure all, some seconds each, and write them down."""
    allow_clients(Options().stampede_clients, print)
    with scratch() as directory, stack(directory) as onsale:
        onsale.start_api()
        accepts = _accepts(onsale)
    with scratch() as directory, stack(directory) as onsale:
        onsale.start_api()
        onsale.start_worker()
        steady = _over_http(onsale, _book_steadily)
    with scratch() as directory, stack(directory) as onsale:
        onsale.start_api()
        onsale.start_worker()
        stampede = _over_http(onsale, _stampede)
    with scratch() as directory, stack(directory) as onsale:
        stored = _stored(onsale)
    document = {
        **asdict(occasion),
        "processor_microseconds": {"accepts": accepts, "steady": steady, "stampede": stampede},
        "bytes": stored,
    }
    COSTS.write_text(json.dumps(document, indent=2) + "\n")


def _accepts(onsale: Stack) -> dict[str, float]:
    """With no worker: what accepting costs, and the load generator."""
    options = Options()
    event = onsale.make_event()
    book_for(
        ACCEPTS_WARM_UP_SECONDS, connections=options.connections, base_url=onsale.base_url, event_id=event.id
    )
    before, clients = onsale.processor_seconds(), _children_seconds()
    load = book_for(SECONDS, connections=options.connections, base_url=onsale.base_url, event_id=event.id)
    used = used_between(before, onsale.processor_seconds()) | {"clients": _children_seconds() - clients}
    return _per_command(used, load.accepted)


def _over_http(onsale: Stack, run: Callable[[Stack, str, Callable[[], None]], int]) -> dict[str, float]:
    """With a worker and clients that wait for the result, and how many commands a batch had.

    `run` gives the number of commands, and says from when on processor time counts.
    """
    event = onsale.make_event(total_tickets=STAMPEDE_TICKETS if run is _stampede else 1_000_000)
    # The worker has started, and all have done it before.
    uvloop.run(ask_steadily(onsale.base_url, onsale.make_event().id, PER_SECOND, seconds=0))
    before: dict[str, float] = {}

    def begin() -> None:
        before.update(onsale.processor_seconds(), clients=time.process_time())

    commands = run(onsale, event.id, begin)
    clients = time.process_time() - before.pop("clients")
    used = used_between(before, onsale.processor_seconds()) | {"clients": clients}
    batch = round(commands / _batches(onsale, event.id), 1)
    return _per_command(used, commands) | {"commands_in_a_batch": batch}


def _book_steadily(onsale: Stack, event_id: str, begin: Callable[[], None]) -> int:
    """Counted with its warm-up and its connecting, which is one connection to thirty commands."""
    begin()
    uvloop.run(ask_steadily(onsale.base_url, event_id, PER_SECOND, SECONDS))
    return PER_SECOND * (SECONDS + WARM_UP_SECONDS)


def _stampede(onsale: Stack, event_id: str, begin: Callable[[], None]) -> int:
    """Counted without its connecting, which is as many connections as commands."""
    commands = Options().stampede_clients

    async def run() -> None:
        clients = await connect_clients(onsale.base_url, commands)
        begin()
        await asyncio.gather(*(book(client, event_id, number) for number, client in enumerate(clients)))
        for client in clients:
            client.close()

    uvloop.run(run())
    return commands


def _stored(onsale: Stack) -> dict[str, float]:
    """Bytes that a booking adds to files, accepted and applied in full batches."""
    event = onsale.make_event()
    client = onsale.line()
    before = _sizes(onsale)
    onsale.fill(event.id, new_users(STORED_COMMANDS))
    onsale.start_worker()
    while onsale.applied(client, event.id) < STORED_COMMANDS:
        onsale.check()
        time.sleep(0.1)
    client.close()
    after = _sizes(onsale)
    return {name: round((after[name] - before[name]) / STORED_COMMANDS) for name in after}


def _sizes(onsale: Stack) -> dict[str, int]:
    with closing(psycopg2.connect(onsale.postgres.url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,"
            " pg_database_size(current_database())"
        )
        row = cursor.fetchone()
    assert row is not None
    client = onsale.line()
    appended = int(client.info("persistence")["aof_current_size"])
    client.close()
    return {"wal": int(row[0]), "database": int(row[1]), "append_only_file": appended}


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _batches(onsale: Stack, event_id: str) -> int:
    """Transactions that wrote to the ledger."""
    with closing(psycopg2.connect(onsale.postgres.url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT xmin::text) FROM ledger WHERE event_id = %s", (event_id,))
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def _per_command(used: dict[str, float], commands: int) -> dict[str, float]:
    return {name: round(seconds * 1e6 / commands, 1) for name, seconds in used.items()}


if __name__ == "__main__":
    sys.exit(main())
