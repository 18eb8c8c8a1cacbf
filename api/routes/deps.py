"""What handlers are given, how they read a request's body and the store, and how they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import orjson
import structlog
from fastapi import Depends, Query, Request, Security
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.responses import Response
from fastapi.security.base import SecurityBase
from pydantic import AfterValidator, WithJsonSchema

from api.http.auth import Scope
from api.http.problems import InvalidParameterError, UnavailableError
from api.http.schemas import ID_RULE, id_schema, is_id
from api.services import Services
from feature_store.redis.client import StoreUnavailableError

log = structlog.get_logger(__name__)


def services(request: Request) -> Services:
    """The services of this app."""
    found: Services = request.app.state.services
    return found


async def _services(request: Request) -> Services:
    # A plain function would be handed to a thread for each request.
    return services(request)


ServicesDep = Annotated[Services, Depends(_services)]


class _Bearer(SecurityBase):
    """Only for the OpenAPI document: `api.http.access` reads the header."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="`Authorization: Bearer KEY`")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> None:
        return None


class _Header(SecurityBase):
    def __init__(self) -> None:
        # `in` is a keyword of the language, and the field has no other name.
        self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": "X-API-Key"})
        self.scheme_name = "header"

    async def __call__(self, request: Request) -> None:
        return None


_BEARER, _HEADER = _Bearer(), _Header()


def documented_keys() -> list[Any]:
    """Dependencies that say in the document that a key is needed, and check nothing."""
    return [Security(_BEARER), Security(_HEADER)]


def needs(scope: Scope) -> Any:
    """A dependency that admits only keys with this scope."""

    async def admit(
        request: Request,
        _bearer: Annotated[None, Security(_BEARER)],
        _header: Annotated[None, Security(_HEADER)],
    ) -> None:
        access = services(request).access
        await access.limit(request.scope, access.admit(request.scope, scope))

    return Depends(admit)


def _check_id(text: str) -> str:
    if not is_id(text):
        raise ValueError(ID_RULE)
    return text


def _check_user(text: str | None) -> str | None:
    return _check_id(text) if text else None


_ID = Annotated[str, AfterValidator(_check_id), WithJsonSchema(id_schema())]
VideoId = _ID
UserId = _ID
RuleId = _ID
ModelName = _ID
VideoQuery = Annotated[VideoId, Query(description="The video.", examples=["v42"])]
UserQuery = Annotated[
    str | None,
    AfterValidator(_check_user),
    WithJsonSchema(id_schema(least=0)),
    Query(description="Who watches; left out or empty: nobody in particular.", examples=["u7"]),
]


def json_response(value: Any) -> Response:
    """A record of ours as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


@asynccontextmanager
async def store_within(seconds: float) -> AsyncIterator[None]:
    """Reads of the store, bounded. Raises `UnavailableError` where it does not answer in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UnavailableError("store-unavailable", "Redis does not answer.") from error
    except StoreUnavailableError as error:
        log.warning("store_unavailable", error=str(error))
        raise UnavailableError("store-unavailable", "Redis does not answer.") from error


@asynccontextmanager
async def json_body(request: Request, limit: int) -> AsyncIterator[Any]:
    """The JSON value in the body, which has its room up to the end of the block. Raises
    `ProblemError`: what `Bodies.read` does, 422 for no JSON."""
    async with services(request).bodies.read(request.scope, request.receive, limit) as body:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidParameterError.of("body", f"not JSON: {error}") from None
        yield value
