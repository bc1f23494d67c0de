"""What the documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LINK = re.compile(r"\]\(([^()\s]+)\)|<img src=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def documents(project_root: Path) -> list[Path]:
    return [project_root / "README.md", *sorted((project_root / "docs").rglob("*.md"))]


def links(document: Path) -> list[str]:
    found = LINK.findall(FENCED.sub("", document.read_text()))
    return [path or picture for path, picture in found]


def anchors(document: Path) -> set[str]:
    """GitHub's: lower case, without punctuation, with hyphens for spaces."""
    headings = HEADING.findall(FENCED.sub("", document.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_of_the_documents_leads_somewhere(project_root: Path) -> None:
    dead = []
    for document in documents(project_root):
        for link in links(document):
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            if "://" in link:
                continue
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                dead.append(f"{document.relative_to(project_root)}: {link}")
    assert dead == []


@pytest.mark.parametrize("folder", ["pictures", "benchmarks"])
def test_every_picture_is_shown(project_root: Path, folder: str) -> None:
    shown = {
        (document.parent / link).resolve() for document in documents(project_root) for link in links(document)
    }
    pictures = sorted((project_root / "docs" / folder).iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture not in shown] == []
