"""Ledger rows by job, for an API process."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool

from shared import limits
from shared.database import statements
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable, OnsaleError
from shared.gathering import Gatherer, InTasks
from shared.records import LedgerRecord


class LedgerLookup:
    """Finds what the ledger says of jobs. Lookups of concurrent requests go in one query."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lookups: Gatherer[str, LedgerRecord | None] = Gatherer(
            InTasks(self._find, ended=DatabaseUnavailable("the process ends")),
            group_max=limits.LOOKUP_BATCH_MAX,
            waiting_max=limits.LOOKUPS_WAITING_MAX,
            too_many=DatabaseUnavailable("too many lookups wait for PostgreSQL"),
        )

    async def find(self, job_id: str) -> LedgerRecord | None:
        """The ledger row of a job; None if it was never applied.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer, or too many lookups wait for it already.
        """
        return await self._lookups.ask(job_id)

    async def _find(self, job_ids: Sequence[str]) -> list[LedgerRecord | OnsaleError | None]:
        found = await run_in_threadpool(self._select, job_ids)
        return [found.get(job_id) for job_id in job_ids]

    def _select(self, job_ids: Sequence[str]) -> dict[str, LedgerRecord]:
        with self._database.transaction() as connection:
            return statements.find_ledger_records(connection, set(job_ids))
