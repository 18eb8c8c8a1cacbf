"""The shared connection: whose reply is whose, whatever the server and the network do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import hiredis
import pytest
import redis.exceptions as errors
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool
from serving import serving

import feature_store.redis.client
import feature_store.redis.connection
from feature_store.redis.client import (
    Command,
    ConnectedRedis,
    StoreUnavailableError,
    StoreUnfitError,
    connect,
    pipelined,
)
from feature_store.redis.connection import Connection

TIMEOUT_S = 0.5
HANDSHAKE = {
    b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
    b"CLIENT": b"+OK\r\n",
    b"SELECT": b"+OK\r\n",
}

Words = list[bytes]
Reply = Callable[["Visit", Words], None]


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Visit:
    """One connection to the fake server."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._writer = writer

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    def hang_up(self) -> None:
        self._writer.transport.abort()


def echo(visit: Visit, words: Words) -> None:
    visit.say(bulk(words[1]))


@asynccontextmanager
async def fake_redis(answer: Reply = echo) -> AsyncIterator[tuple[Connection, list[Words]]]:
    """A server that shakes hands and then answers as told; a connection to it, and
    what it was asked."""
    asked: list[Words] = []
    visits = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        visit = Visit(visits, writer)
        commands = hiredis.Reader(notEnoughData=...)
        while data := await reader.read(65_536):
            commands.feed(data)
            while (words := commands.gets()) is not ...:
                if words[0] in HANDSHAKE:
                    visit.say(HANDSHAKE[words[0]])
                else:
                    asked.append(words)
                    answer(visit, words)

    async with serving(talk) as port:
        connection = Connection(
            ConnectionPool.from_url(f"redis://127.0.0.1:{port}"), timeout_s=TIMEOUT_S
        )
        try:
            yield connection, asked
        finally:
            await connection.close()


@settings(deadline=None, max_examples=30)
@given(
    calls=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), max_size=12),
    chunk=st.integers(1, 64),
)
def test_each_call_gets_its_own_replies_however_they_are_cut(
    calls: list[list[bytes]], chunk: int
) -> None:
    async def check() -> None:
        def answer(visit: Visit, words: Words) -> None:
            reply = bulk(words[1])
            for at in range(0, len(reply), chunk):
                visit.say(reply[at : at + chunk])

        async with fake_redis(answer) as (connection, _):
            found = await asyncio.gather(
                *(connection.call([("ECHO", word) for word in call]) for call in calls)
            )
        assert found == calls

    asyncio.run(check())


async def test_what_redis_says_of_its_own_accord_is_nobodys_reply() -> None:
    def answer(visit: Visit, words: Words) -> None:
        visit.say(b">2\r\n$10\r\ninvalidate\r\n*0\r\n")
        echo(visit, words)

    async with fake_redis(answer) as (connection, _):
        assert await connection.call([("ECHO", "a"), ("ECHO", "b")]) == [b"a", b"b"]


async def test_a_refusal_stands_where_its_reply_would() -> None:
    def answer(visit: Visit, words: Words) -> None:
        if words[0] == b"ECHO":
            echo(visit, words)
        else:
            visit.say(b"-%b of that\r\n" % words[0])

    async with fake_redis(answer) as (connection, _):
        found = await connection.call([("ECHO", "a"), ("WRONGTYPE",), ("NOSCRIPT",), ("ECHO", "b")])
    assert (found[0], found[3]) == (b"a", b"b")
    assert type(found[1]) is errors.ResponseError
    assert str(found[1]) == "WRONGTYPE of that"
    assert isinstance(found[2], errors.NoScriptError)


async def test_a_broken_connection_is_made_again_once_for_each_call() -> None:
    def answer(visit: Visit, words: Words) -> None:
        if visit.number == 1 and words[1] == b"c":
            visit.say(bulk(b"half a reply")[:7])
            visit.hang_up()
        else:
            echo(visit, words)

    async with fake_redis(answer) as (connection, asked):
        assert await connection.call([("ECHO", "a")]) == [b"a"]
        found = await asyncio.gather(*(connection.call([("ECHO", word)]) for word in "bcd"))
        assert found == [[b"b"], [b"c"], [b"d"]]
        assert [words[1] for words in asked].count(b"c") == 2


@pytest.mark.parametrize("refusal", [b"READONLY You can't write", b"MASTERDOWN Link is down"])
async def test_a_server_that_is_a_replica_now_is_looked_for_anew(
    monkeypatch: pytest.MonkeyPatch, refusal: bytes
) -> None:
    """Behind the same address may be another by now: a connection to the old one lives on."""
    monkeypatch.setattr(feature_store.redis.connection, "REOPEN_AFTER_S", 0.0)

    def answer(visit: Visit, words: Words) -> None:
        if visit.number == 1 and words[0] == b"SET":
            visit.say(b"-%b against a read only replica\r\n" % refusal)
        else:
            echo(visit, words)

    async with fake_redis(answer) as (pipe, asked):
        assert await pipe.call([("ECHO", "a")]) == [b"a"]
        assert await pipe.call([("SET", "b", "1"), ("ECHO", "c")]) == [b"b", b"c"]
        assert [words[1] for words in asked] == [b"a", b"b", b"c", b"b", b"c"]
        await pipe.call([("ECHO", "d")])
        assert len(asked) == 6


async def test_a_replica_is_not_asked_over_a_new_connection_each_time() -> None:
    visits: set[int] = set()

    def answer(visit: Visit, words: Words) -> None:
        visits.add(visit.number)
        visit.say(b"-READONLY You can't write\r\n")

    async with fake_redis(answer) as (pipe, _):
        for _ in range(20):
            [refused] = await pipe.call([("SET", "a", "1")])
            assert "READONLY" in str(refused)
        assert len(visits) == 1


async def test_a_watched_connection_to_a_replica_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_store.redis.connection, "HEARTBEAT_S", 0.05)
    told = Told()

    def answer(visit: Visit, words: Words) -> None:
        if words[0] == b"PING":
            visit.say(b"+PONG\r\n")
        else:
            echo(visit, words)

    async with fake_redis(answer) as (pipe, _):
        pipe = watched(pipe, told)
        await pipe.call([("ECHO", "x")])
        replica = b"%2\r\n$5\r\nproto\r\n:3\r\n$4\r\nrole\r\n$7\r\nreplica\r\n"
        monkeypatch.setitem(HANDSHAKE, b"HELLO", replica)
        assert await told.until(2) == ["began", "lost"]
        await pipe.close()


async def test_a_server_that_always_hangs_up_is_away() -> None:
    async with fake_redis(lambda visit, _: visit.hang_up()) as (connection, asked):
        with pytest.raises(errors.ConnectionError):
            await connection.call([("ECHO", "a")])
        assert len(asked) == 2


async def test_a_connection_that_was_closed_meanwhile_is_no_loss() -> None:
    visits: list[Visit] = []

    def answer(visit: Visit, words: Words) -> None:
        visits.append(visit)
        echo(visit, words)

    async with fake_redis(answer) as (connection, asked):
        assert await connection.call([("ECHO", "a")]) == [b"a"]
        visits[0].hang_up()
        assert await connection.call([("ECHO", "b")]) == [b"b"]
        assert len(asked) >= 2
        await connection.close()
        assert await connection.call([("ECHO", "c")]) == [b"c"]


async def test_silence_is_a_timeout_and_the_next_call_starts_afresh() -> None:
    def answer(visit: Visit, words: Words) -> None:
        if visit.number > 1:
            echo(visit, words)

    async with fake_redis(answer) as (connection, _):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(errors.TimeoutError):
            await connection.call([("ECHO", "a")])
        assert TIMEOUT_S <= loop.time() - began < 10 * TIMEOUT_S
        assert await connection.call([("ECHO", "b")]) == [b"b"]


async def test_replies_that_go_on_coming_may_take_their_time() -> None:
    loop = asyncio.get_running_loop()

    def answer(visit: Visit, words: Words) -> None:
        loop.call_later(int(words[2]) * TIMEOUT_S * 0.6, echo, visit, words)

    async with fake_redis(answer) as (connection, _):
        began = loop.time()
        words = [("ECHO", f"{n}", n) for n in range(4)]
        assert await connection.call(words) == [b"0", b"1", b"2", b"3"]
        assert loop.time() - began > TIMEOUT_S


async def test_the_reply_of_one_who_has_gone_is_not_the_next_ones() -> None:
    loop = asyncio.get_running_loop()

    def answer(visit: Visit, words: Words) -> None:
        loop.call_later(0.05, echo, visit, words)

    async with fake_redis(answer) as (connection, asked):
        gone = asyncio.create_task(connection.call([("ECHO", "gone")]))
        async with asyncio.timeout(10):
            while not asked:  # noqa: ASYNC110 - the server makes it true
                await asyncio.sleep(0.001)
        gone.cancel()
        assert await connection.call([("ECHO", "stays")]) == [b"stays"]
        assert gone.cancelled()


async def test_what_is_not_the_protocol_is_an_error() -> None:
    async with fake_redis(lambda visit, _: visit.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (
        connection,
        asked,
    ):
        with pytest.raises(errors.ConnectionError, match="protocol"):
            await connection.call([("ECHO", "a")])
        assert len(asked) == 2


async def test_more_replies_than_were_asked_for_end_the_connection() -> None:
    """Whose would the next one be?"""
    visits: list[int] = []

    def answer(visit: Visit, words: Words) -> None:
        visits.append(visit.number)
        visit.say((bulk(words[1])) * (3 if visit.number == 1 else 1))

    async with fake_redis(answer) as (connection, _):
        assert await connection.call([("ECHO", "a")]) == [b"a"]
        assert await connection.call([("ECHO", "b")]) == [b"b"]
        assert visits == [1, 2]


def test_a_client_may_be_used_on_one_event_loop_after_another() -> None:
    async def check(connections_made: list[Connection]) -> None:
        async with fake_redis() as (connection, _):
            if connections_made:  # the old one, sent to the new server
                connections_made[0]._pool = connection._pool
                connection = connections_made[0]
            connections_made.append(connection)
            assert await connection.call([("ECHO", "a")]) == [b"a"]

    connections_made: list[Connection] = []
    asyncio.run(check(connections_made))
    asyncio.run(check(connections_made))


async def test_nobody_there_is_told_as_the_store_tells_it() -> None:
    client = connect("redis://127.0.0.1:1", timeout_s=TIMEOUT_S)
    assert isinstance(client, ConnectedRedis)
    with pytest.raises(StoreUnavailableError, match="ONEBAR_REDIS_URL"):
        await pipelined(client, [Command("GET", ("a",))])
    await client.aclose()


class Told:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.heard = asyncio.Event()

    def began(self) -> None:
        self.note("began")

    def changed(self, names: Sequence[bytes] | None) -> None:
        self.note(names)

    def lost(self) -> None:
        self.note("lost")

    def note(self, what: object) -> None:
        self.said.append(what)
        self.heard.set()

    async def until(self, count: int) -> list[object]:
        async with asyncio.timeout(10):
            while len(self.said) < count:
                self.heard.clear()
                await self.heard.wait()
        return self.said


def watched(connection: Connection, told: Told) -> Connection:
    return Connection(connection._pool, timeout_s=TIMEOUT_S, watcher=told)


async def test_changes_are_told_in_their_place() -> None:
    told = Told()

    def answer(visit: Visit, words: Words) -> None:
        visit.say(b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n")
        echo(visit, words)
        visit.say(b">2\r\n$10\r\ninvalidate\r\n_\r\n")
        visit.say(b">2\r\n$7\r\nunheard\r\n*0\r\n")

    async with fake_redis(answer) as (connection, _):
        connection = watched(connection, told)
        assert await connection.call([("ECHO", "x")]) == [b"x"]
        assert told.said == ["began", [b"a", b"b"], None]
        await connection.close()
        assert told.said[3:] == ["lost"]
        await connection.call([("ECHO", "x")])
        assert told.said[4] == "began"
        await connection.close()
        assert told.said.count("lost") == 2


async def test_a_lost_connection_is_told_once_and_the_next_begins_anew() -> None:
    told = Told()
    visits: list[Visit] = []

    def answer(visit: Visit, words: Words) -> None:
        visits.append(visit)
        echo(visit, words)

    async with fake_redis(answer) as (connection, _):
        connection = watched(connection, told)
        await connection.call([("ECHO", "x")])
        visits[0].hang_up()
        assert await told.until(2) == ["began", "lost"]
        await connection.call([("ECHO", "x")])
        assert told.said == ["began", "lost", "began"]
        await connection.close()


async def test_a_connection_that_fell_silent_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store.redis.connection, "HEARTBEAT_S", 0.05)
    told = Told()
    beats = 0

    def answer(visit: Visit, words: Words) -> None:
        nonlocal beats
        if words[0] == b"PING":
            beats += 1
            if beats <= 3:
                visit.say(b"+PONG\r\n")
        else:
            echo(visit, words)

    async with fake_redis(answer) as (connection, _):
        connection = watched(connection, told)
        await connection.call([("ECHO", "x")])
        assert await told.until(2) == ["began", "lost"]
        assert beats > 3
        await connection.close()


@pytest.mark.parametrize(
    ("asked", "reply", "protocol"),
    [
        (b"CLIENT", b"-ERR unknown subcommand\r\n", 3),
        # In RESP2 Redis agrees to track and tells nothing.
        (b"HELLO", b"*2\r\n$5\r\nproto\r\n:2\r\n", 2),
    ],
)
async def test_a_server_that_cannot_tell_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, asked: bytes, reply: bytes, protocol: int
) -> None:
    monkeypatch.setitem(HANDSHAKE, asked, reply)
    told = Told()
    async with fake_redis() as (connection, _):
        port = connection._pool.connection_kwargs["port"]
        pool = ConnectionPool.from_url(f"redis://127.0.0.1:{port}?protocol={protocol}")
        connection = Connection(pool, timeout_s=TIMEOUT_S, watcher=told)
        assert await connection.call([("ECHO", "x")]) == [b"x"]
        await connection.close()
    assert told.said == []


async def test_a_heartbeat_is_waited_for_whatever_else_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Changes wait where its answer waits."""
    monkeypatch.setattr(feature_store.redis.connection, "HEARTBEAT_S", 0.05)
    told = Told()

    def answer(visit: Visit, words: Words) -> None:
        if words[0] != b"PING":
            echo(visit, words)

    async with fake_redis(answer) as (connection, _):
        connection = watched(connection, told)
        loop = asyncio.get_running_loop()
        await connection.call([("ECHO", "x")])
        began = loop.time()
        while told.said == ["began"]:
            # Behind an unanswered PING nothing is answered; an answer to no question would be an
            # error of its own, so what trickles in here is news.
            visit_news(connection)
            await asyncio.sleep(0.01)
        assert told.said[-1] == "lost"
        assert loop.time() - began < 2 * TIMEOUT_S + 0.05
        await connection.close()


def visit_news(connection: Connection) -> None:
    """Have bytes come in that answer nothing."""
    assert connection._current is not None
    connection._current.data_received(b">2\r\n$7\r\nunheard\r\n*0\r\n")


async def test_whoever_gives_up_while_it_connects_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visits: set[int] = set()

    def answer(visit: Visit, words: Words) -> None:
        visits.add(visit.number)
        echo(visit, words)

    async with fake_redis(answer) as (connection, _):
        connect, connections = connection._connect, 0

        async def slowly() -> asyncio.StreamWriter:
            nonlocal connections
            connections += 1
            await asyncio.sleep(0.05)
            return await connect()

        monkeypatch.setattr(connection, "_connect", slowly)
        gone = [asyncio.create_task(connection.call([("ECHO", "x")])) for _ in range(20)]
        await asyncio.sleep(0)
        for task in gone[:19]:
            task.cancel()
        assert await gone[19] == [b"x"]
        assert connections == 1
        assert visits == {1}


async def test_an_old_connection_is_told_of_before_the_new_one_begins() -> None:
    told = Told()
    async with fake_redis() as (connection, _):
        connection = watched(connection, told)
        await connection.call([("ECHO", "x")])
        old = connection._current
        assert old is not None
        old._transport.close()  # is closing, and has not told yet
        await connection.call([("ECHO", "x")])
        await asyncio.sleep(0)
        assert told.said == ["began", "lost", "began"]
        await connection.close()


async def test_a_node_of_a_cluster_that_does_not_answer_is_away_and_not_unfit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """redis-py gives such an error in the place of the reply."""
    client = connect("redis+cluster://127.0.0.1:1", timeout_s=TIMEOUT_S)

    async def replies(*_: object) -> list[object]:
        return [b"1", errors.ConnectionError("Connection closed by server.")]

    monkeypatch.setattr(feature_store.redis.client, "_send_to_cluster", replies)
    with pytest.raises(StoreUnavailableError, match="cannot be reached") as caught:
        await pipelined(client, [Command("GET", ("a",)), Command("GET", ("b",))])
    assert not isinstance(caught.value, StoreUnfitError)
    await client.aclose()
