"""Why a bar says what it says (`/v1/explanation`), and what changes it (`/v1/watch`): for people
who look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from api.http.examples import WATCHED
from api.http.problems import ProblemError, UnavailableError
from api.http.schemas import Answer, problems, reference, responses
from api.routes.deps import ServicesDep, UserQuery, VideoQuery, json_response, needs, store_within
from api.services import Services
from api.watching.explain import Explanation, explain
from api.watching.watch import Told
from onebar.errors import OneBarError
from onebar.records import Pair

TIMEOUT_S = 6.0

router = APIRouter(tags=["state"], dependencies=[needs("read")])


class ExplanationAnswer(msgspec.Struct, frozen=True):
    """What is served to a pair now (`answer`), and what a list made now would stand on."""

    video_id: str
    user_id: str | None
    model: str
    answer: Answer
    explanation: Explanation


TYPES: tuple[Any, ...] = (ExplanationAnswer, Told)


@router.get(
    "/v1/explanation",
    summary="Why these queries",
    operation_id="get_explanation",
    response_class=Response,
    responses={
        **responses(200, "ExplanationAnswer", "The answer, taken apart."),
        **problems(503),
        404: {**problems(422)[422], "description": "Nothing is known of the video."},
    },
)
async def get_explanation(
    services: ServicesDep, video_id: VideoQuery, user_id: UserQuery = None
) -> Response:
    """The prompt by its fields T, M, A and H; the anchors with weight and source; all candidates
    with what named them and their scores; what was left out or held back, and why. The model is
    asked once; nothing is counted or written."""
    pair = services.pair(video_id, user_id)
    async with store_within(TIMEOUT_S):
        found = await _explained(services, pair)
    return json_response(found)


async def _explained(services: Services, pair: Pair) -> ExplanationAnswer:
    recommender = services.model.recommender
    if recommender is None:
        raise UnavailableError(
            "model-unavailable", f"This server has no model now ({services.model.status})."
        )
    counts = await services.store.counts(pair[0])
    [grounding] = await recommender.evidence([pair])
    if not grounding.known:
        raise ProblemError(404, "unknown-video", f"Nothing is known of the video {pair[0]!r}.")
    now = asyncio.get_running_loop().time()
    try:
        beam = await recommender.beam(grounding, deadline=now + TIMEOUT_S - 1)
    except OneBarError as error:
        raise UnavailableError("model-unavailable", f"The model did not answer: {error}") from None
    terms = services.answerer.peek(asyncio.get_running_loop().time())
    answer = await services.answerer.one(pair, terms)
    # In a thread: what takes a few milliseconds for a person is not to hold up a lookup.
    explanation = await asyncio.to_thread(
        explain,
        grounding,
        beam,
        recommender.chosen(grounding, beam),
        recommender.taste,
        services.gate,
        services.settings.k,
        time.time(),
        counts,
    )
    found = msgspec.json.decode(answer, type=Answer)
    return ExplanationAnswer(pair[0], pair[1], recommender.model, found, explanation)


@router.get(
    "/v1/watch",
    summary="A bar as it changes",
    operation_id="get_watch",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events of the name `bar`, each a JSON object.",
            "content": {"text/event-stream": {"schema": reference("Told"), "example": WATCHED}},
        },
        **problems(401, 403, 422, 429, 503),
    },
)
async def get_watch(
    request: Request,
    services: ServicesDep,
    video_id: VideoQuery,
    user_id: UserQuery = None,
    most: Annotated[int | None, Query(ge=1, description="End after so many events.")] = None,
) -> Response:
    """One event at once, and one whenever the evidence, the rules or the model are others: the
    queries as they are now, what they were before, and the lines of evidence that changed. They are
    generated here as an impression would have them generated, and cached. Ends when the server
    does; connect again then. Few can watch a server at a time (503)."""
    if services.watchers.full:
        raise UnavailableError("too-many-watchers", "Too many watch this server already.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.scope.get("onebar.head"):
        most = 0
    lines = _lines(services, services.pair(video_id, user_id), most)
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def _lines(services: Services, pair: Pair, most: int | None) -> AsyncIterator[bytes]:
    if most == 0:
        return
    sent = 0
    async with aclosing(services.watchers.watch(pair)) as telling:
        async for told in telling:
            yield b": still here\n\n" if told is None else _event(told)
            sent += told is not None
            if sent == most:
                return


def _event(told: Told) -> bytes:
    return b"event: bar\ndata: %b\n\n" % msgspec.json.encode(told)
