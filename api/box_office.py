"""The box offices of an API process: one reader for all who watch, however many they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from api.box_office_document import box_office_document
from shared import limits
from shared.clock import Clock
from shared.database import box_office, statements
from shared.database.box_office import Counted, Sale
from shared.database.engine import Database
from shared.errors import LineUnavailable, OnsaleError, TooManyWaiting
from shared.line.standing import Standing, StandingReader
from shared.log import log_event
from shared.records import EventRecord
from shared.settings import Settings

logger = logging.getLogger(__name__)

Wake = Callable[[], None]


@dataclass(slots=True)
class Office:
    """A sale that somebody watches: what was seen of it last, and who wants to know.

    `snapshot` is the newest document, in JSON; `has_ended` says that none will follow.
    """

    event_id: str
    snapshot: bytes | None = None
    has_ended: bool = False
    standing: Standing | None = None
    sale: Sale | None = None
    wakes: set[Wake] = field(default_factory=set)

    def wake(self) -> None:
        """Tell everybody who watches that there is news."""
        for wake in tuple(self.wakes):
            wake()


class BoxOffices:
    """Looks at all watched sales at once, again and again, for as long as any is watched.

    A look costs one call of a script and one transaction, whoever watches; see `shared.limits` for how much
    it reads at most.
    """

    def __init__(
        self, standings: StandingReader, database: Database, clock: Clock, settings: Settings
    ) -> None:
        self._standings = standings
        self._database = database
        self._clock = clock
        self._settings = settings
        self._offices: dict[str, Office] = {}
        self._counted: OrderedDict[str, Counted] = OrderedDict()
        self._newcomer = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[dict[str, Sale] | None] | None = None
        self._letting_go = False

    @property
    def watched(self) -> int:
        """How many events are watched."""
        return len(self._offices)

    @contextlib.contextmanager
    def watch(self, event_id: str, wake: Wake) -> Iterator[Office]:
        """Keep an eye on a sale; `wake` is called at each snapshot. Forgotten at the end of the block.

        Raises:
            TooManyWaiting: as many other events are watched as may.
        """
        if event_id not in self._offices and self.watched >= limits.BOX_OFFICE_EVENTS_MAX:
            raise TooManyWaiting("As many box offices are open at this process as may.")
        office = self._offices.get(event_id)
        if office is None or office.has_ended:
            office = self._offices[event_id] = Office(event_id=event_id, has_ended=self._letting_go)
        office.wakes.add(wake)
        self._newcomer.set()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_while_watched())
        try:
            yield office
        finally:
            office.wakes.discard(wake)
            if not office.wakes and self._offices.get(event_id) is office:
                del self._offices[event_id]

    def let_go(self) -> None:
        """Keep nobody watching, now and from now on."""
        self._letting_go = True
        self._end_all()

    async def stop(self) -> None:
        """Look no more; a look at PostgreSQL that has begun is waited for, and ends by its own bounds."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read_while_watched(self) -> None:
        try:
            while self._offices:
                self._newcomer.clear()
                await self._look(dict(self._offices))
                await self._pause()
        finally:
            # Nobody is left, unless by a defect: then clients come again, and so does a reader.
            self._reader = None
            self._end_all()

    async def _pause(self) -> None:
        """Until the next look at all; who comes meanwhile does not wait for it."""
        ends_at = self._clock.monotonic_seconds() + self._settings.stream_position_seconds
        while (seconds := ends_at - self._clock.monotonic_seconds()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._newcomer.wait()
            self._newcomer.clear()
            unseen = {id: office for id, office in self._offices.items() if office.snapshot is None}
            if unseen:
                await self._look(unseen)

    def _end_all(self) -> None:
        for office in self._offices.values():
            office.has_ended = True
            office.wake()

    async def _look(self, offices: Mapping[str, Office]) -> None:
        self._reading = asyncio.ensure_future(run_in_threadpool(self._read_sales, offices))
        standings, sales = await asyncio.gather(
            self._read_standings(list(offices)), asyncio.shield(self._reading)
        )
        not_answering = [
            name for name, answer in (("redis", standings), ("postgresql", sales)) if answer is None
        ]
        for event_id, office in offices.items():
            if standings is not None:
                office.standing = standings[event_id]
            if sales is not None:
                self._note_sale(event_id, office, sales.get(event_id))
            self._show(office, not_answering)

    async def _read_standings(self, event_ids: Sequence[str]) -> dict[str, Standing] | None:
        try:
            return await self._standings.read(event_ids)
        except LineUnavailable as error:
            log_event(logger, logging.WARNING, "box offices don't see the line", reason=error)
            return None

    def _read_sales(self, offices: Mapping[str, Office]) -> dict[str, Sale] | None:
        """All in one transaction that sees one moment; None if PostgreSQL does not answer."""
        count_max = limits.BOX_OFFICE_COUNTED_AT_ONCE_MAX // len(offices)
        try:
            with self._database.transaction(
                snapshot=True, seconds_max=limits.BOX_OFFICE_READ_SECONDS_MAX
            ) as connection:
                events = statements.find_events(connection, offices)
                sales = [
                    self._read_sale(connection, event, offices[event.id], count_max)
                    for event in events.values()
                    if event.archived_at is None
                ]
                return {sale.event.id: sale for sale in sales if sale is not None}
        except OnsaleError as error:
            log_event(logger, logging.WARNING, "box offices don't see the ledger", reason=error)
            return None

    def _read_sale(
        self, connection: Connection, event: EventRecord, office: Office, count_max: int
    ) -> Sale | None:
        """None if the ledger has what this version can't read: a newer one may be writing it."""
        try:
            return box_office.read_sale(
                connection,
                event,
                before=office.sale,
                counted=self._counted.get(event.id, Counted()),
                count_max=count_max,
                now=self._clock.now(),
            )
        except ValueError as error:
            log_event(logger, logging.WARNING, "box office can't be shown", event_id=event.id, reason=error)
            return None

    def _note_sale(self, event_id: str, office: Office, sale: Sale | None) -> None:
        """Of an event that has been archived, or can't be read, nothing is to be seen any more."""
        if sale is None:
            office.has_ended = True
            return
        office.sale = sale
        self._counted[event_id] = sale.counted
        self._counted.move_to_end(event_id)
        if len(self._counted) > limits.BOX_OFFICE_COUNTS_REMEMBERED_MAX:
            self._counted.popitem(last=False)

    def _show(self, office: Office, not_answering: Sequence[str]) -> None:
        """Nothing is shown of a sale that PostgreSQL has not told of yet."""
        if office.sale is not None:
            document = box_office_document(
                office.sale,
                office.standing,
                at=self._clock.now(),
                not_answering=not_answering,
                demo=self._settings.demo,
            )
            office.snapshot = orjson.dumps(document)
        if office.snapshot is not None or office.has_ended:
            office.wake()
