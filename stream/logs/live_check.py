"""The whole path tried on live workers: a log goes in, queries come out, and the state is right.

Whoever calls this has started stream workers, a generator and an API on the same servers, with
topics and keys that nothing else uses.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from msgspec import Struct

from feature_store.buckets import showable
from feature_store.opening import open_live_store
from feature_store.snapshot import StateSnapshot, VideoState, diff
from feature_store.store import FeatureStore
from onebar.errors import OneBarError
from onebar.policy import StatePolicy
from onebar.records import Pair, VideoText
from onebar.settings import Settings
from stream.events import Event, Impression, Search
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.producer import EventProducer
from stream.logs.dead_letters import read_dead_letters
from stream.logs.files import Log
from stream.logs.fold_check import wait_for_zero_lag
from stream.logs.offline import OfflineFold
from stream.logs.replay import KafkaSink, Replay

SAMPLE = 300
PROBES = 200
ASK_BUDGET_MS = 2000
VISIBLE_WITHIN_S = 20.0
MAX_PAIRS = 200_000


class FreshnessError(OneBarError, TimeoutError):
    """A behaviour that Kafka has taken did not become visible in time."""


class CheckReport(Struct, frozen=True):
    """What `onebar demo --check --json` prints.

    `events` were sent, `dead_letters` of them set aside. `anchors` counts (video, query) pairs.
    `cached`, `generated`, `fallback` and `rejected` say where the sampled answers came from.
    Lookups are answers from the cache over HTTP; freshness is the time from Kafka's
    acknowledgement of a behaviour until the store shows its anchor.
    """

    events: int
    dead_letters: int
    videos: int
    users: int
    anchors: int
    cached: int
    generated: int
    fallback: int
    rejected: int
    lookup_p50_ms: float
    lookup_p99_ms: float
    freshness_p50_ms: float
    freshness_p99_ms: float
    state_equal: bool


class Answers(Struct):
    """How a sample of pairs was answered. `empty` had no queries and were not rejected."""

    cached: int = 0
    generated: int = 0
    fallback: int = 0
    rejected: int = 0
    empty: list[str] = []
    lookup_ms: list[float] = []


Say = Callable[[str], None]


class LiveCheck:
    """One run of the check. `report` returns the numbers, and what is wrong, a line each."""

    def __init__(
        self,
        settings: Settings,
        api_url: str,
        log: Log,
        *,
        say: Say = lambda text: None,
        on_progress: Callable[[float], None] = lambda fraction: None,
    ) -> None:
        self._settings = settings
        self._api_url = api_url
        self._log = log
        self._say = say
        self._on_progress = on_progress
        self._offline = OfflineFold(
            settings.policy,
            future_allowance_s=settings.future_allowance_s,
            pseudonyms=Pseudonyms(settings.user_id_key),
        )
        self._pairs: dict[Pair, None] = {}

    async def report(self) -> tuple[CheckReport, list[str]]:
        """Raises `LogError`, `LagError`, `FreshnessError`, and where a server is away."""
        settings = self._settings
        store = await open_live_store(settings)
        producer = EventProducer(settings)
        try:
            async with producer:
                await self._replay(producer)
                await asyncio.to_thread(self._fold_log)
                await self._settle()
                fresh_ms = await self._probe(producer, store)
                await self._settle()
            expected = self._offline.snapshot()
            different = diff(expected, await store.dump())
        finally:
            await store.close()
        letters = await self._dead_letters()
        answers = await asyncio.to_thread(
            ask, self._api_url, sample(expected, list(self._pairs), settings.policy)
        )
        report = CheckReport(
            events=self._offline.events,
            dead_letters=letters,
            videos=len(expected.videos),
            users=len(expected.users),
            anchors=sum(len({q for _, q in v.anchors}) for v in expected.videos.values()),
            cached=answers.cached,
            generated=answers.generated,
            fallback=answers.fallback,
            rejected=answers.rejected,
            lookup_p50_ms=percentile(answers.lookup_ms, 50),
            lookup_p99_ms=percentile(answers.lookup_ms, 99),
            freshness_p50_ms=percentile(fresh_ms, 50),
            freshness_p99_ms=percentile(fresh_ms, 99),
            state_equal=not different,
        )
        return report, self._problems(report, different, answers)

    def _problems(self, report: CheckReport, different: list[str], answers: Answers) -> list[str]:
        problems = [f"state differs: {line}" for line in different]
        if report.dead_letters != self._offline.dead_letters:
            problems.append(
                f"dead letters: expected {self._offline.dead_letters:,}, "
                f"found {report.dead_letters:,}"
            )
        problems += [f"an answer without queries, not rejected: {text}" for text in answers.empty]
        if not answers.lookup_ms:
            problems.append("no lookup was answered from the cache, so none was timed")
        return problems

    async def _replay(self, producer: EventProducer) -> None:
        replay = Replay(
            self._log,
            KafkaSink(producer),
            on_progress=lambda _: self._on_progress(self._log.fraction),
        )
        done = await replay.run()
        rate = done.events / max(done.seconds, 1e-9)
        self._say(f"replayed {done.events:,} events in {done.seconds:.1f} s ({rate:,.0f} a second)")

    def _fold_log(self) -> None:
        for entry in self._log.entries():
            if entry.event is None:
                self._offline.dead_letters += 1
                continue
            self._offline.add(entry.event)
            if isinstance(entry.event, Impression) and len(self._pairs) < MAX_PAIRS:
                user = entry.event.user_id
                self._pairs[entry.event.video_id, user if isinstance(user, str) else None] = None

    async def _settle(self) -> None:
        started = time.monotonic()
        await wait_for_zero_lag(self._settings, generator=True)
        self._say(f"lag is zero after {time.monotonic() - started:.1f} s")

    async def _probe(self, producer: EventProducer, store: FeatureStore) -> list[float]:
        """Send live behaviours one by one; how long each took to be visible, in ms."""
        taken = []
        videos = sorted(self._offline.snapshot().videos) or ["probe-video"]
        for number, events in enumerate(probes(videos, PROBES)):
            for event in events:
                self._offline.add(event, at=time.time())
            await producer.send(events)
            search = events[0]
            assert isinstance(search, Search)
            taken.append(await self._visible(store, search, time.perf_counter()))
            self._on_progress(number / PROBES)
        self._say(f"{len(taken)} live behaviours were seen")
        return taken

    async def _visible(self, store: FeatureStore, search: Search, since: float) -> float:
        assert isinstance(search.video_id, str)
        while True:
            anchors = await store.anchors(search.video_id)
            taken = time.perf_counter() - since
            if any(anchor.query == search.query for anchor in anchors):
                return taken * 1000
            if taken > VISIBLE_WITHIN_S:
                raise FreshnessError(
                    f"the anchor {search.query!r} of video {search.video_id!r} was not visible "
                    f"{VISIBLE_WITHIN_S:g} s after Kafka had taken its search"
                )
            await asyncio.sleep(0.001)

    async def _dead_letters(self) -> int:
        """How many messages were set aside, each counted once however often it was."""
        letters = await read_dead_letters(self._settings)
        return len({(letter.topic, letter.partition, letter.offset) for letter in letters})


def probes(videos: Sequence[str], count: int) -> Iterator[list[Event]]:
    """`count` searches under different videos, now; every fourth with an impression behind it."""
    stamp = f"{time.time():.0f}"
    step = max(1, len(videos) // count)
    for number in range(count):
        video = videos[number * step % len(videos)]
        user = f"probe-user-{number % 20}"
        events: list[Event] = [
            Search(
                event_id=f"probe-{stamp}-s{number}",
                ts=time.time(),
                user_id=user,
                video_id=video,
                query=f"probe {number}",
            )
        ]
        if number % 4 == 0:
            events.append(
                Impression(
                    event_id=f"probe-{stamp}-i{number}",
                    ts=time.time(),
                    video_id=video,
                    user_id=user,
                )
            )
        yield events


def sample(
    state: StateSnapshot, pairs: Sequence[Pair], policy: StatePolicy, size: int = SAMPLE
) -> list[Pair]:
    """Up to `size` of the pairs, evenly spread, whose video has text or anchors that others may be
    shown; then videos of the state that no pair names, without a user.
    """
    empty, now = VideoText(), time.time()

    def is_known(video: VideoState) -> bool:
        may_be_shown = showable(video.askers, policy, now)
        return (video.text is not None and video.text != empty) or any(
            may_be_shown(query) for _, query in video.anchors
        )

    known = {video_id for video_id, video in state.videos.items() if is_known(video)}
    found: list[Pair] = [pair for pair in pairs if pair[0] in known]
    named = {video_id for video_id, _ in found}
    found += [(video_id, None) for video_id in sorted(known - named)]
    step = max(1.0, len(found) / size)
    return list(islice((found[int(i * step)] for i in range(len(found))), min(size, len(found))))


def ask(url: str, pairs: Sequence[Pair]) -> Answers:
    """Ask the API for each pair, then once more for each that was answered, timing the cache."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    answers = Answers()
    try:
        for pair in pairs:
            body, _ = _get(connection, pair)
            source = str(body["source"])
            if body["rejected"]:
                answers.rejected += 1
            elif not body["queries"]:
                answers.empty.append(f"{pair}: {body}")
            setattr(answers, _COUNTER[source], getattr(answers, _COUNTER[source]) + 1)
        for pair in pairs:
            body, taken = _get(connection, pair)
            if body["source"] == "cache":
                answers.lookup_ms.append(taken * 1000)
    finally:
        connection.close()
    return answers


_COUNTER = {"cache": "cached", "generated": "generated", "fallback": "fallback"}


def _get(connection: http.client.HTTPConnection, pair: Pair) -> tuple[dict[str, object], float]:
    asked = {"video_id": pair[0], "budget_ms": str(ASK_BUDGET_MS)}
    if pair[1] is not None:
        asked["user_id"] = pair[1]
    started = time.perf_counter()
    connection.request("GET", "/v1/queries?" + urllib.parse.urlencode(asked))
    response = connection.getresponse()
    data = response.read()
    taken = time.perf_counter() - started
    if response.status != 200:
        raise ConnectionError(f"the API answered {response.status} to {asked}: {data[:500]!r}")
    body: dict[str, object] = json.loads(data)
    return body, taken


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile, rounded to a microsecond; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return round(ordered[max(0, rank - 1)], 3)
