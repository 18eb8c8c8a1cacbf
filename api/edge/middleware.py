"""The outermost layer: when a request arrived, what it is counted as, and the headers all carry."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from time import perf_counter
from typing import Any
from urllib.parse import unquote_to_bytes

from api.edge.compress import GZIP, LEAST_BYTES, VARY, Header, compressible, gzipped, wanted
from api.edge.cors import Cors
from api.edge.unread import Body
from api.http.calls import Call, begin
from api.http.metrics import REQUEST_SECONDS, REQUESTS
from api.http.problems import METHODS, InvalidParameterError, response_for
from api.http.room import Room

API_CSP = "default-src 'none'; frame-ancestors 'none'"
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_JSON = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
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

    def __init__(self, route: Route, respond: Respond, cors: Cors, *, gzip: bool) -> None:
        self._route = route
        self._gzip = gzip
        self._respond = respond
        self._cors = cors
        self._lets_in = bool(cors)
        self._requests = REQUESTS.labels(*route, "200")
        self._seconds = REQUEST_SECONDS.labels(route[1])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        began = perf_counter()
        call = begin(scope)
        if scope["method"] != "GET":
            receive = Body(scope, receive)
        try:
            body = await self._respond(scope, receive, asyncio.get_running_loop().time())
            more = call.headers()
            if self._gzip and len(body) >= LEAST_BYTES:
                more += (VARY,)
                if wanted(scope["headers"]):
                    body = await gzipped(body)
                    more += (GZIP,)
        except Exception as error:
            response = response_for(error, scope)
            closing = receive.headers() if isinstance(receive, Body) else ()
            named = (*call.headers(), *_API, *self._cors.headers(scope), *closing)
            response.raw_headers = _joined(response.raw_headers, named)
            await response(scope, receive, send)
            REQUESTS.labels(*self._route, str(response.status_code)).inc()
        else:
            if self._lets_in:
                more += self._cors.headers(scope)
            headers = [*_JSON, (b"content-length", b"%d" % len(body)), *more]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            self._requests.inc()
        call.over = True
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


def _joined(own: Iterable[Header], more: Iterable[Header]) -> list[Header]:
    """A response's own headers, and those of the others that it does not set itself."""
    headers = list(own)
    names = {name.lower() for name, _ in headers}
    return headers + [(name, value) for name, value in more if name == b"vary" or name not in names]


class RequestMiddleware:
    """ASGI middleware around everything that is routed. A HEAD is routed as the GET that it stands
    for, and answered without the body."""

    def __init__(self, app: Any, room: Room, cors: Cors) -> None:
        self._app = app
        self._room = room
        self._cors = cors

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, head = scope["method"], scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET", "onebar.head": True}
        scope["onebar.arrived"] = asyncio.get_running_loop().time()
        began = perf_counter()
        call = begin(scope)
        receive = Body(scope, receive)
        sending = _Sending(scope, send, call, self._cors, receive, head)
        try:
            preflight = self._cors.preflight(scope) if self._cors else None
            if preflight is not None:
                await preflight(scope, receive, sending)
                return
            _check_path(scope)
            with nullcontext() if scope["path"] in ALWAYS else self._room.request():
                await self._app(scope, receive, sending)
        except Exception as error:
            if sending.started:
                raise
            await response_for(error, scope)(scope, receive, sending)
        finally:
            call.over = True
            route = getattr(scope.get("route"), "path", "other")
            named = method if method in METHODS else "other"
            REQUESTS.labels(named, route, str(sending.status)).inc()
            REQUEST_SECONDS.labels(route).observe(perf_counter() - began)


class _Sending:
    """`send` of one answer: the headers that all carry, and a long body compressed where that is
    asked for."""

    def __init__(
        self, scope: Any, send: Any, call: Call, cors: Cors, body: Body, head: bool
    ) -> None:
        self._body = body
        self._scope = scope
        self._send = send
        self._call = call
        self._cors = cors
        self._head = head
        self._held: Any = None
        self.status = 500
        self.started = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started = message["status"], True
            message["headers"] = self._headers(message["headers"])
            if VARY in message["headers"] and wanted(self._scope["headers"]):
                self._held = message  # until its length is known
                return
        elif message["type"] == "http.response.body":
            if self._held is not None:
                message = await self._compressed(message)
            if self._head:
                message = {**message, "body": b""}
        await self._send(message)

    def _headers(self, own: list[Header]) -> list[Header]:
        common = _PAGE if self._scope.get("onebar.page") else _API
        more = (*self._call.headers(), *common, *self._cors.headers(self._scope))
        headers = _joined(own, (*more, *self._body.headers()))
        if self._scope.get("onebar.plain"):
            return headers
        length = next((int(value) for name, value in own if name == b"content-length"), 0)
        return [*headers, VARY] if compressible(own, length) else headers

    async def _compressed(self, message: Any) -> Any:
        start, self._held = self._held, None
        if not message.get("more_body"):
            body = await gzipped(message["body"])
            message = {**message, "body": body}
            kept = [each for each in start["headers"] if each[0] != b"content-length"]
            start["headers"] = [*kept, GZIP, (b"content-length", b"%d" % len(body))]
        await self._send(start)
        return message
