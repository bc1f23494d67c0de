"""Statements that the server plans once for each connection, and how they are run.

Of what a batch of a few commands costs PostgreSQL, a third is reading and planning the same statements again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

_PARAMETER = re.compile(r"%\((\w+)\)s")
_DIGEST_LENGTH = 8
_IS_PREPARED = "onsale_is_prepared"
"""In the notes that the pool keeps with a connection for as long as it lives."""


class Prepared:
    """A statement that is called by a name; its text names its parameters as `%(so)s`.

    The name tells it from others of the same purpose, which another version may have prepared where a pooler
    leads us.

    Sources: https://www.postgresql.org/docs/current/sql-prepare.html
    """

    def __init__(self, name: str, text: str, types: Mapping[str, str]) -> None:
        """`types` are those of the parameters, by their names; of others too."""
        parameters = list(dict.fromkeys(_PARAMETER.findall(text)))
        numbered = {parameter: f"${number}" for number, parameter in enumerate(parameters, start=1)}
        signature = ", ".join(types[parameter] for parameter in parameters)
        values = ", ".join(f"%({parameter})s" for parameter in parameters)
        digest = hashlib.sha256(f"{signature} {text}".encode()).hexdigest()[:_DIGEST_LENGTH]
        self.name = f"{name}_{digest}"
        self.preparation = f"PREPARE {self.name} ({signature}) AS {text % numbered}"
        self.execution = f"EXECUTE {self.name} ({values})"
        self.plain = text % {name: f"%({name})s::{types[name]}" for name in parameters}


@dataclass(frozen=True, slots=True)
class Statement:
    """What is sent in one round trip: several statements, with the parameters of all of them."""

    parts: Sequence[str | Prepared]
    parameters: Mapping[str, object] = field(default_factory=dict)


def prepare(connection: Connection, prepares: Sequence[Prepared]) -> None:
    """Have the server keep these statements for the life of this connection, unless it does already."""
    if _IS_PREPARED in connection.info:
        return
    try:
        run(connection, Statement([each.preparation for each in prepares]))
    except BaseException:
        # Some may be prepared.
        connection.invalidate()
        raise
    connection.info[_IS_PREPARED] = True


def prepare_no_more(connection: Connection) -> None:
    """Send statements as text over this connection from now on, whatever the server keeps for it."""
    connection.info.pop(_IS_PREPARED, None)


def run(connection: Connection, statement: Statement) -> list[tuple[Any, ...]]:
    """Run it by the driver alone, without SQLAlchemy's own work; gives the rows of the last part.

    On a connection that has not prepared its parts their text is sent, which does the same.
    """
    is_prepared = _IS_PREPARED in connection.info
    text = ";".join([_text(part, is_prepared=is_prepared) for part in statement.parts])
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(text, statement.parameters or None)
        return list(cursor.fetchall()) if cursor.description else []


def _text(part: str | Prepared, *, is_prepared: bool) -> str:
    if isinstance(part, str):
        return part
    return part.execution if is_prepared else part.plain
