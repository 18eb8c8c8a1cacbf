"""How many events a second one stream worker takes in on one core, beside peers that read the same.

    python benchmarks/stream_worker.py                  # embedded broker and Valkey
    python deploy/real_servers.py run -- python benchmarks/stream_worker.py    # Apache Kafka, Redis
    python benchmarks/stream_worker.py --peers VENV/bin/python    # one with quixstreams and redis

A simulated log's videos and behaviour go to topics of one partition, once. Then, turn by turn, each
of these reads them from their start, alone on the first core (the servers have the others):

- `onebar`: `onebar stream`, everything on: parsing, de-duplication, fences, metrics, Redis;
- `faust`: a plain Faust agent that receives the same bytes in batches and drops them;
- `quix` (with --peers): quix-streams counting the same anchors in its state, a write to Redis each.

With --workers N there are N partitions, and another turn, `onebar_together`: N workers that share
them, each on a core of its own as far as there are cores.

All is counted from the first tenth to the end. Prints medians over the rounds: events a second,
their ratios within each round, processor time an event, of all workers together, and what of it was
spent before: the start of a process, which a worker that runs for months pays once. Of embedded
servers also the processor time that they had for each event of a turn, its start and end included.
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
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct
from rich.progress import track

from feature_store.keys import Keys
from feature_store.redis.client import connect
from feature_store.store import FeatureStore
from onebar.settings import Settings
from onebar.stack.processes import Child, Children
from onebar.stack.servers import start_broker, start_valkey
from onebar.stack.variables import environment
from stream.events import BEHAVIORS, VIDEOS
from stream.kafka.producer import EventProducer
from stream.kafka.topics import delete_topics, ensure_topics
from stream.simulator import SimulatorConfig, simulate

HERE = Path(__file__).parent
TIMEOUT_S = 300.0
LOOK_EVERY_S = 0.005
Progress = list[tuple[int, float, float]]
"""(events, monotonic seconds, seconds of processor time), as far as it had come."""


async def fill(settings: Settings, count: int) -> dict[str, int]:
    """Send a log's videos and behaviour to new topics; how many went to each."""
    await ensure_topics(settings)
    sent = {VIDEOS: 0, BEHAVIORS: 0}
    # About six tenths of a simulated log are read by the stream worker.
    events = simulate(SimulatorConfig(seed=5, events=count * 2))
    wanted = [event for event in events if event.topic in sent][:count]
    async with EventProducer(settings) as producer:
        for at in range(0, len(wanted), 1000):
            await producer.send(wanted[at : at + 1000])
    for event in wanted:
        sent[event.topic] += 1
    return sent


def start(
    children: Children, work: Path, name: str, settings: Settings, python: str, number: int
) -> Child:
    """One reader, bound to a core."""
    command = {
        "onebar": [sys.executable, "-P", "-m", "onebar", "stream"],
        "faust": [sys.executable, str(HERE / "stream_peers.py"), "faust"],
        "quix": [python, str(HERE / "stream_peers.py"), "quix"],
    }[name.removesuffix("_together")]
    env = {**environment(settings), "ONEBAR_LOG_LEVEL": "error", "OMP_NUM_THREADS": "1"}
    log = work / f"{name}-{number}-{settings.consumer_group}.log"
    child = children.start(f"{name}-{number}", command, log, env)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(child.pid, {cores[number % len(cores)]})
    return child


async def by_store(
    readers: Sequence[Child], store: FeatureStore, sent: dict[str, int], partitions: int
) -> Progress:
    """The stream workers' progress, as they note it in Redis."""
    found: Progress = []
    pairs = [(topic, partition) for topic in sent for partition in range(partitions)]
    while not found or found[-1][0] < sum(sent.values()):
        for reader in readers:
            reader.check()
        reached = await store.reached(pairs)
        count = sum(reached.get(pair, -1) + 1 for pair in pairs)
        if count and (not found or count > found[-1][0]):
            found.append((count, time.monotonic(), sum(map(processor_s, readers))))
        await asyncio.sleep(LOOK_EVERY_S)
    return found


async def by_log(child: Child, sent: dict[str, int]) -> Progress:
    """A peer's progress, as it prints it: `count seconds processor-seconds` a line."""
    while True:
        said = child.log.read_text()
        lines = [line.split() for line in said[: said.rfind("\n") + 1].splitlines() if line]
        found = [
            (int(line[0]), float(line[1]), float(line[2])) for line in lines if line[0].isdigit()
        ]
        if found and found[-1][0] >= sum(sent.values()):
            return found
        child.check()
        await asyncio.sleep(0.1)


class Turn(Struct, frozen=True):
    """Events a second, processor µs an event, processor seconds before, and the processor µs an
    event of each embedded server."""

    rate: float
    micros: float
    before: float
    servers: dict[str, float]


def processor_s(child: Child) -> float:
    """Processor time that a child has had so far, in seconds."""
    used = psutil.Process(child.pid).cpu_times()
    return float(used.user + used.system)


async def turn(
    children: Children, work: Path, name: str, base: Settings, sent: dict[str, int], python: str
) -> Turn:
    """Have one of them read everything."""
    unique = uuid.uuid4().hex[:8]
    settings = base.model_copy(update={"namespace": f"b{unique}", "consumer_group": f"b{unique}"})
    client = connect(settings.redis_url, timeout_s=30.0)
    store = FeatureStore(client, Keys(settings.namespace, settings.state_version), settings.policy)
    count = base.partitions if name == "onebar_together" else 1
    idle = {server.name: processor_s(server) for server in children}
    servers = list(children)
    readers = [start(children, work, name, settings, python, number) for number in range(count)]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if name.startswith("onebar"):
                progress = await by_store(readers, store, sent, base.partitions)
            else:
                progress = await by_log(readers[0], sent)
        served = {server.name: processor_s(server) - idle[server.name] for server in servers}
    finally:
        for reader in readers:
            children.end(reader)
        await store.close()
    total = sum(sent.values())
    before, began, start_cpu = next(sample for sample in progress if sample[0] >= total / 10)
    count, ended, spent = progress[-1]
    events = count - before
    return Turn(
        events / (ended - began),
        1e6 * (spent - start_cpu) / events,
        start_cpu,
        {server: 1e6 * seconds / total for server, seconds in served.items()},
    )


async def measure(options: argparse.Namespace, work: Path, children: Children) -> dict[str, Any]:
    settings = Settings()
    named = settings.model_fields_set
    update: dict[str, Any] = {"topic_prefix": f"b{uuid.uuid4().hex[:8]}."}
    update["partitions"] = options.workers
    if "kafka_bootstrap" not in named:
        update |= {"kafka_bootstrap": start_broker(children, work), "idempotent_producer": False}
    if "redis_url" not in named:
        update["redis_url"] = start_valkey(children, work)
    settings = settings.model_copy(update=update)
    if hasattr(os, "sched_setaffinity") and len(cores := os.sched_getaffinity(0)) > 1:
        for child in children:
            os.sched_setaffinity(child.pid, cores - {min(cores)})
    sent = await fill(settings, options.events)
    together = ["onebar_together"] if options.workers > 1 else []
    names = ["onebar", *together, "faust", *(["quix"] if options.peers else [])]
    taken: dict[str, list[Turn]] = {name: [] for name in names}
    try:
        order = [name for _ in range(options.rounds) for name in names]
        for name in track(order, "reading", transient=True):
            taken[name].append(await turn(children, work, name, settings, sent, options.peers))
    finally:
        prefix = settings.topic_prefix
        await delete_topics(settings, [prefix + topic for topic in sent])
    rates = {name: [one.rate for one in turns] for name, turns in taken.items()}
    return {
        "servers": "named by the environment" if named & {"redis_url"} else "embedded",
        "events": sum(sent.values()),
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "workers": options.workers,
        "events_per_s": {name: round(statistics.median(rates[name])) for name in names},
        "cpu_us_per_event": medians(taken, lambda one: one.micros),
        "cpu_s_before": medians(taken, lambda one: one.before),
        **{
            f"{server}_cpu_us_per_event": medians(taken, lambda one, of=server: one.servers[of])  # type: ignore[misc]
            for server in taken["onebar"][0].servers
        },
        **{
            f"onebar_to_{name}": ratio(rates["onebar"], rates[name])
            for name in names
            if not name.startswith("onebar")
        },
        **{f"{name}_to_onebar": ratio(rates[name], rates["onebar"]) for name in together},
    }


def medians(taken: Mapping[str, Sequence[Turn]], of: Callable[[Turn], float]) -> dict[str, float]:
    """Of each reader, the median over its turns."""
    return {name: round(statistics.median(map(of, turns)), 1) for name, turns in taken.items()}


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median over the rounds of their ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="also as many together")
    parser.add_argument("--peers", default="", help="a Python that has quixstreams and redis")
    options = parser.parse_args()
    run: Callable[..., Any] = asyncio.run
    with tempfile.TemporaryDirectory(prefix="onebar-bench-") as work, Children() as children:
        print(json.dumps(run(measure(options, Path(work), children))))


if __name__ == "__main__":
    main()
