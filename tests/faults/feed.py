"""The feed: sends the script through the API and by producers of its own, asks for queries, and
remembers what was accepted and how long answers took."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import httpx
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from onebar.process.tasks import end_tasks
from onebar.settings import Settings
from stream.events import Impression, Search, encode
from tests.faults.script import Batch, batches, shown_videos

AGAIN_S = 0.3
PAUSE_S = 0.15
"""Between two batches of a sender."""
ASK_EVERY_S = 0.05
Sender = Callable[[Batch], Awaitable[None]]
Message = tuple[str, bytes | None, bytes | None, float]
"""(topic, key, value, timestamp in UTC epoch seconds)."""


class Feed:
    """Sends until told to stop; each batch until it was accepted. Whoever sends again after an
    error sends the same."""

    def __init__(
        self, settings: Settings, url: Callable[[], str], bootstrap: str, seed: int
    ) -> None:
        self._settings = settings
        self._url = url
        self._bootstrap = bootstrap
        self._seed = seed
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._lag_s = 0.0
        self.accepted: set[str] = set()
        """Ids of events that the API or Kafka has accepted."""
        self.viewed: set[tuple[str, str]] = set()
        """The pairs of the impressions among them."""
        self.poison: Counter[tuple[str, bytes]] = Counter()
        """Messages that Kafka has accepted and that are no events, by topic and value."""
        self.asked: list[tuple[float, str]] = []
        """Of each lookup how long it took (s) beyond what its budget grants, and its source."""
        self.problems: Counter[str] = Counter()
        """What was answered instead of 200 or 202."""

    async def __aenter__(self) -> Feed:
        self._http = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=20))
        self._kafka = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", linger_ms=5)
        await self._kafka.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_tasks(*self._tasks)
        await self._http.aclose()
        await self._kafka.stop()

    def start(self) -> None:
        began = time.time()
        for sender in (self._post, self._produce):
            script = batches(f"{self._seed}-{sender.__name__}", began)
            self._tasks.append(asyncio.create_task(self._send(sender, script)))
        self._tasks.append(asyncio.create_task(self._ask_on()))
        self._tasks.append(asyncio.create_task(self._watch_loop()))

    async def stop(self) -> None:
        """What is under way is sent to its end."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _send(self, sender: Sender, script: Iterator[Batch]) -> None:
        while not self._stopping.is_set():
            await self.send(sender, next(script))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), PAUSE_S)

    async def send(self, sender: Sender, batch: Batch) -> None:
        """Send a batch, and note that it was accepted."""
        for _ in range(batch.times):
            await sender(batch)
        for event in batch.events:
            self.accepted.add(event.event_id)
            if isinstance(event, Impression):
                self.viewed.add((event.video_id, str(event.user_id)))

    async def _post(self, batch: Batch) -> None:
        """By the API, whose clock is right: what is of its future it would refuse."""
        if batch.clock_s > 0:
            await self._produce(batch)
            return
        latest = time.time() + self._settings.future_allowance_s / 2
        events = [event for event in batch.events if event.ts <= latest]
        body = b"[%b]" % b",".join(map(encode, events))
        json = {"Content-Type": "application/json"}
        while True:
            try:
                answer = await self._http.post(
                    f"{self._url()}/v1/events", content=body, headers=json
                )
            except httpx.HTTPError as error:
                self.problems[type(error).__name__] += 1
            else:
                if answer.status_code == 202:
                    break
                assert answer.status_code in (429, 503), answer.text
                self.problems[str(answer.json().get("type", answer.status_code))] += 1
            await asyncio.sleep(AGAIN_S)
        await self._produced([(topic, key, value, 0.0) for topic, key, value in batch.poison])

    async def _produce(self, batch: Batch) -> None:
        """By a producer of its own, whose clock may be wrong."""
        now = time.time() + batch.clock_s
        events: list[Message] = [
            (event.topic, event.key.encode(), encode(event), now) for event in batch.events
        ]
        await self._produced(events + [(t, key, value, 0.0) for t, key, value in batch.poison])

    async def _produced(self, messages: list[Message]) -> None:
        left = messages
        while left:
            now = time.time()
            sent = []
            for topic, key, value, at in left:
                sent.append(
                    asyncio.ensure_future(
                        self._kafka.send_and_wait(
                            self._settings.topic_prefix + topic,
                            value,
                            key=key,
                            timestamp_ms=int((at or now) * 1000),
                        )
                    )
                )
            found = await asyncio.gather(*sent, return_exceptions=True)
            again = []
            for message, outcome in zip(left, found, strict=True):
                if isinstance(outcome, KafkaError):
                    again.append(message)
                    self.problems[type(outcome).__name__] += 1
                elif isinstance(outcome, BaseException):
                    raise outcome
                elif not message[3] and message[2] is not None:
                    self.poison[message[0], message[2]] += 1
            left = again
            if left:
                await asyncio.sleep(AGAIN_S)

    async def canary(self, name: str) -> None:
        """A search whose effect can be looked for."""
        search = Search(
            event_id=f"canary-{name}", ts=time.time(), user_id="canary", query=f"canary {name}"
        )
        await self.send(self._produce, Batch([search]))

    async def first(self, batch: Batch) -> None:
        await self.send(self._produce, batch)

    async def _ask_on(self) -> None:
        rng = random.Random(f"{self._seed}-asks")
        asking: set[asyncio.Task[None]] = set()
        videos = [*shown_videos(), "nobody knows it"]
        while not self._stopping.is_set():
            task = asyncio.create_task(self._ask(rng.choice(videos), f"looks-{rng.randrange(99)}"))
            asking.add(task)
            task.add_done_callback(asking.discard)
            await asyncio.sleep(ASK_EVERY_S)
        await asyncio.gather(*asking)

    async def _ask(self, video: str, user: str) -> None:
        began, lag = time.monotonic(), self._lag_s
        try:
            answer = await self._http.get(
                f"{self._url()}/v1/queries", params={"video_id": video, "user_id": user}
            )
        except httpx.HTTPError as error:
            self.problems[f"lookup: {type(error).__name__}"] += 1
            return
        took = time.monotonic() - began - (self._lag_s - lag)
        if answer.status_code != 200:
            self.problems[f"lookup: {answer.status_code}"] += 1
            return
        found = orjson.loads(answer.content)
        assert all(query["text"] for query in found["queries"]), found
        mark = found.get("fallback") or found["source"]
        self.asked.append((took - self._settings.budget_ms / 1000, mark))

    async def _watch_loop(self) -> None:
        """How long the event loop here was busy with other things: that is not the API's fault."""
        while not self._stopping.is_set():
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self._lag_s += max(0.0, time.monotonic() - began - 0.02)
