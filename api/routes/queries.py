"""`/v1/queries`: the search bar of a video, one at a time or many."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.answering.forms import Ask
from api.edge.cors import Cors
from api.edge.middleware import FastPath, Route, arrival
from api.http.auth import ApiKey
from api.http.calls import call_of
from api.http.examples import ANSWER, FALLBACK
from api.http.names import name_of, part_of, strange
from api.http.problems import InvalidParameterError
from api.http.schemas import (
    ID_RULE,
    BatchRequest,
    PairRequest,
    are_in_ids,
    content,
    id_schema,
    is_id,
    problems,
    reference,
    responses,
)
from api.routes.deps import documented_keys
from api.services import Services
from onebar.gating.repertoire import STRICTNESS
from onebar.gating.rules import LANGUAGES
from onebar.gating.wants import Wants, wants_of
from onebar.records import Pair
from onebar.settings import Settings

PATH = "/v1/queries"
MAX_BODY = 1_000_000


class QueriesEndpoint:
    """Answers `GET` and `POST /v1/queries` without a framework: the paths that have to be fast.

    Parameters are read without a model, and a hit is sent as the cache keeps it.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        settings = services.settings
        self._max_k = settings.k
        self._max_budget_ms = settings.max_budget_ms

    def single(self, scope: Any, receive: Any, arrived: float) -> Awaitable[bytes]:
        """The answer for one pair, named in the query string."""
        access = self._services.access
        key = access.admit(scope, "read")
        pair, k, budget_ms, wants = self.parameters(scope["query_string"])
        if self._services.pseudonyms:
            pair = self._services.pair(*pair)
        answerer = self._services.answerer
        named = call_of(scope).made
        ask = answerer.ask(arrived, k=k, budget_ms=budget_ms, wants=wants, named=named)
        if access.limiter is not None:
            return self._limited(scope, key, pair, ask)
        return answerer.one(pair, ask)

    async def _limited(self, scope: Any, key: ApiKey, pair: Pair, ask: Ask) -> bytes:
        await self._services.access.limit(scope, key)
        return await self._services.answerer.one(pair, ask)

    async def batch(self, scope: Any, receive: Any, arrived: float) -> bytes:
        """Up to 256 pairs, answered in order by one deadline for all of them."""
        services = self._services
        key = services.access.admit(scope, "read")
        if scope["query_string"] and (faults := strange(scope["query_string"], ())):
            raise InvalidParameterError(faults)
        await services.access.limit(scope, key)
        with services.room.request():
            async with services.bodies.read(scope, receive, MAX_BODY) as body:
                batch = self.requests(body)
                await services.access.owe(scope, key, len(batch.requests) - 1)
                pairs = [(item.video_id, item.user_id or None) for item in batch.requests]
                if services.pseudonyms:
                    pairs = [services.pair(*pair) for pair in pairs]
                answerer = services.answerer
                ask = answerer.ask(
                    arrived, k=batch.k, budget_ms=batch.budget_ms, wants=wanted_of(batch)
                )
                return b'{"results":%b}' % await answerer.many(pairs, ask)

    def requests(self, body: bytes) -> BatchRequest:
        """The pairs asked for. Raises `InvalidParameterError` naming each fault."""
        try:
            batch = _read_batch(body)
        except msgspec.ValidationError as error:
            raise InvalidParameterError.of(*_wrong(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidParameterError.of("body", f"not JSON: {_fault(body, error)}") from None
        faults = []
        ids = [item.video_id for item in batch.requests]
        ids += [item.user_id for item in batch.requests if item.user_id]
        if not are_in_ids("".join(ids)):
            faults += [
                {"name": f"requests[{at}].{name}", "detail": ID_RULE}
                for at, item in enumerate(batch.requests)
                for name in ("video_id", "user_id")
                if not are_in_ids(getattr(item, name) or "")
            ]
        if batch.k is not None and batch.k > self._max_k:
            detail = f"expected a whole number from 1 to {self._max_k}"
            faults.append({"name": "k", "detail": detail})
        if batch.budget_ms is not None and not batch.budget_ms <= self._max_budget_ms:
            detail = f"expected milliseconds from 0 to {self._max_budget_ms:g}"
            faults.append({"name": "budget_ms", "detail": detail})
        if faults:
            raise InvalidParameterError(faults)
        return batch

    def parameters(self, query: bytes) -> Parameters:
        """The pair, k, the budget, and what else is wanted. Raises `InvalidParameterError` naming
        each fault."""
        plain = _PLAIN.fullmatch(query)
        if plain is not None:
            video, user = plain.groups()
            return (video.decode(), None if user is None else user.decode()), None, None, None
        values: dict[bytes, bytes] = {}
        listed: dict[str, list[str]] = {}
        faults: list[dict[str, str]] = []
        strangers = False
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if name not in _KNOWN and (name := name_of(part).encode()) not in _KNOWN:
                strangers = True
                continue
            if name in _LISTS:
                text = _decoded(value, name.decode(), faults)
                listed.setdefault(name.decode(), []).append(text or "")
                continue
            if name in values:
                faults.append({"name": name.decode(), "detail": "named more than once"})
            values[name] = value
        if strangers:
            faults += strange(query, _NAMES)
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
        wants = None
        if listed or not values.keys().isdisjoint(_WANTS):
            wants = _wants(listed, values, faults)
        if faults:
            raise InvalidParameterError(faults)
        assert video_id
        return (video_id, user_id), k, budget_ms, wants


Parameters = tuple[Pair, int | None, float | None, Wants | None]
_LISTS = frozenset((b"exclude", b"languages"))
"""May be named more than once."""
_WANTS = frozenset((b"max_length", b"diversity", b"constrain"))
_NUMBERS = {
    b"max_length": (r"\d{1,9}", "expected a whole number from 1 to 10000"),
    b"diversity": (r"\d{1,9}(\.\d{1,40})?([eE][+-]?\d{1,3})?", "expected a number from 0 to 1"),
}
_CHOICES = {"languages": LANGUAGES, "constrain": tuple(STRICTNESS)}
_KNOWN = frozenset((b"video_id", b"user_id", b"k", b"budget_ms")) | _LISTS | _WANTS
_NAMES = frozenset(name.decode() for name in _KNOWN)


def _wants(
    listed: dict[str, list[str]], values: dict[bytes, bytes], faults: list[dict[str, str]]
) -> Wants | None:
    """As a batch has it: the same checks, by the same record."""
    fields: dict[str, Any] = dict(listed)
    for name in _WANTS & values.keys():
        text = values[name].decode("latin-1")
        if name in _NUMBERS:
            pattern, expected = _NUMBERS[name]
            if re.fullmatch(pattern, text) is None:
                faults.append({"name": name.decode(), "detail": expected})
                return None
            fields[name.decode()] = int(text) if text.isdigit() else float(text)
        else:
            fields[name.decode()] = text
    try:
        asked = msgspec.convert({"requests": [{"video_id": "-"}], **fields}, BatchRequest)
    except msgspec.ValidationError as error:
        part, detail = _wrong(error)
        faults.append({"name": part.partition("[")[0], "detail": detail})
        return None
    return wanted_of(asked)


def _wrong(error: msgspec.ValidationError) -> tuple[str, str]:
    """The part of a batch that is wrong, and what was expected."""
    name, detail = part_of(error, (BatchRequest, PairRequest))
    if detail.startswith("Invalid enum value") and (of := _CHOICES.get(name.partition("[")[0])):
        detail = f"expected one of {', '.join(of)}, got {detail.rpartition(' ')[2]}"
    return name, detail


def wanted_of(batch: BatchRequest) -> Wants | None:
    """What a batch asks for beside its pairs; None where it asks for nothing in particular."""
    return wants_of(
        *(batch.exclude, batch.languages, batch.max_length, batch.diversity, batch.constrain)
    )


def _fault(body: bytes, found: Exception) -> str:
    """What is wrong with JSON, in better words than msgspec's where there are any."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return str(error)
    return str(found)


_PLAIN = re.compile(rb"video_id=([\w.~:-]{1,256})(?:&user_id=([\w.~:-]{1,256}))?")
"""What nearly every request looks like: ids that need no decoding, and nothing else."""
_read_batch = msgspec.json.Decoder(BatchRequest).decode


def _text(value: bytes | None, name: str, faults: list[dict[str, str]]) -> str | None:
    """A decoded id; an empty one is for the caller to judge. None where it is missing or wrong."""
    if value is None:
        return None
    text = _decoded(value, name, faults)
    if text and not is_id(text):
        faults.append({"name": name, "detail": ID_RULE})
        return None
    return text


def _decoded(value: bytes, name: str, faults: list[dict[str, str]]) -> str | None:
    if b"+" in value or b"%" in value:
        value = unquote_to_bytes(value.replace(b"+", b" "))
    try:
        return value.decode()
    except UnicodeDecodeError:
        faults.append({"name": name, "detail": "not UTF-8"})
        return None


def _integer(value: bytes, most: int, faults: list[dict[str, str]]) -> int | None:
    if value.isdigit() and len(value) <= 3 and 1 <= (number := int(value)) <= most:
        return number
    faults.append({"name": "k", "detail": f"expected a whole number from 1 to {most}"})
    return None


def _budget(value: bytes, most: float, faults: list[dict[str, str]]) -> float | None:
    try:
        number = math.nan if b"_" in value else float(value)  # 1_0 is a number to Python alone
    except ValueError:
        number = math.nan
    if 0 <= number <= most:
        return number
    faults.append({"name": "budget_ms", "detail": f"expected milliseconds from 0 to {most:g}"})
    return None


def routes(endpoint: QueriesEndpoint, settings: Settings) -> APIRouter:
    """Both routes, for the framework. The endpoint itself asks for the scope."""
    router = APIRouter(tags=["queries"], dependencies=documented_keys())

    @router.get(
        PATH,
        summary="Queries for one video",
        operation_id="get_queries",
        response_class=Response,
        responses=_SINGLE,
        openapi_extra={"parameters": _parameters(settings)},
    )
    async def get_queries(request: Request) -> Response:
        """The queries for a video, from the cache, else generated within the budget, else the best
        fallback; never later than the budget, and the answer says which. A video nobody has heard
        of is answered too: with nothing, and `reason: unknown_video`."""
        scope = request.scope
        scope["onebar.plain"] = True
        return _json(await endpoint.single(scope, request.receive, arrival(scope)))

    @router.post(
        PATH,
        summary="Queries for many videos",
        operation_id="post_queries",
        response_class=Response,
        responses=_BATCH,
        openapi_extra={"requestBody": _BATCH_BODY},
    )
    async def post_queries(request: Request) -> Response:
        """Up to 256 pairs, answered in order by one deadline for all of them."""
        scope = request.scope
        scope["onebar.plain"] = not settings.api_gzip_lookups
        return _json(await endpoint.batch(scope, request.receive, arrival(scope)))

    return router


def fast_paths(endpoint: QueriesEndpoint, cors: Cors, settings: Settings) -> dict[Route, FastPath]:
    """The same routes without the framework. An answer for one pair is never compressed."""
    get, post = ("GET", PATH), ("POST", PATH)
    return {
        get: FastPath(get, endpoint.single, cors, gzip=False),
        post: FastPath(post, endpoint.batch, cors, gzip=settings.api_gzip_lookups),
    }


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


_SINGLE: dict[int | str, Any] = {
    **responses(200, "Answer", "The answer."),
    200: {
        "description": "The answer.",
        "content": {
            "application/json": {
                "schema": reference("Answer"),
                "examples": {"cached": {"value": ANSWER}, "fallback": {"value": FALLBACK}},
            }
        },
    },
}
_BATCH: dict[int | str, Any] = {
    **responses(200, "BatchAnswer", "The answers, in order."),
    **problems(408, 413, 415),
}
_BATCH_BODY = {
    "required": True,
    "content": content("BatchRequest"),
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

    return [
        parameter("video_id", "The video.", id_schema(), "v42", required=True),
        parameter(
            "user_id",
            "Who watches; left out or empty: nobody in particular.",
            id_schema(least=0),
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
            "cache or fall back; the look into the cache may then take as long as usual.",
            {
                "type": "number",
                "minimum": 0,
                "maximum": settings.max_budget_ms,
                "default": settings.budget_ms,
            },
            settings.budget_ms,
        ),
        parameter(
            "exclude",
            "A query that is not wanted: tapped already, ordered. May be named again.",
            {"type": "array", "items": {"type": "string"}, "maxItems": 1000},
            ["hiking boots"],
        ),
        parameter(
            "languages",
            "Only queries in this language, by their script. May be named again.",
            {"type": "array", "items": {"type": "string", "enum": list(LANGUAGES)}},
            ["en", "zh"],
        ),
        parameter(
            "max_length",
            "Only queries of at most so many characters.",
            {"type": "integer", "minimum": 1, "maximum": 10_000},
            24,
        ),
        parameter(
            "diversity",
            "A query that shares more than 1 less this of its words with one before it is left "
            "out.",
            {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
            0.3,
        ),
        parameter(
            "constrain",
            "How strictly queries are of the repertoire: not at all, those of it first, or no "
            "others. Never less than the server is set to.",
            {"type": "string", "enum": list(STRICTNESS)},
            "only",
        ),
    ]
