"""The pages for people: what is on, the buyer's view, the box office. They ask the API as any client does."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from string import Template

from fastapi import APIRouter, HTTPException, Response

from api.conditional import IfNoneMatch, is_known
from api.context import ApiContext, Context
from shared import limits

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may do (Content Security Policy Level 3): load and ask what is of its own origin."""

_FOLDER = Path(__file__).parent.parent / "site"
_METHODS = ["GET", "HEAD"]
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asset:
    body: bytes
    media_type: str
    etag: str


def _read_asset(path: Path) -> _Asset:
    body = path.read_bytes()
    return _Asset(body=body, media_type=_MEDIA_TYPES[path.suffix], etag=_etag(body))


def _etag(body: bytes) -> str:
    return f'"{blake2b(body, digest_size=8).hexdigest()}"'


_ASSETS = {path.name: _read_asset(path) for path in sorted((_FOLDER / "assets").iterdir())}
_PAGES = {path.stem: Template(path.read_text()) for path in sorted((_FOLDER / "pages").iterdir())}


@router.api_route("/", methods=_METHODS)
async def events_page(context: Context, if_none_match: IfNoneMatch) -> Response:
    """What is on."""
    return _page("index", context, if_none_match)


@router.api_route("/sale/{event_id}", methods=_METHODS)
async def sale_page(context: Context, if_none_match: IfNoneMatch) -> Response:
    """The buyer's view. The page itself finds out whether there is such an event."""
    return _page("sale", context, if_none_match)


@router.api_route("/box-office/{event_id}", methods=_METHODS)
async def box_office_page(context: Context, if_none_match: IfNoneMatch) -> Response:
    """The organiser's view. What it shows it asks the API for, with the organiser's key."""
    return _page("box-office", context, if_none_match)


@router.api_route("/assets/{name}", methods=_METHODS)
async def asset(name: str, if_none_match: IfNoneMatch) -> Response:
    """A style sheet, script or picture of the pages."""
    known = _ASSETS.get(name)
    if known is None:
        raise HTTPException(404)
    return _answer(known, if_none_match)


def _page(name: str, context: ApiContext, if_none_match: str | None) -> Response:
    page = _PAGES[name]
    body = page.substitute(
        auth=context.settings.auth.value, tickets_max=limits.TICKETS_PER_BOOKING_MAX
    ).encode()
    return _answer(_Asset(body=body, media_type="text/html", etag=_etag(body)), if_none_match)


def _answer(asset: _Asset, if_none_match: str | None) -> Response:
    # Asked for again each time, but sent again only after an upgrade: a page has scripts of its version.
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    if is_known(if_none_match, asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)
