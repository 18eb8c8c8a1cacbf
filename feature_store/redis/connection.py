"""One connection to Redis for all calls of an event loop: commands go out as they come, replies
come back in their order.

redis-py takes a connection from a pool for each call and waits for each of its replies in turn;
that is nine tenths of what a small call costs this process. Opening the connection (address, TLS,
login, database) is left to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import hiredis
import redis.exceptions as errors
import structlog
from redis.asyncio import ConnectionPool

log = structlog.get_logger(__name__)

HEARTBEAT_S = 1.0
"""How often a watched connection is asked for a sign of life."""

REOPEN_AFTER_S = 1.0
"""How old a connection is at least before it is given up because it leads to a replica."""

Argument = str | bytes | int | float
Words = Sequence[Argument]

_INCOMPLETE = object()


class Watcher(Protocol):
    """Is told of changes to the keys that a connection has read (`CLIENT TRACKING`)."""

    def began(self) -> None:
        """Whatever is read from now on, its next change will be told."""
        ...

    def changed(self, names: Sequence[bytes] | None) -> None:
        """These keys have changed or gone; None: any may have."""
        ...

    def lost(self) -> None:
        """Nothing more will be told, and something may have been missed."""
        ...


class Connection:
    """Calls to one Redis server. Connects with the first call, and again after a loss."""

    def __init__(
        self, pool: ConnectionPool, *, timeout_s: float, watcher: Watcher | None = None
    ) -> None:
        """The pool says how connections are made; none of them is taken. A server that can't tell
        of changes never tells the watcher that it begins to."""
        self._pool = pool
        self._timeout_s = timeout_s
        self._watcher = watcher
        self._current: _OpenConnection | None = None
        self._opening: asyncio.Task[_OpenConnection] | None = None

    async def call(self, commands: Iterable[Words]) -> list[Any]:
        """The replies, in order; that of a command which Redis refused is its error.

        Commands that a broken connection may have lost, or that a server refused which is not the
        primary any more, are sent once more over a new one, so each must bear to be repeated: the
        address may lead elsewhere by then. Raises `ConnectionError` and `TimeoutError` of redis-py;
        the latter where Redis says nothing for `timeout_s` while somebody waits.
        """
        packed = [_pack(words) for words in commands]
        current = await self._open()
        try:
            replies = await current.ask(packed)
        except errors.ConnectionError:
            pass
        else:
            if current.usable or not current.demoted:
                return replies
        current = await self._open()
        return await current.ask(packed)

    async def close(self) -> None:
        """Close the connection. A later call opens another."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._current is not None:
            self._current.close()
            self._current = None

    async def _open(self) -> _OpenConnection:
        current = self._current
        if current is not None and current.usable:
            return current
        opening = self._opening
        if (
            opening is None
            or opening.done()
            or opening.get_loop() is not asyncio.get_running_loop()
        ):
            opening = self._opening = asyncio.create_task(self._reopen())
            opening.add_done_callback(_retrieve)
        # All who come meanwhile wait for the same connection, and any of them may go.
        return await asyncio.shield(opening)

    async def _reopen(self) -> _OpenConnection:
        if self._current is not None:
            self._current.close()
        current = _OpenConnection(await self._connect(), self._timeout_s)
        try:
            if self._watcher is not None:
                await current.watch(self._watcher)
        except BaseException:
            current.close()
            raise
        self._current = current
        return current

    async def _connect(self) -> asyncio.StreamWriter:
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        writer: asyncio.StreamWriter = connection._writer
        # From here on nobody reads it but us, and redis-py does not close it.
        connection._reader = connection._writer = None
        return writer


class _Call:
    __slots__ = ("future", "left", "replies")

    def __init__(self, count: int, future: asyncio.Future[list[Any]]) -> None:
        self.replies: list[Any] = []
        self.left = count
        self.future = future


class _OpenConnection(asyncio.Protocol):
    """An open connection, and who waits for what comes next on it."""

    def __init__(self, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        self._writer = writer  # closes its transport when it is no longer referred to
        self._transport = cast(asyncio.Transport, writer.transport)
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._waiting: deque[_Call] = deque()
        self._heard = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._watcher: Watcher | None = None
        self._opened = self._loop.time()
        self.demoted = False
        """Whether the server has said that it is not the primary any more."""
        self._reader = hiredis.Reader(
            protocolError=errors.InvalidResponse,
            replyError=self._refused,
            notEnoughData=_INCOMPLETE,
        )
        self._transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        given_up = self.demoted and self._loop.time() - self._opened >= REOPEN_AFTER_S
        return (
            not self._transport.is_closing()
            and not given_up
            and self._loop is asyncio.get_running_loop()
        )

    async def watch(self, watcher: Watcher) -> None:
        """Have the watcher told of changes, if the server can do that."""
        packed = [_pack(("HELLO",)), _pack(("CLIENT", "TRACKING", "ON"))]
        hello, tracking = await self.ask(packed)
        if isinstance(tracking, Exception):
            log.warning("redis_tells_no_changes", reason=str(tracking))
            return
        if not isinstance(hello, dict) or hello.get(b"proto") != 3:
            # It agrees to track, and has no way to tell.
            log.warning("redis_tells_no_changes", reason="the connection does not speak RESP3")
            return
        self._watcher = watcher
        watcher.began()
        self._loop.call_later(HEARTBEAT_S, self._beat)

    def _beat(self) -> None:
        """Ask for a sign of life now and then: no answer within the timeout ends the connection,
        whatever else comes in, and so does the answer of a server that is a replica now. Before
        the answer comes every change that was made until then."""
        if self._watcher is None or self._transport.is_closing():
            return
        answer = self.ask([_pack(("HELLO",)), _pack(("PING",))])
        answer.add_done_callback(self._look)
        self._loop.call_later(self._timeout_s, self._missed, answer)
        self._loop.call_later(HEARTBEAT_S, self._beat)

    def _look(self, answer: asyncio.Future[list[Any]]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        hello = answer.result()[0]
        if isinstance(hello, dict) and hello.get(b"role", b"master") != b"master":
            self._fail(errors.ConnectionError("the server is a replica now"))

    def _missed(self, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            self._fail(errors.TimeoutError(f"no sign of life for {self._timeout_s:g} s"))

    def ask(self, packed: Sequence[bytes]) -> asyncio.Future[list[Any]]:
        """Send at least one command; the replies to come. Raises `ConnectionError` if closed."""
        if self._transport.is_closing():
            raise errors.ConnectionError("the connection was closed")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self._waiting:
            self._heard = self._loop.time()
        self._waiting.append(_Call(len(packed), future))
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._timeout_s, self._check)
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        return future

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                if isinstance(reply, hiredis.PushNotification):
                    if self._watcher is not None and reply[0] == b"invalidate":
                        self._watcher.changed(reply[1])
                    continue
                call = self._waiting[0]
                call.replies.append(reply)
                call.left -= 1
                if call.left == 0:
                    self._waiting.popleft()
                    if not call.future.done():
                        call.future.set_result(call.replies)
        except (errors.InvalidResponse, IndexError) as error:
            self._fail(errors.ConnectionError(f"not the protocol of Redis: {error!r}"))

    def _refused(self, message: str) -> errors.ResponseError:
        if message.startswith(("READONLY", "MASTERDOWN")):
            self.demoted = True
        kind = errors.NoScriptError if message.startswith("NOSCRIPT") else errors.ResponseError
        return kind(message)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(errors.ConnectionError(f"the connection was lost: {error or 'closed'}"))

    def close(self) -> None:
        self._fail(errors.ConnectionError("the connection was closed"))

    def _check(self) -> None:
        """Give the connection up if Redis has said nothing for too long."""
        self._deadline = None
        if not self._waiting:
            return
        left = self._heard + self._timeout_s - self._loop.time()
        if left > 0:
            self._deadline = self._loop.call_later(left, self._check)
        else:
            self._fail(errors.TimeoutError(f"no answer for {self._timeout_s:g} s"))

    def _fail(self, error: Exception) -> None:
        if self._watcher is not None:
            self._watcher.lost()
            self._watcher = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._transport.abort()
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(error)


def _pack(words: Words) -> bytes:
    packed: bytes = hiredis.pack_command(cast(Any, tuple(words)))
    return packed


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # nobody may be left to see it; whoever asks next will see
