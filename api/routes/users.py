"""`DELETE /v1/users/{id}`: forget a user, now and whenever the log is read again."""

from __future__ import annotations

import asyncio
import time
import uuid

import structlog
from fastapi import APIRouter
from fastapi.responses import Response

from api.http.problems import ProblemError, UnavailableError
from api.http.schemas import content, problems, responses
from api.routes.deps import ServicesDep, UserId, needs
from stream.events import Deletion

log = structlog.get_logger(__name__)

STORE_TIMEOUT_S = 5.0

router = APIRouter(tags=["users"])


@router.delete(
    "/v1/users/{user_id:path}",
    status_code=204,
    summary="Forget a user",
    operation_id="delete_user",
    dependencies=[needs("admin")],
    response_class=Response,
    responses={
        204: {"description": "Forgotten: in the state, in the cache, and in every replay."},
        202: {
            "description": "In the log, but Redis is away: a stream worker does it later.",
            "content": content("Deleted", {"log": True, "store": False}),
        },
        **{k: v for k, v in responses(200, "Deleted", "").items() if k != 200},
        **problems(503),
    },
)
async def delete_user(services: ServicesDep, user_id: UserId) -> Response:
    """Forget everything a user did up to now: history and own cached queries at once, and by a
    `deletion` event in the log, so that a replay forgets as well. After a 503 send it again: the
    log does not have it yet, whatever was already done here."""
    now = time.time()
    event = Deletion(event_id=f"deletion-{uuid.uuid4().hex}", ts=now, user_id=user_id)
    in_store, in_log = await asyncio.gather(
        _forget(services, user_id, now), services.publisher.send([event]), return_exceptions=True
    )
    if isinstance(in_log, ProblemError):
        raise UnavailableError(
            "kafka-unavailable",
            "The deletion is not in the log, so a replay would bring the user back: "
            "send it again." + ("" if in_store is True else " Redis did not take it either."),
        )
    if isinstance(in_log, BaseException):
        raise in_log
    if in_store is not True:
        log.warning("deletion_only_in_log", error=repr(in_store))
        return Response(b'{"log":true,"store":false}', 202, media_type="application/json")
    return Response(status_code=204)


async def _forget(services: ServicesDep, user_id: str, now: float) -> bool:
    async with asyncio.timeout(STORE_TIMEOUT_S):
        await services.forget(user_id, now)
    return True
