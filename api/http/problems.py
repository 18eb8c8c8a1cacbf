"""Errors as `application/problem+json` (RFC 9457): one shape for everything that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.http.calls import call_of
from feature_store.redis.client import StoreUnavailableError
from onebar.errors import OneBarError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:onebar:problem:"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
MAX_NAMED_ERRORS = 100
"""Errors a problem lists; the rest are only counted in `detail`."""


class ProblemError(OneBarError):
    """Ends a request with a problem.

    `slug` is the last part of the problem's `type`; `extra` are further members of the object.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra

    def response(self, request_id: str = "") -> Response:
        """What the client gets."""
        return problem(
            self.status,
            self.detail,
            slug=self.slug,
            headers=self.headers,
            extra=self.extra,
            request_id=request_id,
        )


class InvalidParameterError(ProblemError):
    """A parameter or a part of the body that is missing or wrong: 422, naming each."""

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        named = list(errors[:MAX_NAMED_ERRORS])
        detail = "; ".join(f"{error['name']}: {error['detail']}" for error in named[:3])
        if len(errors) > 3:
            detail += f"; and {len(errors) - 3} more"
        super().__init__(422, "invalid-parameter", detail, errors=named)

    @classmethod
    def of(cls, name: str, detail: str) -> InvalidParameterError:
        """One parameter's fault."""
        return cls([{"name": name, "detail": detail}])


class UnavailableError(ProblemError):
    """Something behind the API is away: 503, try again after `retry_after_s` seconds."""

    def __init__(self, slug: str, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(503, slug, detail, headers={"Retry-After": str(retry_after_s)})


def problem(
    status: int,
    detail: str,
    *,
    slug: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    request_id: str = "",
) -> Response:
    """A problem as a response. Without a slug its type is `about:blank`: the status says it all.
    `request_id` names the request it is the answer to."""
    body = {
        "type": "about:blank" if slug is None else TYPE_PREFIX + slug,
        "title": title_of(status),
        "status": status,
        "detail": detail,
        **(extra or {}),
        **({"request_id": request_id} if request_id else {}),
    }
    return Response(_dump(body), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's, whichever Python this is: older ones have older names for them."""


def title_of(status: int) -> str:
    """What a status is called."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def _dump(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate that came in an escape
        return orjson.dumps(_printable(body))


def _printable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {key: _printable(item) for key, item in value.items()}
        case _:
            return value


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem. What nobody foresaw is left to `api.edge.middleware`."""
    app.add_exception_handler(ProblemError, _known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(StoreUnavailableError, _store)


def response_for(error: Exception, scope: Any) -> Response:
    """The response to an error of a request (its ASGI scope), also one that nobody foresaw: that
    one is logged, not told."""
    named = call_of(scope).name
    match error:
        case ProblemError():
            return error.response(named)
        case HTTPException():
            return _http_response(error, named)
        case RecursionError():  # only what came from outside is nested as deep
            return InvalidParameterError.of("body", "nested too deep").response(named)
        case StoreUnavailableError():
            log.warning("store_unavailable", error=str(error))
            return UnavailableError("store-unavailable", "Redis does not answer").response(named)
        case _:
            log.error("request_failed", exc_info=error)
            detail = "The server failed; its log says why, by this request_id."
            return problem(500, detail, request_id=named)


async def _known(request: Request, error: Exception) -> Response:
    return response_for(error, request.scope)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        error = HTTPException(405, headers={"Allow": ", ".join(_methods(request))})
    return _http_response(error, call_of(request.scope).name, request.url.path)


def _methods(request: Request) -> list[str]:
    """What may be done at a path, by all routes, however they are nested: the framework names the
    methods of one. `api.edge.middleware` answers a HEAD wherever there is a GET."""
    asked = {
        "type": "http",
        "path": request.scope["path"],
        "root_path": request.scope.get("root_path", ""),
        "headers": [],
        "app": request.app,
    }
    found: dict[str, str] = {}
    for method in METHODS:
        for route in _leaves(request.app.router.routes):
            if route.matches({**asked, "method": method})[0] is Match.FULL:
                found[method] = route.path
                break
    # An id may hold anything, slashes too: what goes on after one is not for the id's own route.
    closest = max(map(len, found.values()), default=0)
    found = {method: path for method, path in found.items() if len(path) == closest}
    if "GET" in found:
        found["HEAD"] = ""
    return sorted(found)


def _leaves(routes: Sequence[Any]) -> Iterator[Any]:
    """The routes themselves, however the routers that have them are nested."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from _leaves(inner.routes)


def _http_response(error: HTTPException, named: str, path: str = "") -> Response:
    match error.status_code:
        case 404:
            detail = f"Nothing is at {path[:200]!r}; /docs lists what there is."
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            detail = f"This method does not apply here; allowed: {allowed or 'see /docs'}."
        case 413:
            return too_large().response(named)
        case _:
            detail = str(error.detail)
    return problem(error.status_code, detail, headers=error.headers, request_id=named)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return InvalidParameterError(
        [
            {
                "name": ".".join(map(str, fault["loc"][1:])) or "body",
                "detail": str(fault["msg"]).removeprefix("Value error, "),
            }
            for fault in error.errors()
        ]
    ).response(call_of(request.scope).name)


async def _store(request: Request, error: Exception) -> Response:
    return response_for(error, request.scope)


def too_large(limit: int | None = None) -> ProblemError:
    """A body over the limit."""
    most = "" if limit is None else f"; at most {limit:,} bytes are accepted"
    return ProblemError(413, "body-too-large", f"The body is too long{most}.")
