"""The client: what it says, how long it tries, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onebar
from api.http import schemas
from onebar.client import calls
from onebar.client.calls import (
    Attempt,
    Call,
    Lost,
    Pause,
    Policy,
    Reply,
    Request,
    attempts,
    encode_events,
    parts,
    retry_after_s,
)
from onebar.client.records import Answer

ANSWER = {
    "request_id": "r",
    "video_id": "v",
    "user_id": None,
    "queries": [{"text": "hiking boots", "score": -0.5}],
    "source": "cache",
    "rejected": False,
    "model": "demo-1",
    "something_new": 1,
}
BUSY = Reply(503, b'{"status":503,"detail":"Kafka is away"}', retry_after="2")
GONE = Lost(OSError("connection refused"))
FINE = Reply(200, b"fine")
REQUEST = Request("GET", "/x")


class Run:
    """Runs a call against a script, on a clock of its own: a pause takes as long as it says, a
    request takes `each_s`."""

    def __init__(self, *script: Reply | Lost, each_s: float = 0.01, draw: float = 0.5) -> None:
        self._script = iter(script)
        self._each_s = each_s
        self.now = 100.0
        self.pauses: list[float] = []
        self.tries = 0
        self.policy = Policy(clock=lambda: self.now, draw=lambda: draw)

    def __call__(self, call: Call[Any]) -> Any:
        outcome: Reply | Lost | None = None
        try:
            while True:
                step = call.send(outcome)
                outcome = None
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                else:
                    self.tries += 1
                    outcome = self._answer(step)
        except StopIteration as done:
            return done.value

    def _answer(self, attempt: Attempt) -> Reply | Lost:
        outcome = next(self._script, GONE)
        self.now += min(self._each_s, attempt.timeout_s)
        return outcome

    def within(self, seconds: float) -> Any:
        return self(attempts(REQUEST, self.now + seconds, self.policy))


def test_what_may_succeed_later_is_tried_again() -> None:
    run = Run(GONE, GONE, Reply(429, b""), FINE)
    assert run.within(5) == b"fine"
    assert run.tries == 4
    assert run.pauses == sorted(run.pauses)


def test_retry_after_is_honoured() -> None:
    run = Run(BUSY, FINE)
    assert run.within(5) == b"fine"
    assert run.pauses[0] >= 2.0


def test_a_wait_that_would_pass_the_deadline_is_not_begun() -> None:
    run = Run(BUSY, FINE)
    with pytest.raises(onebar.BusyError, match="Kafka is away") as caught:
        run.within(1.5)
    assert run.pauses == []
    assert caught.value.retry_after_s == 2.0
    assert caught.value.status == 503


@given(
    st.lists(st.sampled_from([GONE, BUSY, Reply(429, b"", "0"), Reply(502, b"<html>")])),
    st.floats(0.01, 30),
    st.floats(0, 0.999),
)
def test_no_call_outlives_its_deadline(
    script: list[Reply | Lost], seconds: float, draw: float
) -> None:
    run = Run(*script, draw=draw)
    with pytest.raises(onebar.ClientError):
        run.within(seconds)
    assert run.now <= 100.0 + seconds + 1e-9


def test_the_last_error_says_why() -> None:
    with pytest.raises(onebar.UnreachableError, match="refused") as caught:
        Run().within(1)
    assert isinstance(caught.value, ConnectionError)
    with pytest.raises(onebar.ClientTimeoutError) as late:
        Run(Lost(TimeoutError(), late=True)).within(1)
    assert isinstance(late.value, TimeoutError)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(401, b'{"status":401,"detail":"An API key is needed"}'), onebar.NotAllowedError),
        (Reply(403, b""), onebar.NotAllowedError),
        (Reply(422, b'{"status":422,"detail":"k"}'), onebar.InvalidRequestError),
        (Reply(404, b"<html>"), onebar.InvalidRequestError),
        (Reply(500, b""), onebar.ClientError),
        (Reply(301, b""), onebar.ClientError),
    ],
)
def test_what_can_not_succeed_is_asked_once(reply: Reply, kind: type[Exception]) -> None:
    run = Run(reply, FINE)
    with pytest.raises(kind) as caught:
        run.within(5)
    assert run.tries == 1
    assert isinstance(caught.value, onebar.OneBarError)


def test_an_error_names_the_request_by_which_the_servers_log_knows_it() -> None:
    refused = Reply(422, b'{"status":422,"detail":"k is 9","request_id":"5f2d"}')
    with pytest.raises(onebar.InvalidRequestError, match=r"k is 9 \(X-Request-ID 5f2d\)") as caught:
        Run(refused).within(5)
    assert caught.value.problem is not None
    assert caught.value.problem.request_id == "5f2d"


def test_retry_after_may_be_a_moment() -> None:
    assert retry_after_s(Reply(503, b"", "1.5")) == 1.5
    assert retry_after_s(Reply(503, b"", "Thu, 01 Jan 1970 00:00:00 GMT")) == 0.0
    assert retry_after_s(Reply(503, b"", "soon")) is None
    assert retry_after_s(Reply(503, b"")) is None


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4_000_000), max_size=8))
def test_parts_are_all_events_in_order_and_fit(sizes: list[int]) -> None:
    events = [bytes(size) for size in sizes]
    found = list(parts(events))
    assert [event for part in found for event in part] == events
    assert all(part for part in found)
    assert all(len(part) == 1 or len(b",".join(part)) + 2 <= calls.MAX_BODY + 1 for part in found)


def test_many_events_are_many_requests() -> None:
    found = list(parts(encode_events({"type": "search", "n": n} for n in range(2500))))
    assert [len(part) for part in found] == [1000, 1000, 500]


def test_an_event_has_an_id_and_a_time_before_it_is_sent() -> None:
    mine = {"type": "search", "event_id": "mine", "ts": 1.5}
    first, second = map(json.loads, encode_events([mine, {"type": "search"}]))
    assert first == mine
    assert second["event_id"]
    assert second["ts"] > 1e9
    with pytest.raises(onebar.InvalidEventsError) as caught:
        encode_events([mine, {"x": object()}, {"x": "\ud800"}])
    assert [fault.index for fault in caught.value.faults] == [1, 2]


def test_limits_are_those_of_the_server() -> None:
    from api.routes.events import MAX_BODY

    assert calls.MAX_LOOKUPS == schemas.MAX_PAIRS
    assert calls.MAX_EVENTS == schemas.MAX_EVENTS
    assert calls.MAX_BODY <= MAX_BODY


def test_an_answer_has_all_that_the_server_says() -> None:
    assert set(Answer.__struct_fields__) == set(schemas.Answer.__struct_fields__)


# Both clients, over httpx ---------------------------------------------------------------------

Handler = Callable[[httpx.Request], httpx.Response]


class Both:
    """One call by the blocking client, the same by the other."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        self._handler = handler
        self._options = options

    def __call__(self, name: str, *arguments: Any, **named: Any) -> Iterator[Any]:
        transport = httpx.MockTransport(self._handler)
        with onebar.Client("http://bar", transport=transport, **self._options) as client:
            yield getattr(client, name)(*arguments, **named)

        async def ask() -> Any:
            async with onebar.AsyncClient(
                "http://bar", transport=transport, **self._options
            ) as client:
                return await getattr(client, name)(*arguments, **named)

        yield asyncio.run(ask())


def test_a_lookup() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        assert request.url.path == "/v1/queries"
        assert dict(request.url.params) == {"video_id": "v&1", "user_id": "u", "k": "3"}
        return httpx.Response(200, json=ANSWER)

    for answer in Both(handler, api_key="secret")("queries", "v&1", "u", k=3):
        assert isinstance(answer, onebar.Answer)
        assert answer.texts == ("hiking boots",)
        assert answer.queries[0] == onebar.Candidate("hiking boots", -0.5)
        assert answer.fallback is None


def test_many_lookups_keep_their_order() -> None:
    sizes: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        assert request.headers["Content-Type"] == "application/json"
        assert asked["k"] == 2
        sizes.append(len(asked["requests"]))
        answers = [{**ANSWER, **lookup} for lookup in asked["requests"]]
        return httpx.Response(200, json={"results": answers})

    lookups = ["v0", *((f"v{n}", f"u{n}") for n in range(1, 600))]
    for answers in Both(handler)("queries_many", lookups, k=2):
        assert [answer.video_id for answer in answers] == [f"v{n}" for n in range(600)]
        assert answers[0].user_id is None
        assert answers[1].user_id == "u1"
    assert sizes == [256, 256, 88] * 2


def test_a_wrong_event_is_named_by_its_place_among_all() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        events = json.loads(request.content)
        if wrong := [at for at, event in enumerate(events) if event["type"] == "sreach"]:
            faults = [{"index": at, "detail": "no such type"} for at in wrong]
            problem = {"status": 422, "detail": "1 of 500 events", "errors": faults}
            return httpx.Response(422, json=problem)
        return httpx.Response(202, json={"accepted": len(events)})

    events = [{"type": "search"} for _ in range(1500)]
    for accepted in Both(handler)("send", events):
        assert accepted == 1500
    for accepted in Both(handler)("send", {"type": "search"}):
        assert accepted == 1
    events[1200] = {"type": "sreach"}
    with pytest.raises(onebar.InvalidEventsError) as caught:
        next(Both(handler)("send", events))
    assert caught.value.accepted == 1000
    assert [fault.index for fault in caught.value.faults] == [1200]
    assert caught.value.problem is not None
    assert caught.value.problem.status == 422


def test_events_may_be_records() -> None:
    from stream.events import parse

    def handler(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == [event]
        return httpx.Response(202, json={"accepted": 1})

    event = {
        "type": "search", "event_id": "e", "ts": 1.0, "user_id": "u", "video_id": "v",
        "query": "boots",
    }  # fmt: skip
    assert list(Both(handler)("send", parse(json.dumps(event).encode()))) == [1, 1]


def test_a_retry_is_the_same_request() -> None:
    seen: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.content)
        if len(seen) % 3:
            raise httpx.RemoteProtocolError("Server disconnected")
        return httpx.Response(202, json={"accepted": 1})

    assert list(Both(handler)("send", {"type": "search"})) == [1, 1]
    assert len(seen) == 6
    assert len(set(seen[:3])) == len(set(seen[3:])) == 1


def test_a_server_that_is_none() -> None:
    with pytest.raises(onebar.ClientError, match="no answer of a OneBar server"):
        next(Both(lambda _: httpx.Response(200, text="<html>"))("queries", "v"))
    with pytest.raises(onebar.InvalidRequestError, match="http://HOST"):
        onebar.Client("bar:8080")


async def test_the_deadline_holds_for_a_server_that_does_not_answer() -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        raise AssertionError

    async with onebar.AsyncClient(
        "http://bar", transport=httpx.MockTransport(handler), timeout_s=0.05
    ) as client:
        with pytest.raises(onebar.ClientTimeoutError):
            await client.queries("v")
