"""Connections of clients: how many a process keeps, and which of them it closes.

The server (granian, hyper) closes those on which the head of a request does not come in time. Left
to us are the ones that it waits for without end (a reader that has stopped reading, a peer that is
gone), and making room: where there are as many as there may be, those that do least go, so that
nobody is kept out by connections on which nothing happens. The kernel says what a connection does
(`TCP_INFO`); where it does not, all stay until the server closes them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import structlog

from api.http.metrics import CONNECTIONS, CONNECTIONS_LIMIT, SHED

log = structlog.get_logger(__name__)

LOOK_S = 1.0
"""How often they are looked at."""
AT_ONCE = 100
"""Connections looked at in between two looks of the event loop at anything else."""
PAUSE_S = 0.01
QUIET_S = 1.0
"""Where there is no room: a connection without a word for so long may go."""
OWED_S = 15.0
"""And one that has been owed an answer for so long: none takes that long."""
ROOM_AGAIN = 0.9
"""Share of connections that are kept when there was no room."""

TCP_INFO = 11
INFO_BYTES = 136
_TIMES = struct.Struct("=44xI4xI")
"""Milliseconds since something was sent, and since something was received (linux/tcp.h)."""
_COUNTS = struct.Struct("=120xQQ")
"""Bytes that the peer has acknowledged, and that it has sent."""


class Seen(NamedTuple):
    """A connection as the kernel sees it: seconds since anything was sent and received (since it
    was opened, where never), and whether either side has sent anything yet."""

    descriptor: int
    peer: tuple[str, int]
    sent_s: float
    heard_s: float
    answered: bool
    spoke: bool

    @property
    def quiet_s(self) -> float:
        """For how long nothing has come or gone."""
        return min(self.sent_s, self.heard_s)

    @property
    def owed_s(self) -> float:
        """For how long at least an answer has been due, 0.0 where none is."""
        return self.sent_s if self.heard_s < self.sent_s and self.spoke else 0.0


def to_close(seen: Sequence[Seen], most: int, longest_s: float) -> list[Seen]:
    """Which connections to close: all without a word for `longest_s`, and where more than `most`
    are left those that do least. Pure.

    That is first whoever never said anything, then whoever has an answer, then whoever has been
    owed one for too long to mean to take it; among these the longest quiet.
    """
    closing = [one for one in seen if one.quiet_s >= longest_s]
    left = [one for one in seen if one.quiet_s < longest_s]
    if len(left) <= most:
        return closing
    silent = [one for one in left if not one.spoke and one.quiet_s >= QUIET_S]
    idle = [one for one in left if one.spoke and not one.owed_s and one.quiet_s >= QUIET_S]
    owed = [one for one in left if one.owed_s >= OWED_S]
    silent.sort(key=lambda one: -one.quiet_s)
    idle.sort(key=lambda one: -one.quiet_s)
    owed.sort(key=lambda one: -one.owed_s)
    return closing + (silent + idle + owed)[: len(left) - int(most * ROOM_AGAIN)]


class Doorkeeper:
    """Looks at the connections to a port and closes those that have to go."""

    def __init__(self, port: int, *, most: int, idle_s: float) -> None:
        """`idle_s` is the server's own limit; what it does not close is closed a little later."""
        self._port = port
        self._most = most
        self._longest_s = 1.2 * idle_s + 1

    async def watch(self) -> None:
        """Until cancelled."""
        CONNECTIONS_LIMIT.set(self._most)
        while True:
            seen: list[Seen] = []
            numbers = _descriptors()
            for at in range(0, len(numbers), AT_ONCE):
                seen += self._look(numbers[at : at + AT_ONCE])
                if at:
                    await asyncio.sleep(PAUSE_S)
            CONNECTIONS.set(len(seen))
            closing = to_close(seen, self._most, self._longest_s)
            closed = 0
            for at, one in enumerate(closing):
                closed += _close(one, self._port)
                if at % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(PAUSE_S)
            if closed:
                SHED.labels("connections").inc(closed)
                log.warning("connections_closed", closed=closed, of=len(seen), kept=self._most)
            await asyncio.sleep(LOOK_S)

    def _look(self, numbers: Iterable[int]) -> list[Seen]:
        found = (_seen(number, self._port) for number in numbers)
        return [one for one in found if one is not None]


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return []


def _seen(number: int, port: int) -> Seen | None:
    """What a descriptor is, if it is a connection of a client."""
    try:
        borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=number)
    except OSError:
        return None
    try:
        if borrowed.getsockname()[1] != port:
            return None
        peer = borrowed.getpeername()
        info = borrowed.getsockopt(socket.IPPROTO_TCP, TCP_INFO, INFO_BYTES)
        sent_ms, heard_ms = _TIMES.unpack_from(info)
        acknowledged, received = _COUNTS.unpack_from(info)
    except (OSError, IndexError, TypeError, struct.error):  # no connection, or of another kind
        return None
    finally:
        borrowed.detach()
    # What opened the connection counts as a byte that was acknowledged.
    return Seen(number, peer[:2], sent_ms / 1000, heard_ms / 1000, acknowledged > 1, received > 0)


def _close(one: Seen, port: int) -> bool:
    """End a connection under the server, which sees that the peer is gone, unless it is another
    connection by now."""
    try:
        # Of our own, so that it stays what it is.
        own = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=os.dup(one.descriptor))
    except OSError:
        return False
    with own:
        try:
            if own.getpeername()[:2] != one.peer or own.getsockname()[1] != port:
                return False
            own.shutdown(socket.SHUT_RDWR)
        except (OSError, IndexError, TypeError):
            return False
    return True
