"""`GET /v1/videos/{id}`: what is known of a video, and the queries that people tie to it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from api.http.problems import ProblemError
from api.http.schemas import AnchorsAnswer, ShownAnchor, VideoAnswer, problems, responses
from api.routes.deps import ServicesDep, VideoId, json_response, needs, store_within
from api.services import Services
from onebar.records import QueryCounts

READ_TIMEOUT_S = 2.0
MANY = 2**31

router = APIRouter(tags=["state"], dependencies=[needs("read")])


@router.get(
    "/v1/videos/{video_id:path}/anchors",
    summary="The anchors of a video",
    operation_id="get_anchors",
    response_class=Response,
    responses={
        **responses(
            200,
            "AnchorsAnswer",
            "The anchors, strongest first; none for a video nobody has heard of.",
        ),
        **problems(503),
    },
)
async def get_anchors(request: Request, services: ServicesDep, video_id: VideoId) -> Response:
    """The queries that people's behaviour ties to a video, their weights decayed to this moment,
    with how often each was shown, tapped and engaged with; those that nobody may be shown (too few
    asked them, or a rule holds them back) are left out. Percent-encode the id: it may hold any
    character, slashes too."""
    if not request.scope["raw_path"].endswith(b"/anchors"):  # a video that is named so
        return await _told(services, f"{video_id}/anchors")
    async with store_within(READ_TIMEOUT_S):
        [known], counts = await asyncio.gather(
            services.store.features([(video_id, None)], max_anchors=MANY),
            services.store.counts(video_id),
        )
    anchors = services.may_be_shown(video_id, known)
    none = QueryCounts()
    shown = []
    for anchor in anchors:
        count = counts.get(anchor.query, none)
        shown.append(
            ShownAnchor(
                anchor.query,
                anchor.weight,
                anchor.source,
                count.exposures,
                count.clicks,
                count.engagements,
            )
        )
    return json_response(AnchorsAnswer(video_id, shown))


@router.get(
    "/v1/videos/{video_id:path}",
    summary="A video",
    operation_id="get_video",
    response_class=Response,
    responses={
        **responses(200, "VideoAnswer", "What is known of it."),
        **problems(404, 503),
    },
)
async def get_video(request: Request, services: ServicesDep, video_id: VideoId) -> Response:
    """Its text as it is kept, cleaned and as long as it may be; whether it is marked `sensitive` or
    was `removed` (then no query is shown under it); and how often its queries were shown, tapped
    and engaged with, all together. 404 where nobody has heard of it. Percent-encode the id: a slash
    in it is %2F."""
    if b"/" in request.scope["raw_path"].removeprefix(b"/v1/videos/"):
        raise HTTPException(404)
    return await _told(services, video_id)


async def _told(services: Services, video_id: str) -> Response:
    async with store_within(READ_TIMEOUT_S):
        known = await services.store.video(video_id)
    if known is None:
        raise ProblemError(404, "unknown-video", f"Nothing is known of the video {video_id!r}.")
    text, counts = known.text, known.counts.values()
    return json_response(
        VideoAnswer(
            video_id=video_id,
            title=text.title,
            caption=text.caption,
            author=text.author,
            item_title=text.item_title,
            ocr=text.ocr,
            asr=text.asr,
            summary=text.summary,
            category=text.category,
            sensitive=text.sensitive,
            removed=text.removed,
            updated_at=known.updated_at,
            queries=len(counts),
            exposures=sum(each.exposures for each in counts),
            clicks=sum(each.clicks for each in counts),
            engagements=sum(each.engagements for each in counts),
        )
    )
