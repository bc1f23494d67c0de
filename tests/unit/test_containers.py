"""What the container files promise, read from them; building and running them needs an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    stage_names = {"base"}
    for stage in stages((project_root / name).read_text()):
        image = stage.split()[1]
        assert image in stage_names or ":" in image, image


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


@pytest.mark.parametrize("name", ["postgres", "redis", "worker", "webhooks", "migrate"])
def test_only_the_api_and_the_dashboard_are_published_and_on_loopback(compose: str, name: str) -> None:
    assert "ports:" not in service(compose, name)
    for published in ("api", "dashboard"):
        assert '- "127.0.0.1:' in service(compose, published)


def test_workers_can_be_many(compose: str) -> None:
    assert "container_name" not in compose
