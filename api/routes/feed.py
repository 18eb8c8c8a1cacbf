"""`GET /v1/feed`: the latest videos with their bars, for the page and for a first look."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.http.problems import UnavailableError
from api.http.schemas import Answer, FeedAnswer, FeedVideo, problems, responses
from api.routes.deps import ServicesDep, UserQuery, needs
from feature_store.redis.client import StoreUnavailableError
from onebar.records import Pair, VideoText

TIMEOUT_S = 2.0
SHOWN_ANCHORS = 6

router = APIRouter(tags=["feed"])


@router.get(
    "/v1/feed",
    summary="The latest videos",
    operation_id="get_feed",
    dependencies=[needs("read")],
    response_class=Response,
    responses={
        **responses(200, "FeedAnswer", "The videos that queries were generated for last."),
        **problems(503),
    },
)
async def get_feed(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=50, description="Most videos wanted.")] = 12,
    user_id: UserQuery = None,
) -> Response:
    """The videos that queries were generated for last, newest first, each with what is cached
    for it (for `user_id`, where one is given). Generates nothing."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            recent = await services.store.recent_videos(limit)
            pairs: list[Pair] = [(video_id, user_id) for video_id, _ in recent]
            known = await services.store.features([(video_id, None) for video_id, _ in recent])
    except (TimeoutError, StoreUnavailableError):
        raise UnavailableError("store-unavailable", "Redis does not answer.") from None
    arrived = asyncio.get_running_loop().time()
    answered = await services.answerer.many(pairs, services.answerer.peek(arrived))
    answers = msgspec.json.decode(answered, type=list[Answer])
    videos = []
    for (video_id, seen_at), features, answer in zip(recent, known, answers, strict=True):
        text = features.text or VideoText()
        videos.append(
            FeedVideo(
                video_id=video_id,
                seen_at=seen_at,
                title=text.title,
                caption=text.caption,
                author=text.author,
                category=text.category,
                summary=text.summary,
                anchors=services.may_be_shown(video_id, features)[:SHOWN_ANCHORS],
                answer=answer,
            )
        )
    return Response(msgspec.json.encode(FeedAnswer(videos)), media_type="application/json")
