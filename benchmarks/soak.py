"""Does any process grow? The local stack under a steady load, its memory read all along.

    python benchmarks/soak.py --minutes 30
    python benchmarks/soak.py --minutes 0.5 --rate 100 --every 1

Behaviour, impressions and lookups of a fixed set of users and videos, so whatever grows without
end does so for being asked, not for there being more to hold. The embedded broker keeps its log in
memory, so it grows by what it is sent. Prints one JSON object:
for each process the MiB after the first fifth of the run and at its end (medians of a fifth each),
and the slope of the second half in MiB an hour. `lookups` are those answered, by their source.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from load import Load
from rich.progress import Progress

from onebar.settings import Settings
from onebar.stack.local import LocalStack
from stream.events import Event, Impression, Video
from stream.kafka.producer import EventProducer
from stream.simulator import SimulatorConfig, simulate

MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=500.0, help="behaviour events a second")
    parser.add_argument("--impressions", type=float, default=5.0, help="a second")
    parser.add_argument("--lookups", type=float, default=50.0, help="a second")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two readings")
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    events = list(simulate(SimulatorConfig(seed=4, events=20_000)))
    settings = Settings(rate_limit_per_s=0)
    with tempfile.TemporaryDirectory(prefix="onebar-") as directory:
        async with (
            LocalStack(settings, Path(directory), own_names=True) as stack,
            httpx.AsyncClient(base_url=stack.url, timeout=30.0) as client,
            EventProducer(stack.settings) as producer,
        ):
            return await stack.guard(soak(options, events, stack, client, producer))


async def soak(
    options: argparse.Namespace,
    events: list[Event],
    stack: LocalStack,
    client: httpx.AsyncClient,
    producer: EventProducer,
) -> dict[str, Any]:
    """Load the stack for as long as asked and read the memory meanwhile."""
    await producer.send([event for event in events if isinstance(event, Video)])
    pairs = [(e.video_id, str(e.user_id)) for e in events if isinstance(e, Impression)]
    load = Load(events, producer, options.rate)
    lookups: Counter[str] = Counter()
    work = [
        asyncio.create_task(load.run()),
        asyncio.create_task(show(pairs, producer, 1 / options.impressions)),
        asyncio.create_task(look(pairs, client, 1 / options.lookups, lookups)),
    ]
    times: list[float] = []
    readings: dict[str, list[float]] = {}
    began = time.monotonic()
    try:
        with Progress(transient=True) as bar:
            task = bar.add_task("soaking", total=options.minutes * 60)
            while (passed := time.monotonic() - began) < options.minutes * 60:
                for name, size in memory(stack).items():
                    readings.setdefault(name, []).append(size / MIB)
                times.append(passed / 3600)
                bar.update(task, completed=passed)
                done, _ = await asyncio.wait(work, timeout=options.every)
                for ended in done:
                    ended.result()
        rate = load.rate
    finally:
        for task_ in work:
            task_.cancel()
    return {
        "minutes": options.minutes,
        "rate": round(rate),
        "lookups": dict(lookups),
        "memory": {name: growth(times, sizes) for name, sizes in readings.items()},
    }


def memory(stack: LocalStack) -> dict[str, int]:
    """Resident bytes of each server and worker of the stack, with the processes it started."""
    found = {}
    for child in stack.processes:
        process = psutil.Process(child.pid)
        family = [process, *process.children(recursive=True)]
        found[child.name] = sum(member.memory_info().rss for member in family)
    return found


def growth(times: list[float], sizes: list[float]) -> dict[str, float]:
    """Of readings at `times` (hours): the size after a fifth and at the end, and the slope."""
    fifth, half = max(1, len(sizes) // 5), len(sizes) // 2
    early, late = np.median(sizes[fifth : 2 * fifth]), np.median(sizes[-fifth:])
    slope = np.polyfit(times[half:], sizes[half:], 1)[0] if len(sizes) - half > 1 else 0.0
    return {
        "after_a_fifth_mib": round(float(early), 1),
        "at_the_end_mib": round(float(late), 1),
        "mib_an_hour": round(float(slope), 2),
    }


async def show(pairs: list[tuple[str, str]], producer: EventProducer, pause: float) -> None:
    """Impressions of these pairs, over and over."""
    number = 0
    while True:
        video_id, user_id = pairs[number % len(pairs)]
        shown = Impression(
            event_id=f"shown-{number}", ts=time.time(), user_id=user_id, video_id=video_id
        )
        await producer.send([shown])
        number += 1
        await asyncio.sleep(pause)


async def look(
    pairs: list[tuple[str, str]], client: httpx.AsyncClient, pause: float, found: Counter[str]
) -> None:
    """Lookups of these pairs, over and over."""
    number = 0
    while True:
        video_id, user_id = pairs[number % len(pairs)]
        answer = await client.get("/v1/queries", params={"video_id": video_id, "user_id": user_id})
        found[answer.json()["source"] if answer.status_code == 200 else answer.reason_phrase] += 1
        number += 1
        await asyncio.sleep(pause)


if __name__ == "__main__":
    main()
