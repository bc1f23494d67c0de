"""The Kubernetes manifests, read for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent.parent / "deploy/kubernetes"
KUSTOMIZATION = "kustomization.yaml"
KUSTOMIZATIONS = sorted(FOLDER.rglob(KUSTOMIZATION))

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """What stands in one file; the caller may change it."""
    return deepcopy(_documents(path))


@cache
def _documents(path: Path) -> list[Manifest]:
    """Each test asks for all of them several times, and to parse them takes most of its time."""
    return list(yaml.safe_load_all(path.read_text()))


def identity(manifest: Manifest) -> tuple[str, str]:
    """By what a patch names a manifest."""
    return manifest["kind"], manifest["metadata"]["name"]


def resources(kustomization: Path) -> Iterator[Manifest]:
    """What a kustomization is made of, before its patches, with that of the folders that it takes in."""
    for entry in documents(kustomization)[0]["resources"]:
        path = (kustomization.parent / entry).resolve()
        if path.is_dir():
            yield from resources(path / KUSTOMIZATION)
        else:
            yield from documents(path)


def everything() -> list[Manifest]:
    """Every manifest of base, keys and overlays, once; patches are not manifests."""
    found = {identity(each): each for path in KUSTOMIZATIONS for each in resources(path)}
    return [found[key] for key in sorted(found)]


def manifest(kind: str, name: str) -> Manifest:
    """The one of this kind and name."""
    (found,) = (each for each in everything() if identity(each) == (kind, name))
    return found


def pod(manifest: Manifest) -> Manifest | None:
    """The pod that a manifest runs, as `metadata` and `spec`; None if it runs none."""
    if manifest["kind"] == "Pod":
        return manifest
    template: Manifest | None = manifest.get("spec", {}).get("template")
    return template


def workloads() -> dict[str, Manifest]:
    """Name and pod of every manifest that runs one."""
    found = ((each["metadata"]["name"], pod(each)) for each in everything())
    return {name: each for name, each in found if each is not None}


def container(name: str) -> Manifest:
    """The one container of a workload."""
    (found,) = workloads()[name]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def plain_environment(name: str) -> dict[str, str]:
    """What a workload's container is told directly, references unresolved."""
    return {each["name"]: each["value"] for each in container(name)["env"] if "value" in each}
