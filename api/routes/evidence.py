"""What is known: the evidence of a pair, and the history of a user."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from api.http.problems import ProblemError
from api.http.schemas import (
    EvidenceAnswer,
    HistoryAnswer,
    problems,
    responses,
)
from api.routes.deps import (
    ServicesDep,
    UserId,
    UserQuery,
    VideoQuery,
    json_response,
    needs,
    store_within,
)
from onebar.evidence.evidence import assemble
from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.records import Features, Pair

READ_TIMEOUT_S = 2.0

router = APIRouter(tags=["state"], dependencies=[needs("read")])


@router.get(
    "/v1/evidence",
    summary="What a generation would stand on",
    operation_id="get_evidence",
    response_class=Response,
    responses={
        **responses(200, "EvidenceAnswer", "The prompt and its parts."),
        **problems(503),
        404: {**problems(422)[422], "description": "Nothing is known of the video."},
    },
)
async def get_evidence(
    services: ServicesDep, video_id: VideoQuery, user_id: UserQuery = None
) -> Response:
    """The evidence E = (T, M, A, H) of a pair and the prompt made of it, as a generation now
    would see them. `digest` and `model` are null while this server has no model; `shared` is
    true where the user gets what everyone gets."""
    pair = services.pair(video_id, user_id)
    async with store_within(READ_TIMEOUT_S):
        [known] = await services.store.features([pair], counted=True)
    if not known.known:
        raise ProblemError(404, "unknown-video", f"Nothing is known of the video {video_id!r}.")
    return json_response(_evidence(services, pair, known))


def _evidence(services: ServicesDep, pair: Pair, known: Features) -> EvidenceAnswer:
    recommender = services.model.recommender
    digest = model = None
    if recommender is not None:
        grounding = recommender.ground(pair, known)
        evidence, prompt = grounding.evidence, grounding.prompt
        digest, model, shared = grounding.digest, recommender.model, grounding.shared
    else:
        config = PromptConfig()
        evidence = assemble(known, max_anchors=config.max_anchors, max_history=config.max_history)
        prompt = build_prompt(evidence, config)
        alone = build_prompt(msgspec.structs.replace(evidence, history=()), config)
        shared = known.sensitive or prompt == alone
    return EvidenceAnswer(
        video_id=pair[0],
        user_id=pair[1],
        text=evidence.text,
        summary=evidence.summary,
        anchors=evidence.anchors,
        history=evidence.history,
        prompt=prompt,
        digest=digest,
        model=model,
        sensitive=known.sensitive,
        shared=shared,
    )


@router.get(
    "/v1/users/{user_id:path}/history",
    summary="The history of a user",
    operation_id="get_history",
    response_class=Response,
    responses={
        **responses(
            200, "HistoryAnswer", "The queries, newest first; none for a user nobody has heard of."
        ),
        **problems(503),
    },
)
async def get_history(services: ServicesDep, user_id: UserId) -> Response:
    """What a user searched or tapped lately. Percent-encode the id."""
    user_id = services.pseudonyms.of(user_id)
    async with store_within(READ_TIMEOUT_S):
        history = await services.store.history(user_id)
    return json_response(HistoryAnswer(user_id, history))
