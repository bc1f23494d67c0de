"""Pictures of pages for the documents, taken while the tests run if `ONSALE_PICTURES` names a folder.

`ONSALE_PICTURES=docs/pictures make test ARGS=tests/browser` takes all of them anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, ViewportSize


@dataclass(frozen=True, slots=True, kw_only=True)
class _Camera:
    name: str
    viewport: ViewportSize
    scheme: Literal["light", "dark"]


CAMERAS = (
    _Camera(name="phone", viewport={"width": 390, "height": 844}, scheme="dark"),
    _Camera(name="desktop", viewport={"width": 1280, "height": 800}, scheme="light"),
)


def take(page: Page, name: str, *, whole: bool = False) -> None:
    """The page on a phone in the dark and on a desktop in the light, there perhaps the whole of it."""
    folder = os.environ.get("ONSALE_PICTURES")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for camera in CAMERAS:
        page.set_viewport_size(camera.viewport)
        page.emulate_media(color_scheme=camera.scheme, reduced_motion="reduce")
        page.screenshot(
            path=Path(folder) / f"{name}-{camera.name}.png", animations="disabled", full_page=whole
        )
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
