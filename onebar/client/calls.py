"""What a client says, how often, and how it reads the answers: everything but the I/O.

A call is a generator of `Attempt`s and `Pause`s. Whoever runs it makes the request, or waits, and
sends back what came of it: a `Reply` or a `Lost`. So the blocking and the asynchronous client are
one, and tests need neither network nor clock.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypedDict, TypeVar

import msgspec
from msgspec import Struct

from onebar.client.errors import (
    BusyError,
    ClientError,
    ClientTimeoutError,
    InvalidEventsError,
    InvalidRequestError,
    NotAllowedError,
    UnreachableError,
)
from onebar.client.records import Accepted, Answer, Answers, Fault, Problem

MAX_LOOKUPS = 256
"""In one request, as the server has it."""
MAX_EVENTS = 1000
MAX_BODY = 8_000_000
"""Bytes of a request with events."""
AGAIN = frozenset((429, 502, 503, 504))
"""What the server, or a proxy before it, says where the same request may succeed later."""
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 2.0

Lookup = str | tuple[str, str | None]
"""A video, and who watches it, if anybody in particular."""


class Options(TypedDict, total=False):
    """What a lookup may ask for beside the pair; what is left out, or None, is as the server has
    it."""

    k: int | None
    """Most queries."""
    budget_ms: float | None
    """How long the server may take to generate what it has not cached."""
    exclude: Sequence[str]
    """Queries that are not wanted: tapped already, ordered."""
    languages: Sequence[str]
    """Only queries in these, by their script."""
    max_length: int | None
    """Only queries of at most so many characters."""
    diversity: float | None
    """A query that shares more than 1 less this of its words with one before it is left out."""
    constrain: Literal["open", "prefer", "only"] | None
    """How strictly queries are to be of the repertoire; never less than the server is set to."""


LONGEST_URL = 4000
"""Characters of parameters in one; what is longer goes in a body."""
T = TypeVar("T")


class Request(Struct, frozen=True):
    """One HTTP request. `content` is JSON."""

    method: str
    path: str
    params: dict[str, str | list[str]] = {}
    content: bytes | None = None


class Attempt(Struct, frozen=True):
    """Make the request; send back a `Reply`, or a `Lost` at the latest after `timeout_s`."""

    request: Request
    timeout_s: float


class Pause(Struct, frozen=True):
    """Wait."""

    seconds: float


class Reply(Struct, frozen=True):
    """What the server answered."""

    status: int
    body: bytes
    retry_after: str | None = None


class Lost(Struct, frozen=True):
    """No answer came; `late`: because there was no time left for it."""

    error: Exception
    late: bool = False


Call = Generator[Attempt | Pause, Reply | Lost | None, T]


class Policy(Struct, frozen=True):
    """When to try again. `draw` gives a number in [0, 1)."""

    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random


def attempts(request: Request, deadline: float, policy: Policy) -> Call[bytes]:
    """The body of a successful reply.

    A broken connection and `AGAIN` are tried again after a pause, which doubles and is drawn by
    chance so that many clients don't come back together, and which is never shorter than the
    server's `Retry-After`. Where the pause would end after `deadline`, the last error is raised
    at once.
    """
    longest = FIRST_BACKOFF_S
    while True:
        left = deadline - policy.clock()
        if left <= 0:
            raise ClientTimeoutError(f"no time left to ask for {request.path}")
        outcome = yield Attempt(request, left)
        assert outcome is not None
        least = 0.0
        if isinstance(outcome, Reply):
            if 200 <= outcome.status < 300:
                return outcome.body
            failed: ClientError = refusal(request, outcome)
            if outcome.status not in AGAIN:
                raise failed
            least = retry_after_s(outcome) or 0.0
        elif outcome.late:
            raise ClientTimeoutError(f"no answer to {request.path} in time") from outcome.error
        else:
            failed = UnreachableError(f"the server can't be reached: {outcome.error}")
            failed.__cause__ = outcome.error
        pause = least + policy.draw() * longest
        longest = min(2 * longest, LONGEST_BACKOFF_S)
        if policy.clock() + pause >= deadline:
            raise failed
        yield Pause(pause)


def refusal(request: Request, reply: Reply) -> ClientError:
    """The error that a reply other than 2xx stands for."""
    problem = _problem(reply)
    detail = problem.detail or problem.title or f"the server answered {reply.status}"
    message = f"{request.method} {request.path}: {detail}"
    if problem.request_id:
        message += f" (X-Request-ID {problem.request_id})"
    if reply.status in (401, 403):
        return NotAllowedError(message, status=reply.status, problem=problem)
    if reply.status in AGAIN:
        return BusyError(
            message, status=reply.status, problem=problem, retry_after_s=retry_after_s(reply)
        )
    if 400 <= reply.status < 500:
        return InvalidRequestError(
            message, status=reply.status, problem=problem, faults=problem.errors
        )
    return ClientError(message, status=reply.status, problem=problem)


def _problem(reply: Reply) -> Problem:
    """The document in a reply, or an empty one: a proxy may answer in the server's place."""
    try:
        return msgspec.json.decode(reply.body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem(status=reply.status)


def retry_after_s(reply: Reply) -> float | None:
    """How long the server asks to wait: it says seconds or a moment."""
    if reply.retry_after is None:
        return None
    try:
        return max(0.0, float(reply.retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(reply.retry_after).timestamp() - time.time())
    except ValueError:
        return None


def look_up(
    video_id: str,
    user_id: str | None,
    options: Options,
    *,
    deadline: float,
    policy: Policy,
) -> Call[Answer]:
    """The queries of one video."""
    params = {"video_id": video_id, "user_id": user_id, **_given(options)}
    given = {
        name: list(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in params.items()
        if value is not None
    }
    if len(str(given)) > LONGEST_URL:
        lookup = (video_id, user_id)
        [answer] = yield from look_up_many([lookup], options, deadline=deadline, policy=policy)
        return answer
    body = yield from attempts(Request("GET", "/v1/queries", given), deadline, policy)
    return _decode(body, Answer)


def look_up_many(
    lookups: Iterable[Lookup],
    options: Options,
    *,
    deadline: float,
    policy: Policy,
) -> Call[list[Answer]]:
    """The queries of many videos, in order, by as many requests as it takes."""
    asked = list(lookups)
    given = _given(options)
    answers: list[Answer] = []
    for at in range(0, len(asked), MAX_LOOKUPS):
        part = [_named(lookup) for lookup in asked[at : at + MAX_LOOKUPS]]
        content = msgspec.json.encode({"requests": part, **given})
        body = yield from attempts(
            Request("POST", "/v1/queries", content=content), deadline, policy
        )
        results = _decode(body, Answers).results
        if len(results) != len(part):
            raise ClientError(f"asked for {len(part)} videos, got {len(results)} answers")
        answers += results
    return answers


def _given(options: Options) -> dict[str, Any]:
    """What is asked for, as JSON has it. Raises `TypeError` for what is no option."""
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    return {
        name: list(value) if name in ("exclude", "languages") else value  # type: ignore[call-overload]
        for name, value in options.items()
        if value is not None
    }


def _named(lookup: Lookup) -> dict[str, str | None]:
    video_id, user_id = (lookup, None) if isinstance(lookup, str) else lookup
    return {"video_id": video_id, "user_id": user_id}


def send(events: object, *, deadline: float, policy: Policy) -> Call[int]:
    """Send one event or many, in order, by as many requests as it takes; how many there were.

    An event without an `event_id` gets one, and one without `ts` this moment, before it is sent
    for the first time: what arrives twice counts once.
    """
    one = isinstance(events, Mapping | Struct)
    encoded = encode_events([events] if one else events)  # type: ignore[arg-type]
    accepted = 0
    for part in parts(encoded):
        content = b"[" + b",".join(part) + b"]"
        request = Request("POST", "/v1/events", content=content)
        try:
            body = yield from attempts(request, deadline, policy)
        except InvalidRequestError as error:
            if error.status not in (413, 422):
                raise
            faults = tuple(
                msgspec.structs.replace(fault, index=fault.index + accepted)
                for fault in error.faults
                if fault.index is not None
            )
            raise InvalidEventsError(
                str(error),
                status=error.status,
                problem=error.problem,
                faults=faults,
                accepted=accepted,
            ) from None
        accepted += _decode(body, Accepted).accepted
    return accepted


def encode_events(events: Iterable[Any]) -> list[bytes]:
    """Each event as JSON, with an id and a time. Raises `InvalidEventsError`, naming each that
    can't be JSON."""
    encoded: list[bytes] = []
    faults: list[Fault] = []
    for index, event in enumerate(events):
        try:
            plain = dict(event if isinstance(event, Mapping) else msgspec.to_builtins(event))
            plain.setdefault("event_id", uuid.uuid4().hex)
            plain.setdefault("ts", time.time())
            encoded.append(msgspec.json.encode(plain))
        except (TypeError, ValueError) as error:
            faults.append(Fault(str(error), index=index))
    if faults:
        first = faults[0]
        raise InvalidEventsError(
            f"{len(faults)} events are no JSON objects; none was sent. The first, at index "
            f"{first.index}: {first.detail}",
            faults=tuple(faults),
        )
    return encoded


def parts(encoded: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """What fits into one request each, in order."""
    begin, size = 0, 2
    for at, event in enumerate(encoded):
        if at > begin and (at - begin == MAX_EVENTS or size + len(event) > MAX_BODY):
            yield encoded[begin:at]
            begin, size = at, 2
        size += len(event) + 1
    if begin < len(encoded):
        yield encoded[begin:]


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientError(f"this is no answer of a OneBar server: {error}") from None
