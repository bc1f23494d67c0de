"""The file of an archived event: gzip of JSON Lines, with the event, its ledger, its bookings, and a digest.

The first line names format, version and event; one line per ledger row in order of position follows, then
one per booking in order of id; the last line has their numbers and the SHA-256 of all lines before it. The
same rows give the same file, and neither writing nor reading needs memory that grows with it.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import orjson
from msgspec import Struct

from shared import limits
from shared.clock import format_time, parse_time
from shared.domain import CommandKind, OutcomeCode
from shared.errors import ArchiveUnreadable
from shared.records import BookingRecord, EventRecord, LedgerRecord

FORMAT = "onsale-archive"
VERSION = 1

_Record = TypeVar("_Record")
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


class ArchiveEnd(Struct, frozen=True, kw_only=True):
    """The last line: how much there is, and the digest of it."""

    commands: int
    bookings: int
    sha256: str


def write_archive(
    path: Path, event: EventRecord, ledger: Iterable[LedgerRecord], bookings: Iterable[BookingRecord]
) -> ArchiveEnd:
    """Write an archive; the file is there when all of it is on the disk, and not before.

    Raises:
        OSError: it can't be written.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as archive:
                end = _write_lines(archive, event, ledger, bookings)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        _sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)
    return end


def _write_lines(
    archive: gzip.GzipFile,
    event: EventRecord,
    ledger: Iterable[LedgerRecord],
    bookings: Iterable[BookingRecord],
) -> ArchiveEnd:
    digest, counts = sha256(), {"ledger": 0, "booking": 0}

    def write(document: dict[str, Any]) -> None:
        line = orjson.dumps(document) + b"\n"
        digest.update(line)
        archive.write(line)

    write({"format": FORMAT, "version": VERSION, "event": _document(event)})
    for entry in ledger:
        write({"ledger": _document(entry)})
        counts["ledger"] += 1
    for booking in bookings:
        write({"booking": _document(booking)})
        counts["booking"] += 1
    end = ArchiveEnd(commands=counts["ledger"], bookings=counts["booking"], sha256=digest.hexdigest())
    archive.write(orjson.dumps({"end": _document(end)}) + b"\n")
    return end


def _sync_folder(folder: Path) -> None:
    """The new name must be on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ArchiveRows:
    """The rows in an archive, as `verify` reads them. Every method raises `ArchiveUnreadable`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> ArchiveEnd:
        """Read all of it: is it whole, and as it was written?"""
        digest, counts, end = sha256(), {"event": 0, "ledger": 0, "booking": 0}, None
        for line, document in self._lines():
            if end is not None:
                raise self._unreadable("something comes after its end")
            if "end" in document:
                end = self._record(ArchiveEnd, document["end"])
            else:
                digest.update(line)
                for kind in counts.keys() & document.keys():
                    counts[kind] += 1
        if end is None:
            raise self._unreadable("its end is missing")
        found = ArchiveEnd(commands=counts["ledger"], bookings=counts["booking"], sha256=digest.hexdigest())
        if end != found:
            raise self._unreadable(f"it was changed after it was written: {found} instead of {end}")
        return end

    def event(self) -> EventRecord:
        """The event as it was when it was archived."""
        for _, document in self._lines():
            if document.get("format") != FORMAT:
                raise self._unreadable("it is not an archive of an event")
            if document.get("version") != VERSION:
                raise self._unreadable(f"version {document.get('version')!r} is not known here")
            return self._record(EventRecord, document.get("event"))
        raise self._unreadable("it is empty")

    def ledger(self) -> Iterator[LedgerRecord]:
        """The ledger in order of position."""
        for _, document in self._lines():
            if "ledger" in document:
                yield self._record(LedgerRecord, document["ledger"])

    def first_change(self) -> LedgerRecord | None:
        """The first change of the event's terms that was applied."""
        for entry in self.ledger():
            if entry.kind is CommandKind.CHANGE and entry.outcome is OutcomeCode.CHANGED:
                return entry
        return None

    def bookings(self) -> Iterator[BookingRecord]:
        """The bookings in order of id."""
        for _, document in self._lines():
            if "booking" in document:
                yield self._record(BookingRecord, document["booking"])

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        try:
            with gzip.open(self._path, "rb") as file:
                while line := _next_line(file):
                    document = orjson.loads(line)
                    if not isinstance(document, dict):
                        raise ValueError("a line is not an object")
                    yield line, document
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise self._unreadable(str(error)) from error

    def _record(self, kind: type[_Record], document: Any) -> _Record:
        try:
            return _read_record(kind, document)
        except _UNREADABLE as error:
            raise self._unreadable(f"a row can't be read: {error!r}") from error

    def _unreadable(self, why: str) -> ArchiveUnreadable:
        return ArchiveUnreadable(f"{self._path}: {why}")


def _next_line(file: gzip.GzipFile) -> bytes:
    line = file.readline(limits.ARCHIVE_LINE_BYTES_MAX + 1)
    if len(line) > limits.ARCHIVE_LINE_BYTES_MAX:
        raise ValueError("a line is longer than any that is written")
    return line


def _document(record: Struct) -> dict[str, Any]:
    return {name: _plain(getattr(record, name)) for name in record.__struct_fields__}


def _plain(value: object) -> object:
    match value:
        case datetime():
            return format_time(value)
        case bytes():
            return value.hex()
        case StrEnum():
            return value.value
        case _:
            return value


def _read_record(kind: type[_Record], document: dict[str, Any]) -> _Record:
    readers = _READERS[kind]
    unknown = document.keys() - readers.keys()
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} is not known here")
    return kind(**{name: readers[name](value) for name, value in document.items()})


def _reader(hint: Any) -> Callable[[Any], Any]:
    """How to read back a field that is declared so."""
    kinds = get_args(hint) or (hint,)
    is_optional = NoneType in kinds
    kind = next(each for each in kinds if each is not NoneType)

    def read(value: Any) -> Any:
        if value is None and is_optional:
            return None
        if kind is datetime:
            return parse_time(value)
        if kind is bytes:
            return bytes.fromhex(value)
        if issubclass(kind, StrEnum):
            return kind(value)
        if type(value) is not (dict if issubclass(kind, dict) else kind):
            raise TypeError(f"{value!r} is not {kind.__name__}")
        return value

    return read


_READERS: dict[type, dict[str, Callable[[Any], Any]]] = {
    kind: {name: _reader(hint) for name, hint in get_type_hints(kind).items()}
    for kind in (EventRecord, LedgerRecord, BookingRecord, ArchiveEnd)
}
