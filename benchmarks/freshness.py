"""How fresh the answers are while events keep coming: behaviour to anchors, impression to queries.

    python benchmarks/freshness.py                              # embedded broker and Valkey
    python deploy/real_servers.py run -- python benchmarks/freshness.py     # Apache Kafka, Redis
    python benchmarks/freshness.py --rate 500 --probes 20 --impressions 2

Starts the local stack (or uses the servers that the environment names) and sends the behaviour of a
simulated log at a steady rate. Meanwhile, one after the other:

- `behavior`: a search nobody made before; the time from Kafka's acknowledgement until
  `GET /v1/videos/{id}/anchors` shows it;
- `impression`: of a pair that nothing is cached for, `--impressions` a second; the time until
  `GET /v1/queries` answers from the cache (the API itself generates nothing here).

Everything shares the machine, this client included. Prints one JSON object; `rate` is what was
really sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from load import Load
from rich.progress import Progress

from onebar.settings import Settings
from onebar.stack.local import LocalStack
from stream.events import Event, Impression, Search, Video
from stream.kafka.producer import EventProducer
from stream.simulator import SimulatorConfig, simulate

LOOK_EVERY_S = 0.002
WITHIN_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=2000.0, help="behaviour events a second")
    parser.add_argument("--probes", type=int, default=300, help="of each kind")
    parser.add_argument("--impressions", type=float, default=20.0, help="a second")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options))))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    events = list(simulate(SimulatorConfig(seed=4, events=20_000)))
    # A probe is one user's search, and is to be seen at once.
    settings = Settings(api_generate=False, rate_limit_per_s=0, showable_users=1)
    with tempfile.TemporaryDirectory(prefix="onebar-") as directory:
        async with (
            LocalStack(settings, Path(directory), own_names=True) as stack,
            httpx.AsyncClient(base_url=stack.url, timeout=WITHIN_S) as client,
            EventProducer(stack.settings) as producer,
        ):
            return await stack.guard(Run(options, events, client, producer).report())


class Run:
    """One run against a stack that is up."""

    def __init__(
        self,
        options: argparse.Namespace,
        events: list[Event],
        client: httpx.AsyncClient,
        producer: EventProducer,
    ) -> None:
        self._options = options
        self._videos = [event for event in events if isinstance(event, Video)]
        self._events = events
        self._client = client
        self._producer = producer

    async def report(self) -> dict[str, Any]:
        await self._producer.send(self._videos)
        last = self._videos[-1].video_id
        await self._search(last, "warm up")  # everything is connected and has been used once
        await self._impression(last, "warm-up")
        load = Load(self._events, self._producer, self._options.rate)
        loading = asyncio.create_task(load.run())
        behavior: list[float] = []
        impression: list[asyncio.Task[float]] = []
        try:
            with Progress(transient=True) as bar:
                task = bar.add_task("probing", total=self._options.probes)
                for number in range(self._options.probes):
                    video = self._videos[number * 7 % len(self._videos)].video_id
                    shown = self._videos[number * 11 % len(self._videos)].video_id
                    waiting = asyncio.create_task(self._impression(shown, f"probe-{number}"))
                    impression.append(waiting)
                    pause = asyncio.create_task(asyncio.sleep(1 / self._options.impressions))
                    behavior.append(await self._search(video, f"probe {number}"))
                    await pause
                    bar.advance(task)
            rate = load.rate
            impressions = await asyncio.gather(*impression)
        finally:
            loading.cancel()
        return {
            "rate": round(rate),
            "probes": self._options.probes,
            "impressions_per_s": self._options.impressions,
            "behavior_ms": percentiles(behavior),
            "impression_ms": percentiles(impressions),
        }

    async def _search(self, video_id: str, query: str) -> float:
        event = Search(
            event_id=f"s-{query}", ts=time.time(), user_id="prober", video_id=video_id, query=query
        )
        await self._producer.send([event])

        def visible(body: Any) -> bool:
            return any(anchor["query"] == query for anchor in body["anchors"])

        return await self._until(f"/v1/videos/{video_id}/anchors", visible)

    async def _impression(self, video_id: str, user_id: str) -> float:
        event = Impression(
            event_id=f"i-{user_id}", ts=time.time(), user_id=user_id, video_id=video_id
        )
        await self._producer.send([event])
        # Only what was generated for this user will do: the video alone may have been cached.
        path = f"/v1/queries?video_id={video_id}&user_id={user_id}"
        sent = event.ts

        def cached(body: Any) -> bool:
            return body["source"] == "cache" and body["generated_at"] >= sent - 1

        return await self._until(path, cached)

    async def _until(self, path: str, ready: Any) -> float:
        began = time.perf_counter()
        while time.perf_counter() - began < WITHIN_S:
            answer = await self._client.get(path)
            if answer.status_code == 200 and ready(answer.json()):
                return time.perf_counter() - began
            await asyncio.sleep(LOOK_EVERY_S)
        raise TimeoutError(f"{path} did not show what was waited for within {WITHIN_S:g} s")


def percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


if __name__ == "__main__":
    main()
