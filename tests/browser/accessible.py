"""What axe-core finds wrong with a page: what keeps out people who can't see, hear or point."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_PAINTED = "() => new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)))"

_axe = Axe()


def barriers(page: Page) -> list[str]:
    """Each violation with what it is about, light and dark."""
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.evaluate(_PAINTED)
        for violation in _axe.run(page).response["violations"]:
            for node in violation["nodes"]:
                found.append(f"{scheme}: {violation['id']}: {node['html']}: {node['failureSummary']}")
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    return found
