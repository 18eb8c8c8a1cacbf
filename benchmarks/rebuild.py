"""What a rebuild of the state costs those who ask meanwhile: time without an answer, answers that
are no longer ready, freshness.

    python benchmarks/rebuild.py                              # embedded broker and Valkey
    python deploy/real_servers.py run -- python benchmarks/rebuild.py       # Apache Kafka, Redis
    python benchmarks/rebuild.py --events 5000 --pairs 50 --rate 50

Starts the local stack (or uses the servers that the environment names), sends a simulated log of
`--events` events, and has the generator make `--pairs` pairs ready. Then, while behaviour comes at
`--rate` events a second, a client asks for these pairs one after the other, another one sends
searches that nobody made before and waits until the API shows them, and `onebar rebuild` runs.
Prints one JSON object:

- `fill`: events taken in, how many a second, and the processor time of the command for each;
- `without_api_s`: the longest time between two answers of the API, `failed` requests among them;
- `fallbacks`: of the pairs, before, as soon as the API was on the new version, and after everyone
  had come to it; `from_cache` the same;
- `fresh_ms`: from Kafka's acknowledgement of a search until the API shows it, before the rebuild
  and from its beginning to its end.

Everything shares the machine, the clients included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from load import Load
from msgspec import structs

from feature_store.opening import versions_beside
from feature_store.versions import Versions
from onebar.process.tasks import end_tasks
from onebar.records import Pair
from onebar.settings import Settings
from onebar.stack.local import LocalStack
from onebar.stack.variables import environment
from stream.events import Event, Impression, Search
from stream.kafka.producer import EventProducer
from stream.logs.fold_check import wait_for_zero_lag
from stream.simulator import SimulatorConfig, simulate

WITHIN_S = 30.0
PAUSE_S = 0.005
BATCH = 64
POLL_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000, help="of the log")
    parser.add_argument("--pairs", type=int, default=200, help="asked for")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second meanwhile")
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    events = list(simulate(SimulatorConfig(seed=4, events=options.events)))
    settings = Settings(rate_limit_per_s=0, showable_users=1, cache_soft_ttl_s=3600.0)
    with tempfile.TemporaryDirectory(prefix="onebar-") as directory:
        async with (
            LocalStack(settings, Path(directory), own_names=True) as stack,
            httpx.AsyncClient(base_url=stack.url, timeout=WITHIN_S) as client,
            EventProducer(stack.settings) as producer,
        ):
            store = stack.store()
            try:
                versions = versions_beside(store, stack.settings)
                run = Run(options, events, stack.settings, client, producer, versions)
                return await stack.guard(run.report())
            finally:
                await store.close()


class Run:
    """One run against a stack that is up."""

    def __init__(
        self,
        options: argparse.Namespace,
        events: Sequence[Event],
        settings: Settings,
        client: httpx.AsyncClient,
        producer: EventProducer,
        versions: Versions,
    ) -> None:
        self._options = options
        self._events = events
        self._settings = settings
        self._client = client
        self._producer = producer
        self._versions = versions
        self._videos: list[str] = []
        self._pairs: list[Pair] = []
        self._gap = 0.0
        self._failed = 0

    async def report(self) -> dict[str, Any]:
        await self._send([each for each in self._events if not isinstance(each, Impression)])
        await wait_for_zero_lag(self._settings, generator=False)
        shown = {
            (each.video_id, str(each.user_id)): each
            for each in self._events
            if isinstance(each, Impression)
        }
        chosen = list(shown.values())[: self._options.pairs]
        self._pairs = list(shown)[: self._options.pairs]
        now = time.time()
        await self._send([structs.replace(each, ts=now) for each in chosen])
        await wait_for_zero_lag(self._settings, generator=True)
        load = Load(self._events, self._producer, self._options.rate)
        beside = [asyncio.create_task(each) for each in (load.run(), self._ask())]
        try:
            before = await self._sources()
            fresh = [await self._search(number) for number in range(20)]
            self._gap = 0.0
            rebuild = asyncio.create_task(self._rebuild())
            live = asyncio.create_task(self._once_live())
            meanwhile = []
            while not rebuild.done():
                meanwhile.append(await self._search(len(fresh) + len(meanwhile)))
                await asyncio.sleep(POLL_S)
            report = await rebuild
            at_once = await live
            gap, failed = self._gap, self._failed
            after = await self._sources()
            rate = load.rate
        finally:
            await end_tasks(*beside)
        return {
            "fill": {
                "events": report["events"],
                "seconds": round(report["fill_s"], 1),
                "per_s": round(report["events_per_s"]),
                "cpu_us_each": round(1e6 * report["fill_cpu_s"] / report["events"], 1),
            },
            "compared": report["checked"],
            "warmed": report["warmed"],
            "settle_s": round(report["settle_s"], 2),
            "without_api_s": round(gap, 3),
            "failed": failed,
            "pairs": len(self._pairs),
            "fallbacks": {
                "before": before["fallback"],
                "at_once": at_once["fallback"],
                "after": after["fallback"],
            },
            "from_cache": {
                "before": before["cache"],
                "at_once": at_once["cache"],
                "after": after["cache"],
            },
            "fresh_ms": {"before": _spread(fresh), "meanwhile": _spread(meanwhile)},
            "rate": round(rate),
        }

    async def _send(self, events: Sequence[Event]) -> None:
        for at in range(0, len(events), 1000):
            await self._producer.send(events[at : at + 1000])

    async def _ask(self) -> None:
        """Ask for the pairs one after the other, for ever."""
        answered = time.perf_counter()
        while True:
            for video, user in self._pairs:
                try:
                    path = f"/v1/queries?video_id={video}&user_id={user}"
                    answer = await self._client.get(path)
                    answer.raise_for_status()
                except httpx.HTTPError:
                    self._failed += 1
                else:
                    now = time.perf_counter()
                    self._gap = max(self._gap, now - answered)
                    answered = now
                await asyncio.sleep(PAUSE_S)

    async def _sources(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for at in range(0, len(self._pairs), BATCH):
            asked = [{"video_id": v, "user_id": u} for v, u in self._pairs[at : at + BATCH]]
            answer = await self._client.post("/v1/queries", json={"requests": asked})
            results = answer.json()["results"]
            found.update(each["source"] for each in results)
            # Under the others nothing may be shown, whoever asks it.
            self._videos += [each["video_id"] for each in results if each["queries"]]
        return found

    async def _once_live(self) -> Counter[str]:
        """Where the answers come from as soon as the API is on the new version."""
        before, _ = await self._versions.look()
        while True:
            api = [each for each in await self._versions.processes() if each.kind == "api"]
            if api and all(each.version != before for each in api):
                return await self._sources()
            await asyncio.sleep(POLL_S)

    async def _search(self, number: int) -> float:
        """How long it takes until a search that nobody made before is shown."""
        video, query = self._videos[number * 7 % len(self._videos)], f"probe {number}"
        event = Search(
            event_id=query, ts=time.time(), user_id="prober", video_id=video, query=query
        )
        await self._producer.send([event])
        began = time.perf_counter()
        while time.perf_counter() - began < WITHIN_S:
            answer = await self._client.get(f"/v1/videos/{video}/anchors")
            if any(anchor["query"] == query for anchor in answer.json()["anchors"]):
                return time.perf_counter() - began
            await asyncio.sleep(POLL_S / 4)
        raise TimeoutError(f"{query!r} was not shown within {WITHIN_S:g} s")

    async def _rebuild(self) -> dict[str, Any]:
        command = [sys.executable, "-P", "-m", "onebar", "rebuild", "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, env=environment(self._settings)
        )
        told, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"onebar rebuild ended with {process.returncode}")
        found: dict[str, Any] = json.loads(told)
        return found


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    found = np.percentile(np.array(seconds) * 1000, [50, 99, 100])
    return dict(zip(("p50", "p99", "max"), found.round(1).tolist(), strict=True))


if __name__ == "__main__":
    main()
