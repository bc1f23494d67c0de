"""The pages for people, as they are served."""

from __future__ import annotations

import httpx
import pytest

from api.routes.site import POLICY

PAGES = [
    "/",
    "/sale/01a206d1-4a02-7c44-8c0b-0f6a7be1d9c2",
    "/box-office/01a206d1-4a02-7c44-8c0b-0f6a7be1d9c2",
]
PAGE_BYTES_MAX = 100_000


@pytest.mark.parametrize("path", [*PAGES, "/assets/theme.css"])
def test_what_a_browser_gets_may_do_nothing_but_what_is_of_its_origin(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 200
    assert answer.headers.get_list("Content-Security-Policy") == [POLICY]
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", [*PAGES, "/assets/theme.css"])
def test_what_a_browser_has_is_not_sent_again(api: httpx.Client, path: str) -> None:
    first = api.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    again = api.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert api.head(path).headers["Content-Length"] == str(len(first.content))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_all_that_it_loads_is_small(api: httpx.Client, page: str) -> None:
    loaded, waiting = {}, [page]
    while waiting:
        path = waiting.pop()
        answer = api.get(path)
        assert answer.status_code == 200, path
        loaded[path] = len(answer.content)
        named = {part.split('"')[0] for part in answer.text.split('"/assets/')[1:]}
        waiting += [f"/assets/{name}" for name in named if f"/assets/{name}" not in loaded]
    assert len(loaded) > 1
    assert sum(loaded.values()) < PAGE_BYTES_MAX


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("theme.css", "text/css; charset=utf-8"),
        ("http.js", "text/javascript; charset=utf-8"),
        ("mark.svg", "image/svg+xml"),
    ],
)
def test_an_asset_has_its_type(api: httpx.Client, name: str, media_type: str) -> None:
    assert api.get(f"/assets/{name}").headers["Content-Type"] == media_type


@pytest.mark.parametrize("name", ["none.js", "..%2froutes%2fsite.py", "%2e%2e"])
def test_nothing_else_is_served(api: httpx.Client, name: str) -> None:
    answer = api.get(f"/assets/{name}")
    assert (answer.status_code, answer.json()["type"]) == (404, "not-found")
