"""The page: a live feed with its search bars, and the API's own reference. No outside assets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from msgspec import Struct

from api.http.problems import ProblemError
from api.routes.deps import ServicesDep, needs
from onebar import __version__

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


class Asset(Struct, frozen=True):
    """A file of the page. `etag` is another one when its bytes are."""

    body: bytes
    media_type: str
    etag: str


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """Every file of the page, by its name."""
    found = {}
    for item in (files("api") / "static").iterdir():
        suffix = item.name[item.name.rfind(".") :]
        if suffix in _TYPES:
            body = item.read_bytes()
            # Weak: what is sent may be compressed.
            etag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
            found[item.name] = Asset(body, _TYPES[suffix], etag)
    return found


def _asset(request: Request, name: str) -> Response:
    if name not in assets():
        raise ProblemError(404, "not-found", f"There is no {name[:100]!r} here.")
    request.scope["onebar.page"] = True
    asset = assets()[name]
    if _is_known(request.headers.getlist("if-none-match"), asset.etag):
        return Response(status_code=304, headers={"ETag": asset.etag})
    return Response(asset.body, media_type=asset.media_type, headers={"ETag": asset.etag})


def _is_known(conditions: Sequence[str], etag: str) -> bool:
    """Whether a browser that sent this If-None-Match has it already (RFC 9110, weak comparison)."""
    named = [part.strip() for condition in conditions for part in condition.split(",")]
    return "*" in named or etag.removeprefix("W/") in (part.removeprefix("W/") for part in named)


@router.get("/")
async def index(request: Request) -> Response:
    return _asset(request, "index.html")


@router.get("/operations")
async def operations(request: Request) -> Response:
    return _asset(request, "operations.html")


@router.get("/v1/page", dependencies=[needs("read")])
async def page(services: ServicesDep) -> Response:
    """What the page is to know of this server."""
    return Response(
        orjson.dumps(
            {
                "now": time.time(),
                "version": __version__,
                "users": services.settings.page_users,
                "k": services.settings.k,
            }
        ),
        media_type="application/json",
    )


@router.get("/docs")
async def docs(request: Request) -> Response:
    return _asset(request, "docs.html")


@router.get("/docs/")
@router.get("/operations/")
async def typed_with_a_slash(request: Request) -> Response:
    """The page is where it always is."""
    return RedirectResponse(request.url.path.rstrip("/"), 308)


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    return _asset(request, name)
