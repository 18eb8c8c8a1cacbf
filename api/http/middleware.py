"""The outermost layer: when a request arrived, what it is counted as, and the headers all carry."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from time import perf_counter
from typing import Any
from urllib.parse import unquote_to_bytes

from api.http.metrics import REQUEST_SECONDS, REQUESTS
from api.http.problems import METHODS, InvalidParameterError, response_for
from api.http.room import Room

API_CSP = "default-src 'none'; frame-ancestors 'none'"
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_COMMON = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_API = (*_COMMON, (b"content-security-policy", API_CSP.encode()), (b"cache-control", b"no-store"))
_PAGE = (*_COMMON, (b"content-security-policy", PAGE_CSP.encode()), (b"cache-control", b"no-cache"))


ALWAYS = frozenset(("/healthz", "/readyz", "/metrics"))
"""What is answered however much else there is to do: who asks it has to know."""

Route = tuple[str, str]
"""Method and path."""


Respond = Callable[[Any, Any, float], Awaitable[bytes]]
"""The JSON for a request, from its ASGI scope and `receive` and its arrival in loop time."""


class FastPath:
    """An ASGI application that answers one route before the framework sees the request, which
    costs as much again as a hit in the cache does. It is counted, and its errors are answered."""

    def __init__(self, route: Route, respond: Respond) -> None:
        self._route = route
        self._respond = respond
        self._requests = REQUESTS.labels(*route, "200")
        self._seconds = REQUEST_SECONDS.labels(route[1])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        began = perf_counter()
        try:
            body = await self._respond(scope, receive, asyncio.get_running_loop().time())
        except Exception as error:
            response = response_for(error)
            response.headers.update({k.decode(): v.decode() for k, v in _API})
            await response(scope, receive, send)
            REQUESTS.labels(*self._route, str(response.status_code)).inc()
        else:
            await send(_start(body))
            await send({"type": "http.response.body", "body": body})
            self._requests.inc()
        self._seconds.observe(perf_counter() - began)


def arrival(scope: Any) -> float:
    """When a request inside the framework arrived, in loop time."""
    arrived: float | None = scope.get("onebar.arrived")
    return asyncio.get_running_loop().time() if arrived is None else arrived


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _check_path(scope: Any) -> None:
    """Raises `InvalidParameterError` for a path that could be decoded only by guessing, or that
    no route matches for a character that no id has."""
    raw = scope.get("raw_path") or b""
    if b"%" in raw:
        try:
            path = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise InvalidParameterError.of("path", "not UTF-8") from None
        if _CONTROL.search(path):
            raise InvalidParameterError.of("path", "no id has a control character")


def _start(body: bytes) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ],
    }


class RequestMiddleware:
    """ASGI middleware around everything that is routed. A HEAD is routed as the GET that it stands
    for, and answered without the body."""

    def __init__(self, app: Any, room: Room) -> None:
        self._app = app
        self._room = room

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, head = scope["method"], scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET", "onebar.head": True}
        scope["onebar.arrived"] = asyncio.get_running_loop().time()
        began = perf_counter()
        status, started = 500, False

        async def counted(message: Any) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                own = {name.lower() for name, _ in message["headers"]}
                common = _PAGE if scope.get("onebar.page") else _API
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in common if name not in own),
                ]
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            _check_path(scope)
            with nullcontext() if scope["path"] in ALWAYS else self._room.request():
                await self._app(scope, receive, counted)
        except Exception as error:
            if started:
                raise
            await response_for(error)(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            named = method if method in METHODS else "other"
            REQUESTS.labels(named, route, str(status)).inc()
            REQUEST_SECONDS.labels(route).observe(perf_counter() - began)
