"""`/v1/queries`: the search bar of a video, one at a time or many."""

from __future__ import annotations

import asyncio
import math
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from api.deps import ServicesDep, needs, read_json
from api.problems import InvalidParameterError
from api.schemas import ID_RULE, BatchRequest, content, is_id, problems, reference, responses
from api.services import Services
from onebar.recommend import Pair
from onebar.settings import Settings

PATH = "/v1/queries"
MAX_BODY = 1_000_000

_EXAMPLE = {
    "video_id": "v42",
    "queries": [{"text": "waterproof hiking boots", "score": -0.41}],
    "rejected": False,
    "model": "demo-1a2b3c4d",
    "evidence_digest": "9f86d081884c7d659a2feaa0c55ad015",
    "generated_at": 1760000000.25,
    "request_id": "5f2d1c0b9a8e7d6c5b4a3928",
    "user_id": "u7",
    "source": "cache",
    "age_s": 12.5,
}
_FALLBACK = {
    **_EXAMPLE,
    "queries": [],
    "source": "fallback",
    "model": None,
    "evidence_digest": None,
    "generated_at": None,
    "age_s": None,
    "fallback": "empty",
    "reason": "unknown_video",
}


class QueriesEndpoint:
    """`GET /v1/queries` as a bare ASGI application: the path that has to be fast.

    Parameters are read without a model, and a hit is sent as the cache keeps it.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        settings = services.settings
        self._max_k = settings.k
        self._max_budget_ms = settings.max_budget_ms

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        arrived = scope.get("onebar.arrived") or asyncio.get_running_loop().time()
        self._services.gate.admit(scope, "read")
        pair, k, budget_ms = self.parameters(scope["query_string"])
        answerer = self._services.answerer
        body = await answerer.one(pair, answerer.ask(arrived, k=k, budget_ms=budget_ms))
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                    *HEADERS,
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def parameters(self, query: bytes) -> tuple[Pair, int | None, float | None]:
        """The pair, k and the budget. Raises `InvalidParameterError` naming each fault."""
        values: dict[bytes, bytes] = {}
        faults: list[dict[str, str]] = []
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if name not in _KNOWN:
                continue
            if name in values:
                faults.append({"name": name.decode(), "detail": "named more than once"})
            values[name] = value
        video_id = _text(values.get(b"video_id"), "video_id", faults)
        user_id = _text(values.get(b"user_id"), "user_id", faults) or None
        if b"video_id" not in values:
            faults.append({"name": "video_id", "detail": "missing: which video is it for?"})
        elif video_id == "":
            faults.append({"name": "video_id", "detail": ID_RULE})
        k = None
        if b"k" in values:
            k = _integer(values[b"k"], self._max_k, faults)
        budget_ms = None
        if b"budget_ms" in values:
            budget_ms = _budget(values[b"budget_ms"], self._max_budget_ms, faults)
        if faults:
            raise InvalidParameterError(faults)
        assert video_id
        return (video_id, user_id), k, budget_ms


_KNOWN = frozenset((b"video_id", b"user_id", b"k", b"budget_ms"))
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


def _text(value: bytes | None, name: str, faults: list[dict[str, str]]) -> str | None:
    """A decoded id; an empty one is for the caller to judge. None where it is missing or wrong."""
    if value is None:
        return None
    if b"+" in value or b"%" in value:
        value = unquote_to_bytes(value.replace(b"+", b" "))
    try:
        text = value.decode()
    except UnicodeDecodeError:
        faults.append({"name": name, "detail": "not UTF-8"})
        return None
    if text and not is_id(text):
        faults.append({"name": name, "detail": ID_RULE})
        return None
    return text


def _integer(value: bytes, most: int, faults: list[dict[str, str]]) -> int | None:
    if value.isdigit() and len(value) <= 3 and 1 <= (number := int(value)) <= most:
        return number
    faults.append({"name": "k", "detail": f"expected a whole number from 1 to {most}"})
    return None


def _budget(value: bytes, most: float, faults: list[dict[str, str]]) -> float | None:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if 0 <= number <= most:
        return number
    faults.append({"name": "budget_ms", "detail": f"expected milliseconds from 0 to {most:g}"})
    return None


async def get_queries() -> Response:
    """The queries for a video, from the cache, else generated within the budget, else the best
    fallback; never later than the budget, and the answer says which. A video nobody has heard of
    is answered too: with nothing, and `reason: unknown_video`."""
    raise NotImplementedError("documents the route; `QueriesEndpoint` answers it")


def add_single(app: FastAPI, endpoint: QueriesEndpoint, settings: Settings) -> None:
    """Put the bare endpoint under the route that documents it."""
    app.add_api_route(
        PATH,
        get_queries,
        methods=["GET"],
        tags=["queries"],
        summary="Queries for one video",
        operation_id="get_queries",
        dependencies=[needs("read")],
        response_class=Response,
        responses=_SINGLE,
        openapi_extra={"parameters": _parameters(settings)},
    )
    route = app.router.routes[-1]
    assert isinstance(route, APIRoute)
    route.app = endpoint


_SINGLE: dict[int | str, Any] = {
    **responses(200, "Answer", "The answer."),
    200: {
        "description": "The answer.",
        "content": {
            "application/json": {
                "schema": reference("Answer"),
                "examples": {"cached": {"value": _EXAMPLE}, "fallback": {"value": _FALLBACK}},
            }
        },
    },
}


def _parameters(settings: Settings) -> list[dict[str, Any]]:
    def parameter(
        name: str, description: str, schema: dict[str, Any], example: Any, required: bool = False
    ) -> dict[str, Any]:
        return {
            "name": name,
            "in": "query",
            "required": required,
            "description": description,
            "schema": schema,
            "example": example,
        }

    entity: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 256}
    return [
        parameter("video_id", "The video.", entity, "v42", required=True),
        parameter(
            "user_id",
            "Who watches; left out or empty: nobody in particular.",
            {**entity, "minLength": 0},
            "u7",
        ),
        parameter(
            "k",
            "Most queries wanted.",
            {"type": "integer", "minimum": 1, "maximum": settings.k, "default": settings.k},
            settings.k,
        ),
        parameter(
            "budget_ms",
            "How long the answer may take, in milliseconds. 0: generate nothing, answer from the "
            "cache or fall back.",
            {
                "type": "number",
                "minimum": 0,
                "maximum": settings.max_budget_ms,
                "default": settings.budget_ms,
            },
            settings.budget_ms,
        ),
    ]


router = APIRouter(tags=["queries"])


@router.post(
    PATH,
    summary="Queries for many videos",
    operation_id="post_queries",
    dependencies=[needs("read")],
    response_class=Response,
    responses={
        **responses(200, "BatchAnswer", "The answers, in order.", {"results": [_EXAMPLE]}),
        **problems(413, 415),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": content(
                "BatchRequest",
                {
                    "requests": [{"video_id": "v42", "user_id": "u7"}, {"video_id": "v43"}],
                    "k": 8,
                    "budget_ms": 80,
                },
            ),
        }
    },
)
async def post_queries(request: Request, services: ServicesDep) -> Response:
    """Up to 256 pairs, answered in order by one deadline for all of them."""
    arrived = request.scope.get("onebar.arrived") or asyncio.get_running_loop().time()
    batch = _batch(await read_json(request, MAX_BODY), services)
    pairs = [(item.video_id, item.user_id or None) for item in batch.requests]
    answerer = services.answerer
    ask = answerer.ask(arrived, k=batch.k, budget_ms=batch.budget_ms)
    answers = await answerer.many(pairs, ask)
    return Response(b'{"results":[%b]}' % b",".join(answers), media_type="application/json")


def _batch(value: Any, services: Services) -> BatchRequest:
    try:
        batch = msgspec.convert(value, BatchRequest)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at `$")
        name = path.rstrip("`").lstrip(".") or "body"
        raise InvalidParameterError.of(name, detail) from None
    settings = services.settings
    faults = []
    if batch.k is not None and batch.k > settings.k:
        faults.append({"name": "k", "detail": f"expected a whole number from 1 to {settings.k}"})
    if batch.budget_ms is not None and not batch.budget_ms <= settings.max_budget_ms:
        most = settings.max_budget_ms
        faults.append({"name": "budget_ms", "detail": f"expected milliseconds from 0 to {most:g}"})
    if faults:
        raise InvalidParameterError(faults)
    return batch
