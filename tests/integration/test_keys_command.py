"""`python -m api keys`: what it prints, stores and refuses."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from api.__main__ import main
from shared.api_keys import Role, hash_secret, read_token
from shared.clock import SystemClock
from shared.database import api_keys
from shared.database.engine import Database
from shared.identifiers import new_id
from shared.settings import Settings, load_settings
from tests.builders import create_event


@pytest.fixture(autouse=True)
def _environment(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    load_settings.cache_clear()


def stored(database: Database) -> list[tuple[Role, str, bool]]:
    with database.transaction() as connection:
        return [
            (key.role, key.account, key.is_good_at(SystemClock().now()))
            for key in api_keys.all_keys(connection, count_max=10)
        ]


def make(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    """The id and the secret of a new key."""
    assert main(["keys", "create", "--role", "organiser", "--account", "acme", *options]) == 0
    named = read_token(capsys.readouterr().out.strip())
    assert named is not None
    return named


def test_a_key_is_made_and_its_secret_stored_nowhere(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    _, secret = make(capsys, "--label", "box office")
    assert stored(database) == [(Role.ORGANISER, "acme", True)]
    with database.transaction() as connection:
        [row] = connection.execute(text("SELECT api_keys::text, secret_hash FROM api_keys"))
    assert secret not in row[0]
    assert bytes(row[1]) == hash_secret(secret)


def test_the_list_shows_keys_without_their_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    id, secret = make(capsys, "--label", "box office", "--expires-in-days", "3")
    assert main(["keys", "list"]) == 0
    printed = capsys.readouterr().out
    assert id in printed
    assert "organiser  acme  good" in printed
    assert "box office" in printed
    assert secret not in printed


def test_a_key_is_rotated(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    id, secret = make(capsys)
    assert main(["keys", "rotate", id]) == 0
    named = read_token(capsys.readouterr().out.strip())
    assert named is not None
    with database.transaction() as connection:
        [key] = api_keys.all_keys(connection, count_max=10)
    assert named[0] == id
    assert key.accepts(named[1], SystemClock().now())
    assert key.accepts(secret, SystemClock().now())
    assert main(["keys", "rotate", id, "--keep-old-hours", "0"]) == 0
    with database.transaction() as connection:
        [key] = api_keys.all_keys(connection, count_max=10)
    assert not key.accepts(named[1], SystemClock().now())


def test_a_key_is_revoked_once(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    id, _ = make(capsys)
    assert main(["keys", "revoke", id]) == 0
    assert stored(database) == [(Role.ORGANISER, "acme", False)]
    for command in ("revoke", "rotate"):
        assert main(["keys", command, id]) == 1
        assert "python -m api keys list" in capsys.readouterr().err


def test_a_seller_is_held_to_events_of_its_account(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    own = create_event(database, organiser_id="acme").id
    others = create_event(database, organiser_id="rival").id
    options = ["keys", "create", "--role", "seller", "--account", "acme", "--events"]
    assert main([*options, own]) == 0
    for events in (others, new_id(), f"{own},{others}"):
        assert main([*options, events]) == 1
        assert "has no event" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--role", "customer", "--account", "acme"],
        ["create", "--role", "organiser", "--account", ""],
        ["create", "--role", "organiser", "--account", "a\nb"],
        ["create", "--role", "seller", "--account", "acme", "--events", "nonsense"],
        ["create", "--role", "organiser", "--account", "acme", "--expires-in-days", "0"],
        ["rotate", "nonsense"],
        ["rotate", new_id(), "--keep-old-hours", "-1"],
        ["revoke"],
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    database: Database, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    assert ended.value.code == 2
    assert stored(database) == []


def test_an_organisers_key_is_not_held_to_events(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["keys", "create", "--role", "organiser", "--account", "acme", "--events", new_id()]
    assert main(options) == 1
    assert "for sellers" in capsys.readouterr().err


def test_without_postgresql_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    load_settings.cache_clear()
    assert main(["keys", "list"]) == 1
    assert "PostgreSQL" in capsys.readouterr().err
