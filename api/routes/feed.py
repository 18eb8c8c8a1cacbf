"""`GET /v1/feed`: the latest videos with their bars, for the page and for a first look."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.http.schemas import Answer, FeedAnswer, FeedVideo, problems, responses
from api.routes.deps import ServicesDep, UserQuery, VideoId, json_response, needs, store_within
from onebar.records import Pair, VideoText

TIMEOUT_S = 2.0
SHOWN_ANCHORS = 6
MOST = 50

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
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most videos wanted.")] = 12,
    user_id: UserQuery = None,
    video_id: Annotated[
        list[VideoId],
        Query(max_length=MOST, description="Only these, in this order; may be repeated."),
    ] = [],  # noqa: B006
) -> Response:
    """The videos that queries were generated for last, newest first, each with what is cached
    for it (for `user_id`, where one is given); or those that `video_id` names, without those that
    nobody has heard of. A removed video is in neither. Generates nothing."""
    recent: list[tuple[str, float | None]]
    async with store_within(TIMEOUT_S):
        if video_id:
            recent = [(each, None) for each in dict.fromkeys(video_id)]
        else:
            recent = [*await services.store.recent_videos(limit)]
        pairs: list[Pair] = [services.pair(each, user_id) for each, _ in recent]
        known = await services.store.features([(each, None) for each, _ in recent])
    arrived = asyncio.get_running_loop().time()
    answered = await services.answerer.many(pairs, services.answerer.peek(arrived))
    answers = msgspec.json.decode(answered, type=list[Answer])
    videos = []
    for (each, seen_at), features, answer in zip(recent, known, answers, strict=True):
        if features.removed or (seen_at is None and not features.known):
            continue
        text = features.text or VideoText()
        videos.append(
            FeedVideo(
                video_id=each,
                seen_at=seen_at,
                title=text.title,
                caption=text.caption,
                author=text.author,
                category=text.category,
                summary=text.summary,
                item_title=text.item_title,
                ocr=text.ocr,
                asr=text.asr,
                sensitive=text.barred,
                anchors=services.may_be_shown(each, features)[:SHOWN_ANCHORS],
                answer=answer,
            )
        )
    return json_response(FeedAnswer(videos))
