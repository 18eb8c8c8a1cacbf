"""A batch of impressions: read once, answered by one model, told of once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import orjson
import pytest
from recommend_world import World

from feature_store.cache.codec import Lookup, decode_body, encode_body
from feature_store.redis.client import StoreUnavailableError
from onebar.recommending.recommend import Recommender
from onebar.records import CacheEntry, Candidate, Features, Pair, QueryResult, VideoText
from stream.events import Impression, encode
from stream.kafka.producer import Message
from stream.kafka.records import Record
from stream.workers import retry
from stream.workers.generation import Generation
from stream.workers.metrics import WorkerHealth


class Outage:
    """A cache that is away for so many writes."""

    def __init__(self, world: World, writes: int) -> None:
        self.world, self.left = world, writes
        self.put_for_real = world.cache.put

    async def put(self, entries: Sequence[CacheEntry]) -> list[bool]:
        if self.left:
            self.left -= 1
            # Meanwhile the video is another.
            self.world.store.videos["shoes"] = Features(VideoText(title="sandals"))
            raise StoreUnavailableError("Redis is away")
        return await self.put_for_real(entries)


class Lookups:
    """What the cache holds, by pair."""

    def __init__(self) -> None:
        self.kept: dict[Pair, Lookup] = {}

    async def lookup(self, pairs: Sequence[Pair]) -> list[Lookup]:
        return [self.kept.get(pair, Lookup()) for pair in pairs]


class Topic:
    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []

    async def send_messages(self, messages: Sequence[Message]) -> None:
        self.sent += [orjson.loads(message[2]) for message in messages]


class Models:
    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.taken = 0

    @contextmanager
    def use(self) -> Iterator[Recommender]:
        self.taken += 1
        yield self.recommender


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)
    world = World()
    await world.batcher.start()
    yield world
    await world.recommender.drain()
    await world.batcher.stop()


def record(number: int, video: str, user: str) -> Record:
    event = Impression(event_id=f"i{number}", ts=100.0, video_id=video, user_id=user)
    return Record("impressions", 0, number, 100.0, None, encode(event))


def generation(
    world: World, lookups: Lookups | None = None, now: float = 100.0
) -> tuple[Generation, Models, Topic]:
    models, topic = Models(world.recommender), Topic()
    made = Generation(
        models,
        lookups or Lookups(),  # type: ignore[arg-type]
        topic,  # type: ignore[arg-type]
        WorkerHealth(),
        late_after_s=30.0,
        clock=lambda: now,
    )
    return made, models, topic


BATCH = [record(0, "shoes", "cook"), record(1, "anchored", "runner"), record(2, "nowhere", "u")]


async def test_a_batch_reads_its_evidence_once_and_stays_with_one_model(world: World) -> None:
    made, models, topic = generation(world)
    unknown = await made.take(BATCH)
    assert [record.offset for record in unknown] == [2]
    assert (world.store.calls, models.taken) == (1, 1)
    assert [message["video_id"] for message in topic.sent] == ["shoes", "anchored"]


async def test_after_an_outage_the_evidence_is_read_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.cache, "put", Outage(world, 2).put)
    made, models, topic = generation(world)
    await made.take(BATCH)
    assert world.store.calls == 3
    assert models.taken == 1
    assert [message["video_id"] for message in topic.sent] == ["shoes", "anchored"]
    [grounding] = await world.recommender.evidence([("shoes", "cook")])
    assert topic.sent[0]["evidence_digest"] == grounding.digest
    assert grounding.evidence.text == "sandals"


@pytest.mark.parametrize(
    ("now", "made_at", "again", "told"),
    [
        (101.0, 100.5, False, True),  # before the one that made it was ended
        (101.0, 96.0, False, True),  # by a clock that is behind
        (101.0, 90.0, False, False),  # for an impression before this one
        (150.0, 100.5, False, True),  # the session of the one that was ended had to time out
        (150.0, 90.0, False, False),
        (101.0, 50.0, True, True),  # whatever clock its sender had: another worker may have had it
        (150.0, 50.0, True, True),
    ],
)
async def test_what_an_impression_that_comes_again_has_in_the_cache_is_told_again(
    world: World, now: float, made_at: float, again: bool, told: bool
) -> None:
    pair = ("shoes", "cook")
    [grounding] = await world.recommender.evidence([pair])
    result = QueryResult("shoes", (Candidate("red", -1.0),), False, "m", grounding.digest, made_at)
    value = encode_body(result, passed=world.recommender.gate.passed(now))
    body = decode_body(value, soft_ttl_s=300.0)
    lookups = Lookups()
    lookups.kept[pair] = Lookup(personal=body)
    made, _, topic = generation(world, lookups, now)
    impression = record(0, *pair)
    await made.take([impression], {impression.position} if again else ())
    assert [message["generated_at"] for message in topic.sent] == [made_at] * told
