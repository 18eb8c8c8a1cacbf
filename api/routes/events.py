"""`POST /v1/events`: events in over HTTP, for those who would rather not speak Kafka."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, cast

import msgspec
import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from msgspec import Struct

from api.http.body import JSON, media_type
from api.http.examples import EVENT
from api.http.metrics import EVENTS
from api.http.problems import MAX_NAMED_ERRORS, InvalidParameterError, ProblemError
from api.http.schemas import MAX_EVENTS, Accepted, problems, reference, responses
from api.routes.deps import ServicesDep, needs
from onebar.process.turns import turns
from stream.events import (
    ADMIN_EVENTS,
    EVENT_TYPES,
    MAX_EVENT_BYTES,
    Event,
    InvalidEventError,
    RuleChange,
    encode,
    from_object,
)
from stream.events.fold import rule_of
from stream.mapping.mapping import UnmappedError, open_mapping, ready_mappings

MAX_BODY = 8_000_000
LINES = frozenset((b"application/x-ndjson", b"application/jsonl", b"application/x-jsonlines"))
CLOUD_EVENTS = frozenset((b"application/cloudevents+json", b"application/cloudevents-batch+json"))
TYPES = JSON | LINES | CLOUD_EVENTS

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
    """The event in a decoded JSON value, or in an event already; pure. Its `ts` may not lie beyond
    `latest`."""
    try:
        event = cast(Event, value) if isinstance(value, EVENT_TYPES) else from_object(value)
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


def split(body: bytes, *, lines: bool = False) -> Sequence[Any]:
    """The JSON of each event in a body of one, of a list or (`lines`) of one on a line, which is
    not looked into yet. Raises `ProblemError`."""
    parts: Sequence[Any]
    try:
        if lines:
            parts = [line for line in body.split(b"\n") if line.strip()]
        else:
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


Read = Callable[[tuple[int, bytes]], list[Event | Fault]]


def _reader(mapping: str, latest: float) -> Read:
    """What makes events of an object's JSON. Raises `InvalidParameterError`."""
    if mapping and mapping not in ready_mappings():
        known = ", ".join(ready_mappings())
        raise InvalidParameterError.of("map", f"expected one of {known}, got {mapping!r}")
    opened = _opened(mapping) if mapping else None

    def read(part: tuple[int, bytes]) -> list[Event | Fault]:
        index, raw = part
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            fault = f"not JSON, at index {index}: {error}"
            raise InvalidParameterError.of("body", fault) from None
        if opened is None:
            return [check(index, value, latest)]
        if not isinstance(value, dict):
            return [Fault(index, f"Expected `object`, got {value!r:.60}")]
        return [
            Fault(index, str(one)) if isinstance(one, UnmappedError) else check(index, one, latest)
            for one in opened.events(value)
        ]

    return read


_opened = lru_cache(maxsize=None)(open_mapping)
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
        **responses(202, "Accepted", "Kafka has them all."),
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
                    "examples": {"one": {"value": EVENT}, "many": {"value": [EVENT]}},
                },
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        }
    },
)
async def post_events(
    request: Request,
    services: ServicesDep,
    mapping: Annotated[
        str,
        Query(
            alias="map",
            max_length=64,
            description="The objects are of another shape: the name of a mapping that comes with "
            "OneBar (docs/mapping.md), such as `ubi`.",
        ),
    ] = "",
) -> Response:
    """One event or up to 1,000, or one on a line (`application/x-ndjson`). They are acknowledged
    once Kafka has all of them; where one is invalid none is sent. Deletions, removals and rules
    need the scope admin as well. After a 503 send the same events again, with the same event ids:
    what had arrived counts once. CloudEvents are known by their content type. Where a mapping makes
    no event of some objects, `left_out` says of how many."""
    latest = time.time() + services.settings.future_allowance_s
    said = media_type(request.scope)
    read = _reader(mapping or ("cloudevents" if said in CLOUD_EVENTS else ""), latest)
    async with services.bodies.read(request.scope, request.receive, MAX_BODY, TYPES) as body:
        await turns().turn()  # what a long body consists of takes a piece of work to find
        parts = list(enumerate(split(body, lines=said in LINES)))
        del body
        found = await turns().over(parts, read)
        events = all_or_none([one for each in found for one in each])
        if any(isinstance(event, ADMIN_EVENTS) for event in events):
            services.access.admit(request.scope, "admin")
        if events:
            await services.publisher.send(events)
            for kind, count in Counter(event.type for event in events).items():
                EVENTS.labels(kind).inc(count)
    left_out = sum(not each for each in found)
    return Response(
        msgspec.json.encode(Accepted(len(events), left_out)),
        status_code=202,
        media_type="application/json",
    )
