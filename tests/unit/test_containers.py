"""What the container files promise, read from them; building and running them needs an engine."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

from local.postgres import ORDER_OF_TEXTS
from shared.settings import Settings

DOCKERFILES = ("Dockerfile.api", "Dockerfile.worker")


def stages(text: str) -> list[str]:
    """The parts of a Dockerfile, each from its FROM on."""
    return ["FROM " + part for part in text.split("\nFROM ")[1:]]


def service(compose: str, name: str) -> str:
    """The lines of one service."""
    _, _, rest = compose.partition(f"\n  {name}:\n")
    assert rest, name
    lines = rest.splitlines()
    end = next((i for i, line in enumerate(lines) if line and not line.startswith("    ")), len(lines))
    return "\n".join(lines[:end])


@pytest.fixture
def compose(project_root: Path) -> str:
    return (project_root / "docker-compose.yml").read_text()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_a_user_and_stops_on_sigterm(project_root: Path, name: str) -> None:
    text = (project_root / name).read_text()
    final = stages(text)[-1]
    assert "USER 10001" in final
    assert "HEALTHCHECK" in final
    assert "STOPSIGNAL SIGTERM" in text
    assert 'CMD ["python", "-m"' in final
    assert "tests" not in text


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_base_image_has_a_version(project_root: Path, name: str) -> None:
    text = (project_root / name).read_text()
    assert re.search(r"^ARG BASE=python:3\.\d+-slim-bookworm$", text, re.MULTILINE)
    for stage in stages(text):
        assert stage.split()[1] in {"base", "${BASE}"}


def test_a_new_database_orders_texts_as_that_of_make_up(compose: str) -> None:
    """Another order would be that of the image's C library, which a newer image may change."""
    postgres = yaml.safe_load(compose)["services"]["postgres"]
    assert postgres["environment"]["POSTGRES_INITDB_ARGS"].split() == list(ORDER_OF_TEXTS)


def pins(text: str) -> set[tuple[str, str]]:
    """The packages and versions that a requirements file names."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found}


@pytest.mark.parametrize("name", ["requirements", "dashboard"])
def test_the_images_install_the_pinned_versions_by_their_hashes(project_root: Path, name: str) -> None:
    pinned = pins((project_root / "requirements.txt").read_text())
    if name == "dashboard":
        pinned |= pins((project_root / "requirements/dashboard.txt").read_text())
    hashed = (project_root / f"requirements/{name}-hashed.txt").read_text()
    assert pins(hashed) == pinned
    entries = re.split(r"^(?=[\w.-]+==)", hashed, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_takes_no_package_without_a_hash(project_root: Path, name: str) -> None:
    installs = re.findall(r"pip install(?:[^\\\n]|\\\n)*", (project_root / name).read_text())
    assert installs
    assert all("--require-hashes" in install for install in installs)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_both_builders_understand_the_files(project_root: Path, name: str) -> None:
    text = (project_root / name).read_text()
    assert "--mount" not in text
    assert "<<" not in text
    assert "--link" not in text


def test_redis_is_as_durable_as_a_202_promises(compose: str) -> None:
    redis = service(compose, "redis")
    assert "--appendonly yes" in redis
    assert f"--appendfsync {Settings.model_fields['durability'].default}" in redis
    assert "- redis:/data" in redis


@pytest.mark.parametrize("name", ["secrets", "postgres", "redis", "worker", "webhooks", "migrate", "keys"])
def test_only_the_api_and_the_dashboard_are_published_and_on_loopback(compose: str, name: str) -> None:
    assert "ports:" not in service(compose, name)
    for published in ("api", "dashboard"):
        assert '- "127.0.0.1:' in service(compose, published)


def test_workers_can_be_many(compose: str) -> None:
    assert "container_name" not in compose


def test_no_password_stands_in_the_file(compose: str) -> None:
    assert "PASSWORD:" not in compose
    for url in re.findall(r"(?:postgresql|redis)://(\S+)", compose):
        assert ":" not in url.partition("@")[0]


def test_each_service_sees_the_secrets_that_it_needs_and_no_others(compose: str) -> None:
    mounted = {
        name: set(re.findall(r"- secret_(\w+):", service(compose, name)))
        for name in ("postgres", "redis", "migrate", "api", "worker", "webhooks", "dashboard", "keys")
    }
    assert mounted == {
        "postgres": {"owner"},
        "redis": {"redis_server", "redis_operator"},
        "migrate": {"owner", "redis", "api", "worker", "webhooks"},
        "api": {"api", "redis"},
        "worker": {"worker", "redis"},
        "webhooks": {"webhooks", "redis"},
        "dashboard": {"dashboard_redis", "dashboard_login"},
        "keys": {"owner", "redis"},
    }


def test_the_example_of_an_override_sets_what_there_is(project_root: Path, compose: str) -> None:
    operations = (project_root / "docs/operations.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", operations, re.MULTILINE | re.DOTALL)
    override, own = yaml.safe_load(example), yaml.safe_load(compose)
    assert override["version"] == own["version"]
    assert override["services"].keys() <= own["services"].keys()
    for each in override["services"].values():
        values = {name.removeprefix("ONSALE_").lower(): value for name, value in each["environment"].items()}
        assert values.keys() <= Settings.model_fields.keys()
        Settings(database_url="postgresql://", redis_url="redis://", **values)


def test_the_api_in_containers_asks_who_calls(compose: str) -> None:
    assert "ONSALE_AUTH: ${ONSALE_AUTH:-required}" in service(compose, "api")


def test_secrets_are_made_once_and_each_is_another(project_root: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(project_root / "deploy/make_secrets.py"))
    for name in (*script["PASSWORDS"], "redis_server"):
        (tmp_path / name).mkdir()
    script["main"](tmp_path)
    first = {name: (tmp_path / name / "password").read_text() for name in script["PASSWORDS"]}
    assert len(set(first.values())) == len(script["PASSWORDS"])
    users = (tmp_path / "redis_server" / "users.acl").read_text()
    # Redis 7 loses the line at a restart without the rights, and lets everybody in without the rest.
    assert "user default off resetpass ~* &* +@all" in users.splitlines()
    assert not any(password.strip() in users for password in first.values())
    script["main"](tmp_path)
    assert first == {name: (tmp_path / name / "password").read_text() for name in script["PASSWORDS"]}
    assert users == (tmp_path / "redis_server" / "users.acl").read_text()
