"""How soon a new video has neighbour anchors: from Kafka's acknowledgement to Redis.

    python benchmarks/neighbor_freshness.py --embedder embedders/march/all
    python benchmarks/neighbor_freshness.py --embedder … --videos 50 --rate 5 --events 2000

Starts the local stack (or uses the servers that the environment names), sends a simulated log, so
that there are neighbours with anchors, then uploads videos at a steady rate and looks until each
has its neighbours. Prints one JSON object; `missing` had none within `WITHIN_S`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from msgspec import structs

from feature_store.redis.client import Command, pipelined
from feature_store.store import FeatureStore
from onebar.evidence.evidence import trigger_text
from onebar.evidence.text import clean_video
from onebar.settings import Settings
from onebar.stack.local import LocalStack
from stream.events import Event, Video
from stream.events.fold import text_of
from stream.kafka.producer import EventProducer
from stream.simulator import SimulatorConfig, simulate

LOOK_EVERY_S = 0.002
WITHIN_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--embedder", required=True)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0, help="uploads a second")
    parser.add_argument("--events", type=int, default=5000, help="of the log that comes before")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options))))


async def measure(options: argparse.Namespace) -> dict[str, float]:
    events = list(simulate(SimulatorConfig(seed=3, events=options.events)))
    videos = (event for event in events if isinstance(event, Video) and not event.sensitive)
    known = [video for video in videos if trigger_text(clean_video(text_of(video)))]
    settings = Settings(embedder=options.embedder, neighbor_threshold=-1.0)
    with tempfile.TemporaryDirectory(prefix="onebar-") as directory:
        async with LocalStack(settings, Path(directory), own_names=True) as stack:
            producer = EventProducer(stack.settings)
            store = stack.store()
            try:
                await producer.start()
                return await stack.guard(run(options, events, known, producer, store))
            finally:
                await store.close()
                await producer.stop()


async def run(
    options: argparse.Namespace,
    events: list[Event],
    known: list[Video],
    producer: EventProducer,
    store: FeatureStore,
) -> dict[str, float]:
    for start in range(0, len(events), 500):
        await producer.send(events[start : start + 500])
    await has_neighbors(store, known[-1].video_id)
    took = []
    async with asyncio.TaskGroup() as group:
        for number in range(options.videos):
            upload = structs.replace(
                known[number % len(known)],
                video_id=f"upload-{number}",
                event_id=f"upload-{number}",
                ts=time.time(),
            )
            await producer.send([upload])
            took.append(group.create_task(has_neighbors(store, upload.video_id)))
            await asyncio.sleep(1 / options.rate)
    seconds = [found for task in took if (found := task.result()) is not None]
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000 if seconds else (float("nan"),) * 2
    return {
        "uploads": options.videos,
        "rate": options.rate,
        "before": len(known),
        "missing": options.videos - len(seconds),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
    }


async def has_neighbors(store: FeatureStore, video_id: str) -> float | None:
    """Seconds until the video has neighbour anchors; None where it still has none at the end."""
    began = time.perf_counter()
    key = store.keys.neighbors(video_id)
    while time.perf_counter() - began < WITHIN_S:
        [value] = await pipelined(store.client, [Command("GET", (key,))])
        if value not in (None, b"[]"):
            return time.perf_counter() - began
        await asyncio.sleep(LOOK_EVERY_S)
    return None


if __name__ == "__main__":
    main()
