"""What the operations page shows and does: numbers, dead letters, models. All of it is `admin`."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from msgspec import Struct

from api.console.clicks import ClickRate, click_rates
from api.console.models import ModelsAnswer, ShadowAnswer, list_models, open_registry, shadow
from api.console.numbers import read_numbers
from api.console.targets import Part, ask_all
from api.http.metrics import render
from api.http.names import part_of
from api.http.problems import InvalidParameterError, ProblemError, UnavailableError
from api.http.schemas import Readiness, content, problems, responses
from api.routes.deps import ModelName, ServicesDep, json_body, json_response, needs, store_within
from api.services import Services
from onebar import __version__
from onebar.errors import OneBarError
from onebar.generator.registry import Registry
from onebar.recommending.candidates import Chosen
from onebar.records import Pair
from stream.events import InvalidEventError
from stream.logs.dead_letters import (
    DeadLetter,
    Selection,
    dead_letters,
    drop_dead_letters,
    mend_dead_letter,
    replay_dead_letters,
)

LETTERS_WITHIN_S = 15.0
STORE_WITHIN_S = 3.0
RATED_VIDEOS = 50
SHADOW_VIDEOS = 40
MAX_BODY = 2_000_000

Result = TypeVar("Result")

router = APIRouter(tags=["console"], dependencies=[needs("admin")])


class OperationsAnswer(Struct, frozen=True):
    """The state of all parts at one moment; rates are for the reader to work out from two of
    them. The first part is this API."""

    at: float
    version: str
    readiness: Readiness
    rules: int
    watchers: int
    parts: list[Part]


class ClickRatesAnswer(Struct, frozen=True):
    """The rates over so many videos, those that queries were generated for last."""

    videos: int
    rates: list[ClickRate]


class Letter(Struct, frozen=True):
    """A message set aside: where it came from, why it was, and what it says. `value` is its text,
    null where it had none; bytes that are no UTF-8 are shown as escapes."""

    id: str
    topic: str
    partition: int
    offset: int
    failed_at: float
    reason: str
    bytes: int
    key: str | None
    value: str | None


class LettersAnswer(Struct, frozen=True):
    """The newest dead letters, newest first, of `total` that are not settled."""

    total: int
    letters: list[Letter]


class LetterIds(Struct, frozen=True, forbid_unknown_fields=True):
    """Which letters; `value` mends one of them."""

    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1000)]
    value: str | None = None


class LettersDone(Struct, frozen=True):
    """How many were sent back or dropped, and which were not, with the reason."""

    done: int
    refused: list[dict[str, str]]


_LETTERS_BODY = {"requestBody": {"required": True, "content": content("LetterIds")}}
TYPES: tuple[Any, ...] = (
    OperationsAnswer,
    ClickRatesAnswer,
    LettersAnswer,
    LetterIds,
    LettersDone,
    ModelsAnswer,
    ShadowAnswer,
)


@router.get(
    "/v1/operations",
    summary="The numbers of all parts",
    operation_id="get_operations",
    response_class=Response,
    responses=responses(200, "OperationsAnswer", "What every part counts, and how it is."),
)
async def get_operations(services: ServicesDep) -> Response:
    """What Prometheus scrapes of this API and of the workers that ONEBAR_METRICS_TARGETS names,
    with their health, at this moment."""
    settings = services.settings
    readiness, parts, (body, _) = await asyncio.gather(
        services.health.readiness(),
        ask_all(settings.metrics_targets),
        asyncio.to_thread(render),
    )
    away = {name: getattr(readiness, name) for name in ("kafka", "redis", "model")}
    own = Part(
        "api",
        f"{settings.api_host}:{settings.api_port}",
        up=True,
        fine=readiness.ready,
        problems={name: said for name, said in away.items() if said != "ok"},
        warnings={} if readiness.warning is None else {"model": readiness.warning},
        numbers=await asyncio.to_thread(read_numbers, body.decode()),
    )
    return json_response(
        OperationsAnswer(
            at=time.time(),
            version=__version__,
            readiness=readiness,
            rules=sum(1 for _ in services.gate.rules),
            watchers=services.watchers.count,
            parts=[own, *parts],
        )
    )


@router.get(
    "/v1/click-rates",
    summary="Click rates by whose words",
    operation_id="get_click_rates",
    response_class=Response,
    responses={**responses(200, "ClickRatesAnswer", "The rates."), **problems(503)},
)
async def get_click_rates(services: ServicesDep) -> Response:
    """Of the queries that were shown under the videos of this moment: how often those were tapped
    that the video's own text says, and those that people or the model brought."""
    async with store_within(STORE_WITHIN_S):
        recent = await services.store.recent_videos(RATED_VIDEOS)
        ids = [video_id for video_id, _ in recent]
        known, counts = await asyncio.gather(
            services.store.features([(each, None) for each in ids]),
            asyncio.gather(*map(services.store.counts, ids)),
        )
    rates = await asyncio.to_thread(click_rates, list(zip(known, counts, strict=True)))
    return json_response(ClickRatesAnswer(len(ids), rates))


# Dead letters ----------------------------------------------------------------------------------


@router.get(
    "/v1/dead-letters",
    summary="What could not be processed",
    operation_id="get_dead_letters",
    response_class=Response,
    responses={
        **responses(200, "LettersAnswer", "The newest that are not settled."),
        **problems(503),
    },
)
async def get_dead_letters(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=500, description="Most letters wanted.")] = 50,
    reason: Annotated[str, Query(max_length=200, description="Part of the reason.")] = "",
) -> Response:
    """Messages set aside, with their reason and their text, newest first. The whole topic is read
    for it, in fifteen seconds at most."""
    selection = Selection(reason=reason)
    total, letters = await _within(_newest(services, selection, limit))
    return json_response(LettersAnswer(total, [_letter(letter) for letter in letters]))


async def _newest(
    services: Services, selection: Selection, limit: int
) -> tuple[int, list[DeadLetter]]:
    kept: list[tuple[float, tuple[int, int], DeadLetter]] = []
    total = 0
    async for letter in dead_letters(services.settings, selection):
        total += 1
        entry = (letter.failed_at, letter.number, letter)
        (heapq.heappush if len(kept) < limit else heapq.heappushpop)(kept, entry)
    return total, [letter for *_, letter in sorted(kept, key=lambda each: each[:2], reverse=True)]


@router.post(
    "/v1/dead-letters/replay",
    summary="Send dead letters back",
    operation_id="post_dead_letters_replay",
    response_class=Response,
    responses={**responses(200, "LettersDone", "What was sent."), **problems(404, 408, 413, 415)},
    openapi_extra=_LETTERS_BODY,
)
async def replay_letters(request: Request, services: ServicesDep) -> Response:
    """Send the letters named to the topics they came from; with `value` one of them, mended. What
    fails again is a dead letter again."""
    wanted = await _ids(request)
    settings, selection = services.settings, Selection(ids=frozenset(wanted.ids))
    if wanted.value is None:
        done = await _within(replay_dead_letters(settings, selection=selection))
        refused = [{"id": each.id, "why": each.why} for each in done.refused]
        return json_response(LettersDone(done.sent, refused))
    if len(wanted.ids) != 1:
        raise InvalidParameterError.of("ids", "a mended value is sent for one letter")
    _, letters = await _within(_newest(services, selection, 1))
    if not letters:
        raise ProblemError(404, "unknown-letter", f"There is no dead letter {wanted.ids[0]!r}.")
    try:
        await _within(mend_dead_letter(settings, letters[0], wanted.value.encode()))
    except InvalidEventError as error:
        raise InvalidParameterError.of("value", str(error)) from None
    return json_response(LettersDone(1, []))


@router.post(
    "/v1/dead-letters/drop",
    summary="Be done with dead letters",
    operation_id="post_dead_letters_drop",
    response_class=Response,
    responses={**responses(200, "LettersDone", "What was dropped."), **problems(408, 413, 415)},
    openapi_extra=_LETTERS_BODY,
)
async def drop_letters(request: Request, services: ServicesDep) -> Response:
    """Settle the letters named without sending them anywhere."""
    wanted = await _ids(request)
    selection = Selection(ids=frozenset(wanted.ids))
    return json_response(
        LettersDone(await _within(drop_dead_letters(services.settings, selection)), [])
    )


async def _ids(request: Request) -> LetterIds:
    try:
        async with json_body(request, MAX_BODY) as value:
            return msgspec.convert(value, LetterIds)
    except msgspec.ValidationError as error:
        raise InvalidParameterError.of(*part_of(error, (LetterIds,))) from None


def _letter(letter: DeadLetter) -> Letter:
    def text(value: bytes) -> str:
        return value.decode("utf-8", "backslashreplace")

    return Letter(
        id=letter.id,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        failed_at=letter.failed_at,
        reason=letter.reason,
        bytes=len(letter.value),
        key=None if letter.key is None else text(letter.key),
        value=None if letter.null else text(letter.value[:20_000]),
    )


async def _within(work: Awaitable[Result]) -> Result:
    """Bounded; Kafka's being away is a 503. An `InvalidEventError` is the caller's."""
    try:
        async with asyncio.timeout(LETTERS_WITHIN_S):
            return await work
    except InvalidEventError:
        raise
    except TimeoutError:
        raise UnavailableError(
            "kafka-unavailable", f"Kafka was not done within {LETTERS_WITHIN_S:g} s."
        ) from None
    except OneBarError as error:
        raise UnavailableError("kafka-unavailable", str(error)) from None


# Models ----------------------------------------------------------------------------------------


@router.get(
    "/v1/models",
    summary="The models",
    operation_id="get_models",
    response_class=Response,
    responses={
        **responses(200, "ModelsAnswer", "What serves, and what the registry holds."),
        **problems(409),
    },
)
async def get_models(services: ServicesDep) -> Response:
    """The checkpoint that answers here, and those of the registry with their history."""
    live = services.model.live
    registry = open_registry(services.settings)
    return json_response(await _registry(list_models, registry, live.name, live.warning))


@router.post(
    "/v1/models/rollback",
    summary="Go back to the model before",
    operation_id="post_models_rollback",
    response_class=Response,
    responses={**responses(200, "ModelsAnswer", "As it is now."), **problems(409)},
)
async def rollback_model(services: ServicesDep) -> Response:
    """Make the checkpoint current that was so before; all that follow the registry go on to it."""
    await _registry(_needed(services).rollback)
    return await get_models(services)


@router.post(
    "/v1/models/{name}/promote",
    summary="Have a model serve",
    operation_id="post_model_promote",
    response_class=Response,
    responses={**responses(200, "ModelsAnswer", "As it is now."), **problems(409)},
)
async def promote_model(services: ServicesDep, name: ModelName) -> Response:
    """Make a checkpoint current: it is hashed, loaded and asked one prompt first, and where that
    fails nothing changes."""
    await _registry(_needed(services).promote, name)
    return await get_models(services)


@router.post(
    "/v1/models/{name}/shadow",
    summary="What another model would say",
    operation_id="post_model_shadow",
    response_class=Response,
    responses={**responses(200, "ShadowAnswer", "What would change."), **problems(409)},
)
async def shadow_model(services: ServicesDep, name: ModelName) -> Response:
    """Load a checkpoint beside what serves, have it answer the videos of this moment, compare, and
    free it. Nothing of it is shown to anybody."""
    registry = _needed(services)
    recommender = services.model.recommender
    if recommender is None:
        raise UnavailableError("model-unavailable", "This server has no model to compare with.")
    recent = await services.store.recent_videos(SHADOW_VIDEOS)
    pairs: list[Pair] = [(video_id, None) for video_id, _ in recent]
    groundings = [each for each in await recommender.evidence(pairs) if each.unfit is None]
    now: list[Chosen] = []
    began = time.perf_counter()
    for each in groundings:
        beam = await recommender.beam(each)
        now.append(recommender.chosen(each, beam))
    now_ms = (time.perf_counter() - began) * 1000 / max(1, len(groundings))
    found = await _registry(shadow, services.settings, registry, name, groundings, now, now_ms)
    return json_response(found)


def _needed(services: Services) -> Registry:
    registry = open_registry(services.settings)
    if registry is None:
        raise ProblemError(
            409, "no-registry", "This server follows no registry: set ONEBAR_REGISTRY."
        )
    return registry


async def _registry(work: Any, *arguments: Any) -> Any:
    """In a thread; what the registry refuses is a 409 with its reason."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except OneBarError as error:
        raise ProblemError(409, "registry-refused", str(error)) from None
