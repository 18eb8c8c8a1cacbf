"""`DELETE /v1/users/{id}`: forget a user, now and whenever the log is read again."""

from __future__ import annotations

import asyncio
import time
import uuid

import structlog
from fastapi import APIRouter, Request
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
            "content": content("Deleted"),
        },
        **{k: v for k, v in responses(200, "Deleted", "").items() if k != 200},
        **problems(503),
    },
)
async def delete_user(request: Request, services: ServicesDep, user_id: UserId) -> Response:
    """Forget everything a user did up to now, and what was stamped ahead by then: history and own
    cached queries at once, and by a `deletion` event in the log, so that a replay forgets as well.
    After a 503 send it again: the log does not have it yet, whatever was already done here.
    Percent-encode the id: a slash in it is %2F."""
    _check_is_whole(request)
    user_id = services.pseudonyms.of(user_id)
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


def _check_is_whole(request: Request) -> None:
    """Nobody is deleted by a path that goes on: `/v1/users/x/history` is something of user `x`."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    if b"/" in raw.partition(b"?")[0].partition(b"/v1/users/")[2]:
        raise ProblemError(
            404, "not-found", "There is nothing to delete there; a slash in an id is sent as %2F."
        )


async def _forget(services: ServicesDep, user_id: str, now: float) -> bool:
    async with asyncio.timeout(STORE_TIMEOUT_S):
        await services.forget(user_id, now)
    return True
