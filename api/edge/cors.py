"""Which pages of other origins a browser lets call this API: none, unless a setting names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.responses import Response

from api.http.problems import METHODS, ProblemError

Header = tuple[bytes, bytes]

MAX_AGE_S = 600
_ALLOWED = "Authorization, Content-Type, X-API-Key, X-Request-ID, traceparent, tracestate"
_EXPOSED = (
    b"access-control-expose-headers",
    b"Deprecation, ETag, Link, Retry-After, Sunset, X-Request-ID, traceparent",
)
_METHODS = ", ".join(METHODS)


class Cors:
    """The origins that are let in; `*` is any. Credentials (cookies) never are: a key travels in a
    header that a page sets itself."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def headers(self, scope: Any) -> tuple[Header, ...]:
        """What an answer to this request says of origins."""
        if not self._origins:
            return ()
        allow = b"access-control-allow-origin"
        if self._any:
            return ((allow, b"*"), _EXPOSED)
        origin = _header(scope, b"origin")
        vary = (b"vary", b"Origin")
        return ((allow, origin), _EXPOSED, vary) if origin in self._origins else (vary,)

    def preflight(self, scope: Any) -> Response | None:
        """The answer to a browser that asks before it calls; None where it is no such question.
        Raises `ProblemError` (403) for an origin that is not let in."""
        if scope["method"] != "OPTIONS":
            return None
        origin = _header(scope, b"origin")
        if not origin or not _header(scope, b"access-control-request-method"):
            return None
        if not self._any and origin not in self._origins:
            raise ProblemError(
                403,
                "origin-not-allowed",
                f"Pages of {origin[:200].decode('latin-1')!r} may not call this API; "
                "ONEBAR_API_CORS_ORIGINS names those that may.",
            )
        return Response(
            status_code=204,
            headers={
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _ALLOWED,
                "Access-Control-Max-Age": str(MAX_AGE_S),
            },
        )


def _header(scope: Any, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
