"""Fresh answers a second under many callers, beside LitServe with the same model.

    python benchmarks/batching.py --checkpoint CHECKPOINT --peers VENV/bin/python
    python benchmarks/batching.py --requests 32 --rounds 1

The same prompts, each asked for once a turn, by 1 to 32 callers who wait for their answers:

- `onebar`: `GET /v1/queries` of pairs that nothing is cached for. Evidence is read from Redis, the
  prompt built and generated, the result cached;
- `litserve` (with --peers, a Python that has litserve, torch and transformers): the prompts
  themselves, ready made, to `transformers.generate` in batches of up to 16 within 5 ms.

The checkpoint is the shipped one, or CHECKPOINT, which the peer needs with its float weights.
Beam 8, 8 results, one thread for each engine. Both share the machine with this client. Prints
rates, latencies, their ratio at equal callers, and that at equal p99: our best rate whose p99 is
not above the peer's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.progress import track

from feature_store.keys import Keys
from feature_store.redis.client import Command, connect, pipelined, scan
from feature_store.store import FeatureStore
from feature_store.writes import VideoPut
from onebar.bench.caller import Caller
from onebar.evidence.text import clean_video
from onebar.generator.checkpoint import SHIPPED
from onebar.policy import StatePolicy
from onebar.stack.processes import Children
from onebar.stack.servers import free_port, start_broker, start_valkey
from stream.events import Video
from stream.events.fold import text_of
from stream.simulator import SimulatorConfig, simulate

CALLERS = (1, 4, 8, 16, 32)
BUDGET_MS = 2000


async def fill(store: FeatureStore, count: int) -> list[str]:
    """Store the texts of simulated videos; their ids."""
    events = simulate(SimulatorConfig(seed=6, events=40 * count))
    texts = {}
    for event in events:
        if isinstance(event, Video) and not event.sensitive:
            text = clean_video(text_of(event))
            if text.title or text.caption or text.item_title:
                texts[event.video_id] = text
        if len(texts) == count:
            break
    puts = [VideoPut(name, 1.0, name, text) for name, text in texts.items()]
    await store.apply([(put, None) for put in puts])
    return list(texts)


def start_api(children: Children, work: Path, redis_url: str, namespace: str, path: Path) -> int:
    port = free_port()
    env = {
        **os.environ,
        "ONEBAR_REDIS_URL": redis_url,
        "ONEBAR_NAMESPACE": namespace,
        "ONEBAR_KAFKA_BOOTSTRAP": start_broker(children, work),
        "ONEBAR_API_PORT": str(port),
        "ONEBAR_IDEMPOTENT_PRODUCER": "0",
        "ONEBAR_CHECKPOINT": str(path),
        "ONEBAR_LOG_LEVEL": "error",
        "OMP_NUM_THREADS": "1",
    }
    child = children.start(
        "api", [sys.executable, "-P", "-m", "onebar", "api"], work / "api.log", env
    )
    child.wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 60)
    return port


def start_litserve(children: Children, work: Path, python: str, path: Path) -> int:
    port = free_port()
    command = [python, str(Path(__file__).with_name("litserve_peer.py")), str(path), str(port)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    child = children.start("litserve", command, work / "litserve.log", env)
    child.wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 120)
    return port


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def caller_of(port: int) -> Caller:
    return Caller(f"http://127.0.0.1:{port}")


async def by_callers(port: int, requests: Sequence[bytes], callers: int) -> dict[str, float]:
    """Ask for everything once, by so many at a time."""
    took: list[float] = []
    left = iter(requests)

    async def call() -> None:
        async with caller_of(port) as caller:
            for request in left:
                began = time.perf_counter()
                body = await caller.ask(request)
                took.append(time.perf_counter() - began)
                fresh = body.get("source", "generated") == "generated"
                if not fresh or not (body["queries"] or body.get("rejected")):
                    raise SystemExit(f"no fresh answer: {body}")

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    seconds = time.perf_counter() - began
    p50, p99 = np.percentile(took, [50, 99]) * 1000
    return {"per_s": len(requests) / seconds, "p50_ms": float(p50), "p99_ms": float(p99)}


async def measure(options: argparse.Namespace, work: Path, children: Children) -> dict[str, Any]:
    redis_url = start_valkey(children, work)
    keys = Keys(namespace="bench")
    store = FeatureStore(connect(redis_url, timeout_s=30.0), keys, StatePolicy())
    videos = await fill(store, options.requests)
    api = start_api(children, work, redis_url, keys.namespace, options.checkpoint)
    peer = options.peers and start_litserve(children, work, options.peers, options.checkpoint)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    async with caller_of(api) as caller:
        get, post = caller.get, caller.post
        prompts = [
            (await caller.ask(get(f"/v1/evidence?video_id={video}")))["prompt"] for video in videos
        ]
    targets = {
        "onebar": (
            api,
            [get(f"/v1/queries?video_id={video}&budget_ms={BUDGET_MS}") for video in videos],
        )
    }
    if peer:
        targets["litserve"] = peer, [post("/predict", {"prompt": prompt}) for prompt in prompts]
    for port, requests in targets.values():
        await by_callers(port, requests[:8], 2)  # warm
    turns = [(n, c) for _ in range(options.rounds) for c in CALLERS for n in targets]
    for name, callers in track(turns, "asking", transient=True):
        await forget_answers(store)
        found.setdefault((name, callers), []).append(await by_callers(*targets[name], callers))
    await store.close()
    report: dict[str, Any] = {
        "checkpoint": options.checkpoint.name,
        "requests": len(videos),
        "rounds": options.rounds,
    }
    for (name, callers), runs in found.items():
        report.setdefault(name, {})[callers] = {
            key: round(statistics.median(run[key] for run in runs), 1) for key in runs[0]
        }
    if peer:
        report["onebar_to_litserve"] = {
            callers: ratio(found["onebar", callers], found["litserve", callers])
            for callers in CALLERS
        }
        report["onebar_to_litserve_at_its_p99"] = {
            callers: at_equal_p99(report["onebar"], report["litserve"][callers])
            for callers in CALLERS
        }
    return report


def at_equal_p99(ours: dict[int, dict[str, float]], peer: dict[str, float]) -> float | None:
    """Our best rate with no greater p99 than the peer's, over the peer's rate; None if none is."""
    rates = [row["per_s"] for row in ours.values() if row["p99_ms"] <= peer["p99_ms"]]
    return round(max(rates) / peer["per_s"], 2) if rates else None


async def forget_answers(store: FeatureStore) -> None:
    """Drop what is cached, so that every answer is generated again."""
    names = [name async for name in scan(store.client, store.keys.prefix)]
    wanted = [name for name in names if not name.endswith("}:t")]
    if wanted:
        await pipelined(store.client, [Command("DEL", (name,)) for name in wanted])


def ratio(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> float:
    """Median over the rounds of the rates' ratio within a round."""
    pairs = zip(one, other, strict=True)
    return round(statistics.median(a["per_s"] / b["per_s"] for a, b in pairs), 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="", help="a Python with litserve and transformers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onebar-bench-") as work, Children() as children:
        print(json.dumps(asyncio.run(measure(options, Path(work), children))))


if __name__ == "__main__":
    main()
