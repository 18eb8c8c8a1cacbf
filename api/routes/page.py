"""The page: a live feed with its search bars, and the API's own reference. No outside assets."""

from __future__ import annotations

import time
from functools import lru_cache
from importlib.resources import files

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

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


@lru_cache(maxsize=1)
def assets() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, media type) of every file of the page."""
    found = {}
    for item in (files("api") / "static").iterdir():
        suffix = item.name[item.name.rfind(".") :]
        if suffix in _TYPES:
            found[item.name] = (item.read_bytes(), _TYPES[suffix])
    return found


def _asset(request: Request, name: str) -> Response:
    if name not in assets():
        raise ProblemError(404, "not-found", f"There is no {name[:100]!r} here.")
    request.scope["onebar.page"] = True
    body, media_type = assets()[name]
    return Response(body, media_type=media_type)


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


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    return _asset(request, name)
