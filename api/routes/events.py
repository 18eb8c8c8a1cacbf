"""`POST /v1/events`: events in over HTTP, for those who would rather not speak Kafka."""

from __future__ import annotations

import time
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.http.metrics import EVENTS
from api.http.problems import MAX_NAMED_ERRORS, ProblemError
from api.http.schemas import MAX_EVENTS, problems, reference, responses
from api.routes.deps import ServicesDep, needs, read_json
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


def check_events(values: list[Any], latest: float) -> list[Event]:
    """The events in decoded JSON values; pure. No `ts` may lie beyond `latest`.

    Raises `InvalidEventsError` naming each that is wrong.
    """
    events: list[Event] = []
    faults: list[dict[str, Any]] = []
    for index, value in enumerate(values):
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
            events.append(event)
        except InvalidEventError as error:
            faults.append({"index": index, "detail": str(error)})
        except (TypeError, UnicodeEncodeError):
            faults.append({"index": index, "detail": "text that is no Unicode"})
    if faults:
        raise InvalidEventsError(faults, len(values))
    return events


@router.post(
    "/v1/events",
    status_code=202,
    summary="Send events",
    operation_id="post_events",
    dependencies=[needs("write")],
    response_class=Response,
    responses={
        **responses(202, "Accepted", "Kafka has them all.", {"accepted": 1}),
        **problems(413, 415, 503),
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
    value = await read_json(request, MAX_BODY)
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_EVENTS:
        raise ProblemError(
            413,
            "too-many-events",
            f"{len(values):,} events in one request; at most {MAX_EVENTS:,} are accepted.",
        )
    events = check_events(values, time.time() + services.settings.future_allowance_s)
    if any(isinstance(event, ADMIN_EVENTS) for event in events):
        services.access.admit(request.scope, "admin", counted=False)
    if events:
        await services.publisher.send(events)
        for event in events:
            EVENTS.labels(event.type).inc()
    return Response(
        orjson.dumps({"accepted": len(events)}), status_code=202, media_type="application/json"
    )
