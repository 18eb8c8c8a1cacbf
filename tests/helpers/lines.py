"""A TCP line to a server that can be held, slowed down and cut."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

CHUNK = 65536
REPLICATES = b"PSYNC"
"""What a replica of Redis says where it begins to follow."""


class _Connection:
    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.replicates = False
        self.ways = 2

    def close(self) -> None:
        for writer in (self.near, self.far):
            writer.transport.abort()


class Line:
    """Leads to the server of a URL from a port of its own; both ways are held and slowed alike.

    Held, it takes connections and what is said on them, and nothing comes back: a black hole.
    """

    def __init__(self, url: str = "tcp://127.0.0.1:0") -> None:
        self._target = urlsplit(url)
        self._go = asyncio.Event()
        self._replicas_go = asyncio.Event()
        self._go.set()
        self._replicas_go.set()
        self._delay_s = 0.0
        self._closed = False
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.url = ""

    def hold(self) -> None:
        self._go.clear()

    def hold_replicas(self) -> None:
        """What goes to replicas of a Redis is held, and lost with the connection: they lag."""
        self._replicas_go.clear()

    def slow(self, delay_s: float) -> None:
        """Everything is on its way for so long."""
        self._delay_s = delay_s

    def cut(self) -> None:
        """Every connection is reset; new ones are taken."""
        for connection in list(self._connections):
            connection.close()

    def shut(self) -> None:
        """Every connection is reset, and so is each new one, as long as nobody releases it."""
        self._closed = True
        self.cut()

    def release(self) -> None:
        """As if nothing had been."""
        self._closed = False
        self._delay_s = 0.0
        self._go.set()
        self._replicas_go.set()

    def lead_to(self, url: str) -> None:
        """New connections go there; those that are open stay."""
        self._target = urlsplit(url)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, forth)
        self._connections.add(connection)
        for source, sink in ((reader, forth), (back, writer)):
            task = asyncio.create_task(self._pump(connection, source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(CHUNK):
                if sink is connection.far and REPLICATES in data:
                    connection.replicates = True
                await self._go.wait()
                if connection.replicates and sink is connection.near:
                    await self._replicas_go.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
            connection.ways -= 1
            if not connection.ways:
                self._connections.discard(connection)

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}{self._target.path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.cut()
