"""The API's commands.

`python -m api serve` serves, `python -m api keys …` makes, lists, rotates and revokes API keys.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydantic import ValidationError

from shared import limits
from shared.api_keys import KEY_ROLES, ApiKey, Role, hash_secret, new_secret, write_token
from shared.clock import SystemClock, format_time
from shared.database import api_keys, statements
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable
from shared.identifiers import canonical_id, new_id
from shared.log import configure_logging
from shared.settings import explain_settings_error, load_settings

_GRACE_SECONDS = 30
_GRACE_SECONDS_MAX = 3_600
_PORT_MAX = 65_535


class Refused(Exception):
    """What was asked for can't be done; the message says what to do instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named command; gives the exit status: 1 if it was refused, 2 if it can't be understood."""
    parsed = _parser().parse_args(arguments)
    try:
        settings = load_settings()
    except ValidationError as error:
        print(explain_settings_error(error), file=sys.stderr)
        return 2
    if parsed.topic == "serve":
        from api.serve import serve

        configure_logging(settings.log_format, settings.log_level)
        return serve(parsed.host, parsed.port, grace_seconds=parsed.grace_seconds)
    database = Database(settings, connections_max=1)
    command: Callable[[Database, argparse.Namespace, datetime], str] = parsed.run
    try:
        printed = command(database, parsed, SystemClock().now())
    except (Refused, DatabaseUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        database.close()
    print(printed)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    topics = parser.add_subparsers(dest="topic", required=True)

    serving = topics.add_parser("serve", help="serve until SIGTERM")
    serving.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    serving.add_argument("--port", type=_port, default=8000, help="8000, if not told")
    serving.add_argument(
        "--grace-seconds",
        type=_grace_seconds,
        default=_GRACE_SECONDS,
        help=f"how long SIGTERM waits for what is being answered ({_GRACE_SECONDS})",
    )

    commands = topics.add_parser("keys", help="API keys").add_subparsers(dest="command", required=True)

    create = commands.add_parser("create", help="make a key; its secret is shown this once")
    create.add_argument("--role", required=True, type=Role, choices=KEY_ROLES)
    create.add_argument("--account", required=True, type=_text, help="the organiser that it acts for")
    create.add_argument("--label", type=_text, help="what it is used for")
    create.add_argument("--events", type=_event_ids, help="hold a seller to these events: id,id,…")
    create.add_argument("--expires-in-days", type=_days, help="when it ends by itself")
    create.set_defaults(run=_create)

    listing = commands.add_parser("list", help="show the keys, without their secrets")
    listing.set_defaults(run=_list)

    rotate = commands.add_parser("rotate", help="give a key a new secret; it is shown this once")
    rotate.add_argument("id", type=_key_id)
    rotate.add_argument(
        "--keep-old-hours", type=_hours, default=24, help="how long the old secret is good still (24)"
    )
    rotate.set_defaults(run=_rotate)

    revoke = commands.add_parser("revoke", help="end a key; the API knows within seconds")
    revoke.add_argument("id", type=_key_id)
    revoke.set_defaults(run=_revoke)
    return parser


def _create(database: Database, parsed: argparse.Namespace, moment: datetime) -> str:
    if parsed.events is not None and parsed.role is not Role.SELLER:
        raise Refused("--events is for sellers; an organiser's key is good for all events of its account")
    secret = new_secret()
    days = parsed.expires_in_days
    key = ApiKey(
        id=new_id(),
        role=parsed.role,
        account=parsed.account,
        label=parsed.label or "",
        events=parsed.events,
        secret_hash=hash_secret(secret),
        previous_hash=None,
        previous_until=None,
        created_at=moment,
        expires_at=None if days is None else moment + timedelta(days=days),
        revoked_at=None,
    )
    with database.transaction() as connection:
        if api_keys.count_keys(connection) >= limits.API_KEYS_MAX:
            raise Refused(f"there are {limits.API_KEYS_MAX} keys already; that is as many as there may be")
        found = statements.find_events(connection, key.events or ())
        for event_id in key.events or ():
            if event_id not in found or found[event_id].organiser_id != key.account:
                raise Refused(f"{key.account} has no event {event_id}; name events that it has made")
        api_keys.insert_key(connection, key)
    print(f"Key {key.id} for {key.role} {key.account}. It is shown this once:", file=sys.stderr)
    return write_token(key.id, secret)


def _list(database: Database, _parsed: argparse.Namespace, moment: datetime) -> str:
    lines = ["id  role  account  state  created  expires  events  label"]
    with database.transaction() as connection:
        keys = api_keys.all_keys(connection, count_max=limits.API_KEYS_MAX)
    for key in keys:
        state = "revoked" if key.revoked_at else "good" if key.is_good_at(moment) else "expired"
        expires = "never" if key.expires_at is None else format_time(key.expires_at)
        events = "all" if key.events is None else ",".join(key.events)
        created = format_time(key.created_at)
        lines.append("  ".join([key.id, key.role, key.account, state, created, expires, events, key.label]))
    return "\n".join(lines)


def _rotate(database: Database, parsed: argparse.Namespace, moment: datetime) -> str:
    secret = new_secret()
    until = moment + timedelta(hours=parsed.keep_old_hours)
    with database.transaction() as connection:
        key = api_keys.rotate_key(connection, parsed.id, hash_secret(secret), previous_until=until)
    if key is None:
        raise Refused(f"there is no key {parsed.id} to rotate; see `python -m api keys list`")
    print(
        f"Key {key.id} has a new secret; the old one is good until {format_time(until)}."
        " The new one is shown this once:",
        file=sys.stderr,
    )
    return write_token(key.id, secret)


def _revoke(database: Database, parsed: argparse.Namespace, moment: datetime) -> str:
    with database.transaction() as connection:
        revoked = api_keys.revoke_key(connection, parsed.id, moment)
    if not revoked:
        raise Refused(f"there is no key {parsed.id} to revoke; see `python -m api keys list`")
    return f"Key {parsed.id} is revoked."


def _text(text: str) -> str:
    if not 0 < len(text) <= limits.API_KEY_TEXT_LENGTH_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"use 1 to {limits.API_KEY_TEXT_LENGTH_MAX} characters that can be printed"
        )
    return text


def _key_id(text: str) -> str:
    id = canonical_id(text)
    if id is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a key; see `python -m api keys list`")
    return id


def _event_ids(text: str) -> list[str]:
    ids = [canonical_id(part.strip()) for part in text.split(",")]
    if None in ids or not 0 < len(ids) <= limits.API_KEY_EVENTS_MAX:
        raise argparse.ArgumentTypeError(
            f"give 1 to {limits.API_KEY_EVENTS_MAX} ids of events, separated by commas"
        )
    return [id for id in ids if id is not None]


def _days(text: str) -> int:
    return _whole_number(text, limits.API_KEY_DAYS_MAX)


def _hours(text: str) -> int:
    return _whole_number_or_zero(text, limits.API_KEY_OVERLAP_HOURS_MAX)


def _port(text: str) -> int:
    return _whole_number(text, _PORT_MAX)


def _grace_seconds(text: str) -> int:
    return _whole_number_or_zero(text, _GRACE_SECONDS_MAX)


def _whole_number_or_zero(text: str, largest: int) -> int:
    return 0 if text == "0" else _whole_number(text, largest)


def _whole_number(text: str, largest: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= largest:
        raise argparse.ArgumentTypeError(f"use a whole number from 1 to {largest:,}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
