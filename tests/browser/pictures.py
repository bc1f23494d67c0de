"""Pictures of pages for the documents, taken while the tests run if `ONSALE_PICTURES` names a folder.

`ONSALE_PICTURES=docs/pictures make test ARGS=tests/browser` takes all of them anew.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

from playwright.sync_api import Page, ViewportSize

SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 800},
    "phone": {"width": 390, "height": 844},
}
SCHEMES = ("light", "dark")


def take(page: Page, name: str) -> None:
    """The page as it is now, on a desktop and on a phone, light and dark."""
    folder = os.environ.get("ONSALE_PICTURES")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for (size, viewport), scheme in product(SIZES.items(), SCHEMES):
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.screenshot(path=Path(folder) / f"{name}-{size}-{scheme}.png", animations="disabled")
    page.set_viewport_size(SIZES["desktop"])
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
