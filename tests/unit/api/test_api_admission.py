"""What is let in, and what goes: connections, bodies, calls to servers that are away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.breaker import FAILURES, Breaker
from api.connections import OWED_S, QUIET_S, Seen, to_close
from api.http.body import Bodies
from api.http.lag import Lag
from api.http.problems import ProblemError, UnavailableError
from api.http.room import Room
from api.routes.events import split

SEEN = st.builds(
    Seen,
    descriptor=st.integers(3, 10**6),
    peer=st.tuples(st.just("127.0.0.1"), st.integers(1, 65535)),
    sent_s=st.floats(0, 200),
    heard_s=st.floats(0, 200),
    answered=st.booleans(),
    spoke=st.booleans(),
)


@given(st.lists(SEEN, max_size=40), st.integers(1, 40))
def test_no_more_is_closed_than_has_to_be(seen: list[Seen], most: int) -> None:
    closing = to_close(seen, most, longest_s=100.0)
    assert all(one in closing for one in seen if one.quiet_s >= 100)
    for one in closing:
        assert one.quiet_s >= QUIET_S or one.owed_s >= OWED_S, "it was doing something"
    if len(seen) <= most:
        assert all(one.quiet_s >= 100 for one in closing)
    beyond = [one for one in closing if one.quiet_s < 100]
    assert not beyond or len(seen) - len(closing) >= int(most * 0.9)


def test_who_never_spoke_goes_first_and_the_longest_quiet_before_others() -> None:
    def connection(number: int, quiet_s: float, *, spoke: bool) -> Seen:
        return Seen(number, ("127.0.0.1", number), quiet_s, quiet_s + 1, spoke, spoke)

    seen = [
        *(connection(n, 50.0 + n, spoke=True) for n in range(10, 15)),
        *(connection(n, 2.0 + n, spoke=False) for n in range(20, 25)),
        connection(30, 0.1, spoke=False),
    ]
    assert [one.descriptor for one in to_close(seen, 5, 1000.0)] == [24, 23, 22, 21, 20, 14, 13]


def body_of(*pieces: bytes, **headers: str) -> tuple[dict[str, Any], Any]:
    """A scope, and the `receive` that brings the pieces and then nothing more."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": piece != pieces[-1]}

    named = {"content-type": "application/json", **headers}
    return {"headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in named.items()]}, (
        receive
    )


async def test_bodies_are_held_up_to_the_end_of_their_block_and_no_longer() -> None:
    room = Room(requests=2, body_bytes=10)
    bodies = Bodies(room, timeout_s=0.05)
    async with bodies.read(*body_of(b"12345", b"678", content_length="8"), 100) as body:
        assert (body, room.body_bytes) == (b"12345678", 8)
        with pytest.raises(UnavailableError) as caught:
            async with bodies.read(*body_of(b"abc", content_length="3"), 100):
                pass
        assert caught.value.status == 503
        assert caught.value.headers["Retry-After"] == "1"
        with pytest.raises(UnavailableError):  # one that does not say how long it is
            async with bodies.read(*body_of(b"ab", b"c"), 100):
                pass
    assert room.body_bytes == 0


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    room = Room(requests=1, body_bytes=100)
    scope, receive = body_of(b"1", content_length="8")

    async def stalled() -> dict[str, Any]:
        message: dict[str, Any] = await receive()
        return {**message, "more_body": True}

    with pytest.raises(ProblemError) as caught:
        async with Bodies(room, timeout_s=0.01).read(scope, stalled, 100):
            pass
    assert caught.value.status == 408
    assert caught.value.headers["Connection"] == "close"
    assert room.body_bytes == 0


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate"])
async def test_nothing_is_unpacked(encoding: str) -> None:
    bodies = Bodies(Room(requests=1, body_bytes=100), timeout_s=1)
    with pytest.raises(ProblemError) as caught:
        async with bodies.read(*body_of(b"x", content_encoding=encoding), 100):
            pass
    assert caught.value.status == 415


def test_so_many_requests_and_no_more() -> None:
    room = Room(requests=1, body_bytes=1)
    with room.request(), pytest.raises(UnavailableError), room.request():
        pass
    with room.request():
        assert room.requests == 1
    assert room.requests == 0


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


class Server:
    """One that can be away, or say nothing."""

    def __init__(self) -> None:
        self.away = False
        self.calls = 0
        self.go = asyncio.Event()
        self.go.set()

    async def ask(self) -> str:
        self.calls += 1
        if self.away:
            raise ConnectionError("away")
        await self.go.wait()
        return "here"

    def breaker(self) -> Breaker:
        return Breaker(
            "test",
            probe=self.ask,
            away=RuntimeError,
            counts=lambda error: isinstance(error, ConnectionError),
            stall_s=0.02,
            probe_s=0.01,
        )


async def test_a_server_that_fails_is_asked_no_more_until_it_is_back() -> None:
    server = Server()
    breaker = server.breaker()
    assert await breaker.call(server.ask) == "here"
    server.away = True
    for _ in range(FAILURES):
        assert not breaker.open
        with pytest.raises(ConnectionError):
            await breaker.call(server.ask)
    assert breaker.open
    with pytest.raises(RuntimeError, match="away"):
        await breaker.call(server.ask)
    server.away = False
    await until(lambda: not breaker.open)
    assert await breaker.call(server.ask) == "here"
    await breaker.stop()


async def test_a_server_that_says_nothing_counts_as_away() -> None:
    server = Server()
    breaker = server.breaker()
    server.go.clear()
    waiting = asyncio.create_task(breaker.call(server.ask))
    await until(lambda: breaker.open)
    with pytest.raises(RuntimeError):
        await breaker.call(server.ask)
    server.go.set()
    assert await waiting == "here"
    await until(lambda: not breaker.open)
    await breaker.stop()


async def test_what_callers_give_up_says_nothing_of_the_server() -> None:
    server = Server()
    breaker = server.breaker()
    server.go.clear()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await breaker.call(server.ask)
    assert not breaker.open
    await breaker.stop()


async def test_the_lag_is_how_long_the_loop_was_held_up() -> None:
    lag = Lag()
    lag.start()
    await asyncio.sleep(0.03)
    time.sleep(0.1)  # noqa: ASYNC251
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert lag.recent > 0.05
    lag.stop()


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_a_body_is_split_into_what_it_is_made_of(parts: list[bytes]) -> None:
    values = [part.decode("latin-1") for part in parts]
    assert [orjson.loads(part) for part in split(orjson.dumps(values))] == values
    assert orjson.loads(split(b" " + orjson.dumps({"a": values}))[0]) == {"a": values}


@pytest.mark.parametrize("body", [b"", b"[", b"[1,]", b"{", b"nope", b"[1] x", b"\xff"])
def test_what_is_no_json_is_split_into_nothing(body: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        split(body)
    assert caught.value.status == 422
