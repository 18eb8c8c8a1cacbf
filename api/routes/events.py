"""`POST /v1/events`: events in over HTTP, for those who would rather not speak Kafka."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct

from api.http.metrics import EVENTS
from api.http.problems import MAX_NAMED_ERRORS, InvalidParameterError, ProblemError
from api.http.schemas import MAX_EVENTS, problems, reference, responses
from api.routes.deps import ServicesDep, needs
from onebar.process.turns import turns
from stream.events import (
    ADMIN_EVENTS,
    MAX_EVENT_BYTES,
    Event,
    InvalidEventError,
    RuleChange,
    encode,
    from_object,
)
from stream.events.fold import rule_of

MAX_BODY = 8_000_000

_EXAMPLE = {
    "type": "search",
    "event_id": "e-1001",
    "ts": 1760000000.25,
    "user_id": "u7",
    "video_id": "v42",
    "query": "waterproof hiking boots",
}

router = APIRouter(tags=["events"])


class InvalidEventsError(ProblemError):
    """Some events of a request can't be taken, so none is: 422, naming each by its index."""

    def __init__(self, faults: list[dict[str, Any]], count: int) -> None:
        named = faults[:MAX_NAMED_ERRORS]
        super().__init__(
            422,
            "invalid-event",
            f"{len(faults)} of {count} events are invalid; none was sent. "
            f"The first, at index {named[0]['index']}: {named[0]['detail']}",
            errors=named,
        )


class Fault(Struct, frozen=True):
    """Why the event at an index can't be taken."""

    index: int
    detail: str


def check(index: int, value: Any, latest: float) -> Event | Fault:
    """The event in a decoded JSON value; pure. Its `ts` may not lie beyond `latest`."""
    try:
        event = from_object(value)
        if isinstance(event, RuleChange):
            rule_of(event)
        if event.ts > latest:
            raise InvalidEventError(
                f"ts {event.ts:.3f} lies in the future: at most {latest:.3f} is accepted now "
                "(UTC epoch seconds) - at `$.ts`"
            )
        size = len(encode(event))
        if size > MAX_EVENT_BYTES:
            raise InvalidEventError(
                f"the event has {size:,} bytes; at most {MAX_EVENT_BYTES:,} are accepted"
            )
    except InvalidEventError as error:
        return Fault(index, str(error))
    except RecursionError:
        return Fault(index, "nested too deep")
    except (TypeError, UnicodeEncodeError):
        return Fault(index, "text that is no Unicode")
    return event


def all_or_none(checked: Sequence[Event | Fault]) -> list[Event]:
    """The events, if all can be taken. Raises `InvalidEventsError` naming each that can't."""
    faults = [msgspec.to_builtins(one) for one in checked if isinstance(one, Fault)]
    if faults:
        raise InvalidEventsError(faults, len(checked))
    return [one for one in checked if not isinstance(one, Fault)]


def split(body: bytes) -> list[bytes]:
    """The JSON of each event in a body of one or of a list, which is not looked into yet. Raises
    `ProblemError`."""
    try:
        parts = _parts(body) if body.lstrip(b" \t\r\n").startswith(b"[") else [_whole(body)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidParameterError.of("body", f"not JSON: {error}") from None
    if len(parts) > MAX_EVENTS:
        raise ProblemError(
            413,
            "too-many-events",
            f"{len(parts):,} events in one request; at most {MAX_EVENTS:,} are accepted.",
        )
    return [bytes(part) for part in parts]


_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_whole = msgspec.json.Decoder(msgspec.Raw).decode


@router.post(
    "/v1/events",
    status_code=202,
    summary="Send events",
    operation_id="post_events",
    dependencies=[needs("write")],
    response_class=Response,
    responses={
        **responses(202, "Accepted", "Kafka has them all.", {"accepted": 1}),
        **problems(408, 413, 415),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "oneOf": [
                            reference("Event"),
                            {"type": "array", "items": reference("Event"), "maxItems": MAX_EVENTS},
                        ]
                    },
                    "examples": {"one": {"value": _EXAMPLE}, "many": {"value": [_EXAMPLE]}},
                }
            },
        }
    },
)
async def post_events(request: Request, services: ServicesDep) -> Response:
    """One event or up to 1,000. They are acknowledged once Kafka has all of them; where one is
    invalid none is sent. Deletions, removals and rules need the scope admin as well. After a 503
    send the same events again, with the same event ids: what had arrived counts once."""
    latest = time.time() + services.settings.future_allowance_s

    def read(part: tuple[int, bytes]) -> Event | Fault:
        index, raw = part
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise InvalidParameterError.of("body", f"not JSON: {error}") from None
        return check(index, value, latest)

    async with services.bodies.read(request.scope, request.receive, MAX_BODY) as body:
        parts = list(enumerate(split(body)))
        del body
        events = all_or_none(await turns().over(parts, read))
        if any(isinstance(event, ADMIN_EVENTS) for event in events):
            services.access.admit(request.scope, "admin")
        if events:
            await services.publisher.send(events)
            for event in events:
                EVENTS.labels(event.type).inc()
    return Response(
        orjson.dumps({"accepted": len(events)}), status_code=202, media_type="application/json"
    )
