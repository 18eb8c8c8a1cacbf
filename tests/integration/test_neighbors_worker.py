"""The neighbour worker as a process: an uploaded video gets the anchors of those near it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Servers
from stream_fixtures import add_partitions, producer
from support import Workers, eventually

from feature_store.opening import versions_beside
from feature_store.redis.client import Client
from feature_store.store import FeatureStore
from feature_store.versions import Journal
from onebar.embedding.index import VectorIndex
from onebar.embedding.relations import Relation, write_relations
from onebar.embedding.train import EmbedConfig, train_embedder
from onebar.records import Anchor, AnchorSource
from onebar.settings import Settings
from stream.events import VIDEOS, Click, Event, Search, Video

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]

KINDS = ("trail shoes", "desk lamp", "electric kettle")
QUERIES = ("shoes for mud", "warm light lamp", "quiet kettle")
# Asked after shoes as well, and learnt to be near them.
BOOTS, GRIP = "muddy boots", "grip outsole"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Trained here: texts of one kind of thing are near each other."""
    directory = tmp_path_factory.mktemp("embedder")
    relations = [
        Relation("v2q", f"my {kind} number {number}", query)
        for kind, query in zip((*KINDS, *KINDS[:1] * 2), (*QUERIES, BOOTS, GRIP), strict=True)
        for number in range(30)
    ]
    mined = write_relations(directory / "relations", relations).path
    config = EmbedConfig(
        relations=mined, out=directory / "embedder", dim=16, vocab_size=400, steps=200,
        batch_size=30, kinds=("v2q",), device="cpu", threads=1, progress=False,
    )  # fmt: skip
    return str(train_embedder(config))


@pytest.fixture
def named(settings: Settings, embedder: str, tmp_path: Path) -> Settings:
    return settings.model_copy(
        update={
            "embedder": embedder,
            "index": tmp_path / "index",
            "neighbor_threshold": 0.2,  # a kind's own queries: 0.4 and more
            "neighbor_refresh_s": 1.0,
        }
    )


def video(name: str, title: str, **fields: object) -> Video:
    event_id = f"{name}-{time.time_ns()}"
    return Video(event_id=event_id, ts=time.time(), video_id=name, title=title, **fields)  # type: ignore[arg-type]


def search(user: str, query: str) -> Search:
    """Typed with no video before it."""
    return Search(event_id=f"s-{user}-{query}", ts=time.time(), user_id=user, query=query)


def click(name: str, query: str, number: int = 0) -> Click:
    return Click(
        event_id=f"c-{name}-{query}-{number}", ts=time.time(), video_id=name, user_id="u",
        query=query,
    )  # fmt: skip


async def send(settings: Settings, events: Sequence[Event]) -> None:
    async with producer(settings) as kafka:
        await kafka.send(events)


async def has(
    store: FeatureStore, name: str, *expected: str, source: AnchorSource = "neighbor"
) -> None:
    """Await these anchors of the source and no other, in any order."""

    async def there() -> bool:
        found = await store.anchors(name)
        return {a.query for a in found if a.source == source} == set(expected)

    await eventually(there, 60, what=f"{source} anchors {expected} of {name}")


async def test_an_upload_gets_the_anchors_of_its_neighbours(
    named: Settings, client: Client, store: FeatureStore, workers: Workers
) -> None:
    workers.start("stream")
    worker = workers.start("neighbors", settings=named)
    seen = [video(f"v{at}", f"my {kind} number {at}") for at, kind in enumerate(KINDS)]
    clicks = [click(f"v{at}", query) for at, query in enumerate(QUERIES)]
    await send(named, [*seen, *clicks])
    uploads = [video("mute", ""), video("new", "my trail shoes number 17"), video("odd", "zzzz")]
    await send(named, uploads)
    await has(store, "new", QUERIES[0])
    # What is asked later after a neighbour reaches it as well, unless it is about something else.
    await send(named, [click("v0", BOOTS), click("v0", QUERIES[1], 1)])
    await has(store, "new", QUERIES[0], BOOTS)
    # Its own come first.
    await send(named, [click("new", GRIP)])

    async def own_first() -> bool:
        found = await store.anchors("new")
        return bool(found) and found[0] == Anchor(GRIP, found[0].weight, "behavior")

    await eventually(own_first, 60)
    # The neighbour's neighbours are not asked: v0 gets what was asked after `new`, no more.
    await has(store, "v0", GRIP)
    # A neighbour whose state can't be read is passed over, the others are not.
    await client.set(store.keys.text("v0"), b"garbage")
    await send(named, [video("late", "my trail shoes number 8")])
    await has(store, "late", GRIP)
    # A changed text has other neighbours; a sensitive video has none and gives none.
    await send(named, [video("new", "my electric kettle number 5")])
    await has(store, "new", QUERIES[2])
    await send(named, [video("v2", "my electric kettle number 2", sensitive=True)])
    await has(store, "new")
    assert workers.stop(worker) == 0, worker.tail()
    saved = VectorIndex.load(named.index or Path())
    assert {"v0", "v1", "new"} <= set(saved)
    # A sensitive video has no vector, nor has one without a word.
    assert {"v2", "mute"}.isdisjoint(saved)
    assert not await store.anchors("mute")


async def test_a_query_of_the_log_near_an_upload_is_its_anchor_once_two_users_asked_it(
    named: Settings, store: FeatureStore, workers: Workers
) -> None:
    first = workers.start("neighbors", settings=named)
    asked = [search(user, query) for user in ("u", "w") for query in QUERIES]
    await send(named, [*asked, search("u", BOOTS), search("u", BOOTS)])
    await send(named, [video("new", "my trail shoes number 17")])
    await has(store, "new", QUERIES[0], source="retrieved")
    assert workers.stop(first) == 0, first.tail()
    # What was known is known to the next one, which reads no more than what came meanwhile.
    await send(named, [search("x", GRIP), search("y", GRIP)])
    second = workers.start("neighbors", settings=named)
    await has(store, "new", QUERIES[0], GRIP, source="retrieved")
    assert workers.stop(second) == 0, second.tail()
    assert named.index is not None
    queries = VectorIndex.load(named.index.with_name("index-queries"))
    assert set(queries) == {*QUERIES, GRIP}
    # Where none are wanted, none are written.
    third = workers.start("neighbors", settings=named.model_copy(update={"neighbor_queries": 0}))
    await has(store, "new", source="retrieved")
    assert workers.stop(third) == 0, third.tail()


async def test_partitions_that_come_later_are_read(
    named: Settings, servers: Servers, store: FeatureStore, workers: Workers
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker adds no partitions")
    workers.start("stream")
    worker = workers.start("neighbors", settings=named)
    await send(named, [video("v0", "my trail shoes number 1"), click("v0", QUERIES[0])])
    await send(named, [video("v1", "my trail shoes number 2")])
    await has(store, "v1", QUERIES[0])
    await add_partitions(named, VIDEOS, named.partitions + 2)
    # Enough of them that some are in the new ones.
    names = [f"w{number}" for number in range(30)]
    await send(named, [video(name, "my trail shoes number 3") for name in names])
    for name in names:
        await has(store, name, QUERIES[0])
    assert workers.stop(worker) == 0, worker.tail()
    assert "partitions_came" in worker.tail(400)


async def test_a_snapshot_is_gone_on_from_and_a_broken_one_is_made_anew(
    named: Settings, store: FeatureStore, workers: Workers
) -> None:
    assert named.index is not None
    workers.start("stream")
    first = workers.start("neighbors", settings=named)
    await send(named, [video("v0", "my trail shoes number 1"), click("v0", QUERIES[0])])
    await send(named, [video("v1", "my trail shoes number 2")])
    await has(store, "v1", QUERIES[0])
    # Another version of the state that becomes live gets them all, though nothing is uploaded.
    versions = versions_beside(store, named)
    assert await versions.switch("g1", "g2", Journal())
    await has(store.of("g2"), "v1", QUERIES[0])
    assert await versions.switch("g2", "g1", Journal())
    assert workers.stop(first) == 0, first.tail()
    # Offsets of the snapshot: what came meanwhile is read, in partitions it knew nothing of too.
    await send(named, [video(f"w{n}", "my trail shoes number 3") for n in range(8)])
    second = workers.start("neighbors", settings=named)
    for number in range(8):
        await has(store, f"w{number}", QUERIES[0])
    assert workers.stop(second) == 0, second.tail()
    vectors = named.index / "vectors.usearch"
    vectors.write_bytes(vectors.read_bytes()[:-10])
    third = workers.start("neighbors", settings=named)
    await send(named, [video("x", "my trail shoes number 4")])
    await has(store, "x", QUERIES[0])
    assert workers.stop(third) == 0, third.tail()
    assert "index_refused" in third.tail(400)
    assert len(VectorIndex.load(named.index)) == 11


async def test_without_an_embedder_it_says_what_to_do(settings: Settings, workers: Workers) -> None:
    worker = workers.start("neighbors")
    assert worker.process.wait(60) == 1
    assert "ONEBAR_EMBEDDER" in worker.tail()
