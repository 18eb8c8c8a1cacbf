"""The servers that faults befall, and lines to them; the processes of OneBar on them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import httpx
from lines import Line

from deploy.real_servers import (
    CACHE,
    MissingServerError,
    Server,
    free_port,
    missing_programs,
    start_brokers,
    start_redis,
    start_watched_redis,
)
from feature_store.opening import open_store
from feature_store.redis.client import StoreUnavailableError
from feature_store.store import FeatureStore
from onebar.process.tasks import end_tasks
from onebar.settings import Settings
from onebar.stack.processes import Children
from stream.kafka.topics import ensure_topics
from tests.faults.feed import Feed
from tests.faults.fleet import Fleet
from tests.faults.nodes import Nodes
from tests.faults.script import first_batch, shown_videos

Redis = Literal["sentinel", "cluster", "one"]
REDIS: tuple[Redis, ...] = ("sentinel", "sentinel", "cluster", "one")
"""What a seed draws from."""
NODES: dict[Redis, int] = {"sentinel": 2, "cluster": 6, "one": 1}
BROKERS = 3
DOWN_AFTER_MS = 3000
"""As long as a primary may be silent: on a busy machine one is for a second without any fault."""
LOOK_S = 1.0
TELL_S = 30.0
WITHIN_S = 300.0
"""What anything may take to be as it was, on a machine that does other things as well."""


class Servers:
    """Where the servers are, those that can be killed, and the lines that lead to them."""

    def __init__(self, bootstrap: str, redis_url: str) -> None:
        self.bootstrap = bootstrap
        """For a producer that no fault of a line befalls."""
        self.lined = bootstrap
        """For everyone else."""
        self.redis_url = redis_url
        self.brokers: list[Server] = []
        self.nodes: list[Server] = []
        self.redis_nodes = Nodes()
        self.kafka_lines: list[Line] = []
        self.redis_lines: list[Line] = []
        self.redis: Redis = "one"
        self.replicas = 1


@asynccontextmanager
async def own_servers(redis: Redis) -> AsyncIterator[Servers]:
    """Three brokers of Apache Kafka, and a Redis of this kind, each node behind a line. Raises
    `MissingServerError`."""
    missing = missing_programs()
    if missing:
        raise MissingServerError("not installed:\n  " + "\n  ".join(missing))
    work, logs = CACHE / "faults" / "data", CACHE / "faults" / "logs"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    logs.mkdir(parents=True, exist_ok=True)
    started: list[Server] = []
    made = Servers("", "")
    made.redis, made.replicas = redis, BROKERS
    async with AsyncExitStack() as stack:
        try:
            ports = {}
            for kind, count in (("kafka", BROKERS), ("redis", NODES[redis])):
                lines = made.kafka_lines if kind == "kafka" else made.redis_lines
                ports[kind] = [free_port() for _ in range(count)]
                for port in ports[kind]:
                    line = Line(f"tcp://127.0.0.1:{port}")
                    lines.append(await stack.enter_async_context(line))
            behind = {
                "kafka": [*zip(ports["kafka"], (x.port for x in made.kafka_lines), strict=True)],
                "redis": [*zip(ports["redis"], (x.port for x in made.redis_lines), strict=True)],
            }

            def start() -> None:
                if redis == "sentinel":
                    made.redis_url = start_watched_redis(
                        *(work, logs, started),
                        behind=behind["redis"],
                        down_after_ms=DOWN_AFTER_MS,
                    )
                else:
                    made.redis_url = start_redis(
                        *(work, logs, started),
                        nodes=NODES[redis],
                        behind=behind["redis"],
                        kept=True,
                    )
                made.nodes = [server for server in started if server.name.startswith("Redis")]
                made.redis_nodes = Nodes(ports["redis"])
                made.bootstrap = start_brokers(BROKERS, work, logs, started, behind=behind["kafka"])
                made.brokers = [server for server in started if server.name.startswith("Kafka")]

            await asyncio.to_thread(start)
            made.lined = ",".join(f"127.0.0.1:{line.port}" for line in made.kafka_lines)
            yield made
        finally:
            for server in reversed(started):
                server.kill()  # what they hold is thrown away, and a quorum that ends takes long
            shutil.rmtree(work, ignore_errors=True)


@asynccontextmanager
async def given_servers(bootstrap: str, redis_url: str) -> AsyncIterator[Servers]:
    """Servers that run already, with a line to Redis; Kafka tells its clients its own address."""
    made = Servers(bootstrap, redis_url)
    async with Line(redis_url) as line:
        made.redis_lines.append(line)
        made.redis_url = line.url
        yield made


class World:
    """Everything a fault may befall, and how it is told that all is well."""

    def __init__(self, servers: Servers, fleet: Fleet, feed: Feed, http: httpx.AsyncClient) -> None:
        self.servers = servers
        self.fleet = fleet
        self.feed = feed
        self.http = http
        self.rebuilt_s: list[float] = []
        """Of each time that the state was lost and built anew, how long that took."""
        self.false_alarms = 0
        """How often the state was told to be lost though no Redis had given way to another."""
        self.changing = asyncio.Lock()
        """Held while the processes go on to another version of the state."""
        self.tell: Callable[[str], None] = lambda line: None
        self.looking: list[asyncio.Task[None]] = []
        """What goes on beside the faults, for ever: one that ends has failed."""
        self._canaries = 0

    @property
    def settings(self) -> Settings:
        return self.fleet.settings

    @asynccontextmanager
    async def store(self) -> AsyncIterator[FeatureStore]:
        store = open_store(self.settings)
        try:
            yield store
        finally:
            await store.close()

    async def recovered(self, within_s: float = WITHIN_S) -> float:
        """Wait until every member is well and what is sent now has its effect; how long that
        took (s). Raises `AssertionError`, and what ended whoever looks after them."""
        began = told = time.monotonic()
        self._canaries += 1
        name = str(self._canaries)
        sent = asyncio.create_task(self.feed.canary(name))
        while True:
            if sent.done():
                sent.result()
            async with self.changing:
                unwell = await self.fleet.unwell(self.http)
                unwell = unwell or ("" if await self._seen(name) else "what was sent is not there")
            if not unwell:
                await sent
                return time.monotonic() - began
            for task in self.looking:
                if task.done():
                    task.result()
            now = time.monotonic()
            if now - began > within_s:
                raise AssertionError(f"not well after {within_s:.0f} s: {unwell}")
            if now - told > TELL_S:
                told = now
                self.tell(f"    not well yet: {unwell}")
            await asyncio.sleep(0.2)

    async def _seen(self, name: str) -> bool:
        try:
            async with self.store() as store:
                history = await store.history("canary")
        except StoreUnavailableError:
            return False
        return any(entry.query == f"canary {name}" for entry in history)

    async def look_after(self) -> None:
        """Be the person who is paged: where the state was lost, build it anew. For ever."""
        while True:
            await self.fleet.lost.wait()
            async with self.changing:
                began = time.monotonic()
                await self._look()
                self.false_alarms += not self.servers.redis_nodes.may_have_lost()
                version = f"g{int(self.settings.state_version[1:]) + 1}"
                settings = self.settings.model_copy(update={"state_version": version})
                await self.fleet.change(settings, self._filled)
                self.rebuilt_s.append(time.monotonic() - began)
                self.tell(f"    state was lost, and built anew in {self.rebuilt_s[-1]:.1f} s")

    async def watch_redis(self) -> None:
        """Tell where another Redis takes over, whether a fault befell it or the machine was too
        busy. For ever."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        if await self.servers.redis_nodes.look():
            self.tell("    other Redis are primaries now")

    async def _filled(self) -> None:
        """The new state knows each video that impressions are of."""
        pairs = [(video, None) for video in shown_videos()]

        async def known() -> bool:
            async with self.store() as store:
                return all(found.known for found in await store.features(pairs))

        await until(known, "a new version of the state")


async def until(
    condition: Callable[[], Awaitable[bool]],
    what: str,
    within_s: float = WITHIN_S,
    every_s: float = 0.3,
) -> None:
    """Wait for it; a server that is away is asked again. Raises `AssertionError`."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if await condition():
                return
        except (StoreUnavailableError, ConnectionError, TimeoutError):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} was not there after {within_s:.0f} s")
        await asyncio.sleep(every_s)


@asynccontextmanager
async def world(
    servers: Servers,
    settings: Settings,
    directory: Path,
    *,
    seed: int,
    stream: int,
    generators: int,
) -> AsyncIterator[World]:
    """A running OneBar that knows its videos, with a feed that has not begun."""
    direct = settings.model_copy(update={"kafka_bootstrap": servers.bootstrap})
    await ensure_topics(direct)
    with Children() as children:
        fleet = Fleet(children, settings, directory)
        api = fleet.add("api")
        url = f"http://127.0.0.1:{api.settings.api_port}"
        async with (
            httpx.AsyncClient() as http,
            Feed(settings, lambda: url, servers.bootstrap, seed) as feed,
        ):
            made = World(servers, fleet, feed, http)
            await feed.first(first_batch(time.time()))
            for _ in range(stream):
                fleet.add("stream")
            await made._filled()
            for _ in range(generators):
                fleet.add("generator")
            fleet.supervise()
            beside = (made.look_after(), made.watch_redis())
            made.looking = [asyncio.create_task(each) for each in beside]
            try:
                await made.recovered()
                yield made
            finally:
                await end_tasks(*made.looking)
                await fleet.rest()
