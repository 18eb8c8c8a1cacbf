"""The span of each request to `/v1/`, where traces are wanted."""

from __future__ import annotations

import re
from typing import Any

from onebar.process.tracing import serving

_SOURCE = re.compile(rb'"source":"(cache|generated|fallback)"')
_TRACEPARENT = b"traceparent"


def is_traced(scope: Any) -> bool:
    """Whether a request has a span: those to the API itself, but not the one that never ends."""
    path: str = scope["path"]
    return scope["type"] == "http" and path.startswith("/v1/") and path != "/v1/watch"


async def traced(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """`app` within a span, which what is logged, sent to Kafka and answered then belongs to."""
    method, path = scope["method"], scope["path"]
    with serving(method, scope["headers"]) as served:
        mine = (_TRACEPARENT, served.traceparent)
        others = [each for each in scope["headers"] if each[0] != _TRACEPARENT]
        scope = {**scope, "headers": [*others, mine]}
        status, source = 500, None

        async def told(message: Any) -> None:
            nonlocal status, source
            if message["type"] == "http.response.start":
                status = message["status"]
                kept = [each for each in message["headers"] if each[0] != _TRACEPARENT]
                message = {**message, "headers": [*kept, mine]}
            elif path == "/v1/queries" and method == "GET" and source is None:
                found = _SOURCE.search(message.get("body", b""))
                source = None if found is None else found[1].decode()
            await send(message)

        try:
            await app(scope, receive, told)
        finally:
            route = getattr(scope.get("route"), "path", path if path == "/v1/queries" else "other")
            served.answered(f"{method} {route}", route, status, source=source)
