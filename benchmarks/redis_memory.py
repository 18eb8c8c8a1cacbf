"""Bytes of Redis memory a user and a video take, and how fast they are written and read.

    python benchmarks/redis_memory.py                  # 2,000 of each, on an embedded Valkey
    python benchmarks/redis_memory.py --users 100 --videos 100 --redis-url redis://host:6379/0

A user has 20 queries; a video has a text of about 700 bytes and 16 anchors with 24 events behind
them, and then, measured apart, counters for those 16 queries as well. An answer is one (video,
user)'s eight cached queries, also kept under its prompt's digest. An event id is remembered for the
dedupe window; a video of which 600 a day are seen is one that is watched. Prints one JSON object.
Memory is the growth of the server's `used_memory`, so name an otherwise idle server; the keys
written are removed again. Under a thousand of each, the server's own tables blur the numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from feature_store.cache.query_cache import QueryCache
from feature_store.keys import Keys
from feature_store.redis.client import Command, connect, pipelined, scan
from feature_store.store import FeatureStore
from feature_store.writes import BehaviorAdd, HistoryPut, Position, VideoPut, Write
from onebar.policy import StatePolicy
from onebar.records import CacheEntry, Candidate, QueryResult, VideoText
from onebar.stack.processes import Children
from onebar.stack.servers import start_valkey

QUERIES_A_USER = 20
ANCHORS_A_VIDEO = 16
EVENTS_A_VIDEO = 24
IDS_A_VIDEO = 600
BATCH = 500
START = 1_700_000_000.0
TEXT = (
    "trail running shoes men waterproof jacket women summer dress red cotton linen phone case "
    "wireless earbuds noise cancelling coffee grinder manual camping tent ultralight backpack"
)
WORDS = TEXT.split()


def query(rng: random.Random) -> str:
    return " ".join(rng.sample(WORDS, 3))


def user_writes(users: int, rng: random.Random) -> Iterator[Write]:
    for user in range(users):
        for number in range(QUERIES_A_USER):
            yield HistoryPut(
                f"user-{user:08d}", f"{query(rng)} {number}", START + rng.random() * 1e6
            )


def video_writes(videos: int, rng: random.Random, *, counters: bool) -> Iterator[Write]:
    for video in range(videos):
        video_id = f"video-{video:08d}"
        text = VideoText(
            title=" ".join(rng.choices(WORDS, k=10)),
            caption=" ".join(rng.choices(WORDS, k=20)),
            author=f"author {video}",
            item_title=" ".join(rng.choices(WORDS, k=12)),
            ocr=" ".join(rng.choices(WORDS, k=20)),
            asr=" ".join(rng.choices(WORDS, k=30)),
            category="sports",
        )
        yield VideoPut(video_id, START, f"event-{video:020d}", text)
        queries = [f"{query(rng)} {number}" for number in range(ANCHORS_A_VIDEO)]
        for number in range(EVENTS_A_VIDEO):
            chosen = (queries[number % ANCHORS_A_VIDEO],)
            yield BehaviorAdd(
                video_id,
                START + number,
                f"event-{video:010d}-{number:010d}",
                ((chosen[0], 1000),),
                chosen if counters else (),
                chosen if counters and number % 3 == 0 else (),
            )


def repeated_writes(videos: int) -> Iterator[Write]:
    """Events that change nothing but counts, and are remembered."""
    for video in range(videos):
        for number in range(IDS_A_VIDEO):
            yield BehaviorAdd(
                f"watched-{video:08d}", START, f"seen-{video:010d}-{number:010d}", (), ("q",), ()
            )


async def used_memory(store: FeatureStore) -> int:
    info: dict[str, Any] = await store.client.info("memory")
    return int(info["used_memory"])


async def fill(store: FeatureStore, writes: list[Write]) -> float:
    """Seconds to apply all."""
    started = time.perf_counter()
    for first in range(0, len(writes), BATCH):
        await store.apply(
            [
                (write, Position("onebar.behaviors", 0, first + i))
                for i, write in enumerate(writes[first : first + BATCH])
            ]
        )
    return time.perf_counter() - started


async def answer(store: FeatureStore, count: int) -> None:
    """Cache eight queries for each of so many pairs, ten videos a user, a prompt a pair."""
    cache = QueryCache(store.client, store.keys, soft_ttl_s=3600.0, hard_ttl_s=3600.0)
    rng = random.Random(11)
    for first in range(0, count, BATCH):
        await cache.put(
            [
                CacheEntry(
                    QueryResult(
                        f"video-{number:08d}",
                        tuple(Candidate(query(rng), -n / 3) for n in range(8)),
                        False,
                        "demo-1a2b3c4d",
                        f"{number:032x}",
                        time.time(),
                    ),
                    f"user-{number // 10:08d}",
                )
                for number in range(first, min(first + BATCH, count))
            ]
        )


async def clear(store: FeatureStore) -> None:
    names = [name async for name in scan(store.client, store.keys.prefix)]
    for first in range(0, len(names), BATCH):
        await pipelined(
            store.client, [Command("DEL", (name,)) for name in names[first : first + BATCH]]
        )


async def measure(url: str, users: int, videos: int) -> dict[str, float]:
    rng = random.Random(7)
    keys = Keys(namespace=f"b{os.getpid() % 100_000}")
    store = FeatureStore(connect(url, timeout_s=30.0), keys, StatePolicy())
    try:
        await store.apply([])
        empty = await used_memory(store)
        histories = list(user_writes(users, rng))
        user_seconds = await fill(store, histories)
        with_users = await used_memory(store)
        events = list(video_writes(videos, rng, counters=False))
        video_seconds = await fill(store, events)
        with_videos = await used_memory(store)
        await clear(store)
        await fill(store, histories)
        before = await used_memory(store)
        await fill(store, list(video_writes(videos, rng, counters=True)))
        with_counters = await used_memory(store)
        await answer(store, videos)
        with_answers = await used_memory(store)
        watched = max(1, videos // 20)
        await fill(store, list(repeated_writes(watched)))
        with_ids = await used_memory(store)
        pairs = [(f"video-{i % videos:08d}", f"user-{i % users:08d}") for i in range(256)]
        started = time.perf_counter()
        await store.features(pairs)
        read_seconds = time.perf_counter() - started
        return {
            "users": users,
            "bytes_per_user": round((with_users - empty) / users, 1),
            "videos": videos,
            "bytes_per_video": round((with_videos - with_users) / videos, 1),
            "bytes_per_video_with_counters": round((with_counters - before) / videos, 1),
            "bytes_per_answer": round((with_answers - with_counters) / videos, 1),
            "bytes_per_event_id": round((with_ids - with_answers) / (watched * IDS_A_VIDEO), 1),
            "history_writes_per_s": round(len(histories) / user_seconds),
            "video_writes_per_s": round(len(events) / video_seconds),
            "features_of_256_pairs_ms": round(read_seconds * 1000, 2),
        }
    finally:
        await clear(store)
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--redis-url", help="default: an embedded Valkey")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        url = arguments.redis_url
        if url is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onebar-bench-")))
            url = start_valkey(stack.enter_context(Children()), work)
        result = asyncio.run(measure(url, arguments.users, arguments.videos))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
