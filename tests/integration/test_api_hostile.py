"""Clients that mean harm, or are broken: the API goes on answering others, and its memory stays
bounded."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest
from support import eventually
from test_api_server import answers, server

from onebar.settings import Settings
from onebar.stack.servers import free_port

pytestmark = pytest.mark.integration

KEPT = 200
"""Connections that the server under test keeps."""


@contextmanager
def api(settings: Settings, log: Path, **change: Any) -> Iterator[tuple[str, int, Popen[bytes]]]:
    """A server: its address, its port and its process."""
    port = free_port()
    made = settings.model_copy(
        update={"api_port": port, "api_generate": False, "api_connections": KEPT, **change}
    )
    with server(made, log) as process:
        yield f"http://127.0.0.1:{port}", port, process


@asynccontextmanager
async def silent(port: int, count: int, said: bytes = b"") -> AsyncIterator[list[Any]]:
    """So many connections on which nothing more is said than this."""
    opened: list[Any] = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            opened.append((reader, writer))
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def told(port: int, said: bytes, within: float = 10.0) -> bytes:
    """All that comes back until the connection ends, after this was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        async with asyncio.timeout(within):
            return await reader.read()
    finally:
        writer.transport.abort()


def resident(process: Popen[bytes]) -> float:
    """MiB of a server and its workers."""
    pids = [process.pid]
    for tasks in Path(f"/proc/{process.pid}/task").glob("*/children"):
        pids += map(int, tasks.read_text().split())
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: local"
HALF_A_BODY = (
    b"POST /v1/queries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 500\r\n\r\n{"
)


async def test_connections_without_requests_keep_nobody_out(
    settings: Settings, tmp_path: Path
) -> None:
    """Silent from the start, in the midst of a head, after an answer: far more than are kept."""
    with api(settings, tmp_path / "api.log", api_idle_s=30.0) as (url, port, process):
        await eventually(lambda: answers(url), what="the API")
        before = resident(process)
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for said in (b"", HALF_A_HEAD, whole):
            async with silent(port, 2 * KEPT, said):

                async def closed() -> bool:
                    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
                        text = (await http.get("/metrics")).text
                    count = _value(text, "onebar_http_connections ")
                    return 0 < count <= KEPT * 1.3

                started = time.monotonic()
                async with httpx.AsyncClient(base_url=url, timeout=20) as http:
                    assert (await http.get("/healthz")).status_code == 200
                assert time.monotonic() - started < 15
                if said != HALF_A_HEAD:  # these may be about to say the rest
                    await eventually(closed, what="room")
        async with httpx.AsyncClient(base_url=url) as http:
            assert _value((await http.get("/metrics")).text, 'reason="connections"') > KEPT
        assert resident(process) - before < 60


def _value(metrics: str, name: str) -> float:
    lines = [line for line in metrics.splitlines() if name in line and not line.startswith("#")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def test_what_stalls_is_closed_in_time(settings: Settings, tmp_path: Path) -> None:
    change = {"api_idle_s": 3.0, "api_body_timeout_s": 1.0}
    with api(settings, tmp_path / "api.log", **change) as (url, port, _):
        await eventually(lambda: answers(url), what="the API")
        body, head, nothing = await asyncio.gather(
            told(port, HALF_A_BODY), told(port, HALF_A_HEAD), told(port, b"")
        )
        assert body.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in body
        assert (head, nothing) == (b"", b"")

        async def drip() -> bytes:
            """A byte of a head now and then."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 100:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.1)
                    if reader.at_eof():
                        break
            writer.transport.abort()
            return b"closed" if reader.at_eof() else b"open"

        assert await drip() == b"closed"


async def test_bodies_have_so_much_room_and_no_more(settings: Settings, tmp_path: Path) -> None:
    """Sixty clients with bodies of eight megabytes, which they send all but the end of."""
    change = {"api_bodies_mb": 16.0, "api_body_timeout_s": 4.0}
    with api(settings, tmp_path / "api.log", **change) as (url, port, process):
        await eventually(lambda: answers(url), what="the API")
        before = resident(process)
        size = 7_900_000
        head = (
            b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % size
        )
        chunked = (
            b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

        async def send(announced: bool) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = asyncio.create_task(reader.read(400))
            with contextlib.suppress(ConnectionError):
                writer.write(head if announced else chunked)
                for _ in range(78):
                    piece = b" " * 100_000
                    writer.write(piece if announced else b"186a0\r\n" + piece + b"\r\n")
                    await writer.drain()
                    if said.done():
                        break
            try:
                return await said
            except ConnectionError:
                return b""
            finally:
                writer.transport.abort()

        sending = [asyncio.create_task(send(n % 2 == 0)) for n in range(60)]
        most = 0.0
        while not all(task.done() for task in sending):
            most = max(most, resident(process))
            async with httpx.AsyncClient(base_url=url, timeout=10) as http:
                assert (await http.get("/healthz")).status_code == 200
            await asyncio.sleep(0.1)
        said = [task.result() for task in sending]
        shed = [one for one in said if b" 503 " in one]
        assert len(shed) > 20
        assert all(b"retry-after" in one.lower() for one in shed)
        assert most - before < 120, f"{before:.0f} MiB became {most:.0f}"
        async with httpx.AsyncClient(base_url=url) as http:
            text = (await http.get("/metrics")).text
        assert _value(text, "onebar_http_body_bytes ") == 0


async def test_odd_requests_are_refused_and_none_is_an_error_of_ours(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "api.log"
    with api(settings, log) as (url, port, process):
        await eventually(lambda: answers(url), what="the API")
        before = resident(process)
        post = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        giant = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"
        many = b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(500))
        assert b" 431 " in await told(port, giant)
        assert b" 431 " in await told(port, many + b"\r\n")
        long = b"Content-Length: %d\r\n\r\n"
        hundred_mb = post % b"/v1/events" + long % 100_000_000
        assert b" 413 " in await told(port, hundred_mb + b"[" * 1000, within=80)
        assert b" 400 " in await told(port, post % b"/v1/events" + long % 10**30)
        pipelined = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
        last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await told(port, pipelined + last)).count(b"HTTP/1.1 200") == 201
        async with httpx.AsyncClient(base_url=url) as http:
            json = {"Content-Type": "application/json"}
            bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
            refused = await http.post(
                "/v1/events", content=bomb, headers={**json, "Content-Encoding": "gzip"}
            )
            assert refused.status_code == 415
            for depth in (500, 980, 1500, 100_000):
                for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
                    inside = (
                        f'{{"requests":[{{"video_id":"v"}}],"more":{text}}}',
                        f'{{"requests":{text}}}',
                        text,
                    )
                    for body in inside:
                        response = await http.post("/v1/queries", content=body, headers=json)
                        assert response.status_code in (200, 422), response.text
                        response = await http.post("/v1/events", content=body, headers=json)
                        assert response.status_code in (413, 422), response.text
                        response = await http.put("/v1/rules/r", content=body, headers=json)
                        assert response.status_code in (413, 422), response.text

        async def leave() -> None:
            """Disconnect in the midst of a body, and before an answer."""
            for said in (HALF_A_BODY, HALF_A_HEAD, b"GET /v1/feed HTTP/1.1\r\nHost: a\r\n\r\n"):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(said)
                await writer.drain()
                writer.transport.abort()

        for _ in range(10):
            await asyncio.gather(*(leave() for _ in range(20)))
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/healthz")).status_code == 200
        assert resident(process) - before < 100
    said = log.read_text()
    assert "Traceback" not in said
    assert "request_failed" not in said


async def test_it_ends_in_time_whatever_hangs_on_it(settings: Settings, tmp_path: Path) -> None:
    with api(settings, tmp_path / "api.log") as (url, port, process):
        await eventually(lambda: answers(url), what="the API")
        async with silent(port, 20), silent(port, 20, HALF_A_HEAD), silent(port, 20, HALF_A_BODY):
            started = time.monotonic()
            process.terminate()
            await asyncio.to_thread(process.wait, 30)
            assert time.monotonic() - started < 12


def test_a_process_of_few_files_keeps_fewer_connections(settings: Settings, tmp_path: Path) -> None:
    """Each connection is an open file: more than there may be would end in errors of others."""
    if os.name != "posix":
        pytest.skip("limits of open files are POSIX's")
    import resource

    from api.server import FILES, SPARE, most_connections

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert most_connections(10) == 10
        assert 0 < most_connections(10**9) <= (hard - FILES) / (1 + SPARE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
