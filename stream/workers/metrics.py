"""What the workers count, and the small server that shows it: /metrics and /healthz."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import accumulate

import orjson
import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector

from onebar.process import vitals
from onebar.process.outages import Outages

log = structlog.get_logger(__name__)

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)


class BatchHistogram(Collector):
    """A histogram that takes many values at once, in a tenth of what the library's takes for each
    of them. Of one thread."""

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: tuple[float, ...],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`bounds` are the upper bounds of its buckets, ascending; another follows for the rest."""
        self._name = name
        self._documentation = documentation
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe_all(self, values: Iterable[float]) -> None:
        """Count these in."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus has it: of each bound how many are at most that."""
        names = (*map(str, self._bounds), "+Inf")
        upto = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=upto, sum_value=self._sum
        )


TAKEN = Counter(
    "onebar_stream_taken", "Events taken in, by type; also those that had counted before.", ["type"]
)
EVENTS = Counter(
    "onebar_stream_events",
    "Events by what became of them. Searches, exposures, clicks and engagements of a video are of "
    "type behavior.",
    ["type", "outcome"],
)
BATCH_EVENTS = Histogram(
    "onebar_stream_batch_events", "Events applied together.", buckets=(1, 5, 20, 50, 100, 250, 500)
)
APPLY_SECONDS = Histogram("onebar_stream_apply_seconds", "Time to apply a batch.", buckets=_SECONDS)
FRESHNESS_SECONDS = BatchHistogram(
    "onebar_stream_freshness_seconds",
    "From Kafka's timestamp of an event to its effect in the store.",
    _SECONDS,
)
RETRIES = Counter(
    "onebar_worker_retries", "Batches tried again because a dependency was away.", ["dependency"]
)
DEAD_LETTERS = Counter("onebar_dead_letters", "Messages set aside, by reason.", ["reason"])
IMPRESSIONS = Counter(
    "onebar_generator_impressions", "Impressions by what became of them.", ["outcome"]
)
GENERATION_SECONDS = Histogram(
    "onebar_generator_batch_seconds", "Time to answer a batch of impressions.", buckets=_SECONDS
)
CACHED_SECONDS = Histogram(
    "onebar_generator_freshness_seconds",
    "From Kafka's timestamp of an impression to its queries in the cache, or to when it was "
    "skipped as too late.",
    buckets=_SECONDS,
)
NEIGHBORS = Counter(
    "onebar_neighbors_videos", "Videos given neighbour anchors, by what for.", ["reason"]
)
NEIGHBORS_SECONDS = Histogram(
    "onebar_neighbors_freshness_seconds",
    "From Kafka's timestamp of a video to its neighbour anchors in the store.",
    buckets=_SECONDS,
)
INDEXED = Gauge("onebar_neighbors_indexed", "Videos in the index.")
KNOWN_QUERIES = Gauge("onebar_neighbors_queries", "Queries of the log in the index.")
ARCHIVED = Counter("onebar_archive_records", "Records put into the archive.", ["topic"])
MAPPED_RECORDS = Counter(
    "onebar_mapped_records", "Records of another topic by what became of them.", ["outcome"]
)
MAPPED_EVENTS = Counter("onebar_mapped_events", "Events made of them, by type.", ["type"])
MAPPED_SECONDS = Histogram(
    "onebar_mapped_freshness_seconds",
    "From Kafka's timestamp of a record of another topic to its events in ours.",
    buckets=_SECONDS,
)
LAG = Gauge(
    "onebar_worker_lag",
    "Records of an assigned partition that have not had their effect yet.",
    ["topic", "partition"],
)

GROUP_LAG = Gauge(
    "onebar_group_lag",
    "Records of a partition that a consumer group has not committed, also where no worker has it.",
    ["group", "topic", "partition"],
)
REDIS_MEMORY = Gauge("onebar_redis_memory_bytes", "Memory of Redis; of a cluster, all of it.")
REDIS_MEMORY_LIMIT = Gauge(
    "onebar_redis_memory_limit_bytes", "Its maxmemory; 0 where it has no limit."
)
REDIS_SAVES = Gauge("onebar_redis_saves", "1 where Redis could save to its disk last time, else 0.")
CLOCK_SKEW = Gauge(
    "onebar_clock_skew_seconds", "How far this machine's clock is ahead of that of Redis."
)
EVICTED = Gauge("onebar_redis_evicted_keys", "Keys that Redis evicted since its start.")


DEPENDENCIES = ("kafka", "redis", "state", "evictions", "start", "loop")
"""What workers of the state need."""


class WorkerHealth:
    """Whether a worker is well: nothing it needs is away, and it gets on with what there is.

    `stalled_after_s` is how long it may go without a beat.
    """

    def __init__(
        self, stalled_after_s: float = 60.0, needs: Collection[str] = DEPENDENCIES
    ) -> None:
        self._stalled_after_s = stalled_after_s
        self._needs = needs
        self._away: dict[tuple[str, str], str] = {("start", ""): "not started yet"}
        self._beat = time.monotonic()
        self.outages = Outages()
        """What was told of them."""
        self.warnings: dict[str, str] = {}
        """What someone should look at, though the worker does its work; by what it is about."""

    def started(self) -> None:
        """The worker is connected and takes records."""
        self.back("start")
        self.beat()

    def beat(self) -> None:
        """Something was done, or there is nothing to do."""
        self._beat = time.monotonic()

    def away(self, dependency: str, reason: str, source: str = "") -> None:
        """A dependency does not answer; `source` is who found out."""
        self._away[dependency, source] = reason

    def back(self, dependency: str, source: str = "") -> None:
        """A dependency answers the one who had missed it."""
        self._away.pop((dependency, source), None)

    def warn(self, about: str, warning: str | None) -> None:
        """Say what is not as it should be; None: all is well again."""
        if warning is None:
            self.warnings.pop(about, None)
        else:
            self.warnings[about] = warning

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by dependency; empty where all is well."""
        problems = {dependency: reason for (dependency, _), reason in self._away.items()}
        idle = time.monotonic() - self._beat
        if idle > self._stalled_after_s:
            problems["loop"] = f"no progress for {idle:.0f} s"
        return problems

    def show(self) -> None:
        """As metrics."""
        vitals.show(self.problems, self._needs, self.warnings)


@asynccontextmanager
async def serve(host: str, port: int, health: WorkerHealth) -> AsyncIterator[None]:
    """Serve /metrics and /healthz (200, or 503 with the problems); port 0 serves nothing."""
    if port == 0:
        yield
        return
    server = await asyncio.start_server(_handler(health), host, port)
    log.info("metrics_served", host=host, port=port)
    async with server:
        yield


def _answer(path: str, health: WorkerHealth) -> tuple[str, str, bytes]:
    if path == "/metrics":
        health.show()
        return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
    if path == "/healthz":
        problems = health.problems
        status = "503 Service Unavailable" if problems else "200 OK"
        body = orjson.dumps(
            {"healthy": not problems, "problems": problems, "warnings": health.warnings}
        )
        return status, "application/json", body
    return "404 Not Found", "text/plain; charset=utf-8", b"/metrics or /healthz\n"


def _handler(
    health: WorkerHealth,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                request = await reader.readline()
                while (await reader.readline()).strip():
                    pass
                words = request.decode("latin-1").split(" ")
                path = words[1].partition("?")[0] if len(words) > 1 else ""
                status, kind, body = _answer(path, health)
                head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
                head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass
        finally:
            writer.close()

    return handle
