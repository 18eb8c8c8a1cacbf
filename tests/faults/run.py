"""A run: faults befall for a while, all is healed, and the verdict is found."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
import traceback
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct, field

from onebar.settings import Settings
from tests.faults.faults import FAULTS, Step, befall, steps
from tests.faults.verdict import caught_up, faults_found
from tests.faults.world import REDIS, Redis, Servers, World, own_servers, world

BUDGET_MS = 300.0
JUDGED_WITHIN_S = 300.0
"""How long it may take to read the log and the state, and to compare them."""
Tell = Callable[[str], None]


class Report(Struct):
    """What a run did, and what came of it."""

    seed: int
    redis: str
    steps: int = 0
    recovery_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of each fault that befell alone, how long after it all was well; "together" of the others."""
    counts: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    """What was not as it must be."""

    def text(self) -> str:
        """For people."""
        told = [f"\nseed {self.seed}, Redis: {self.redis}; {self.steps} steps of faults"]
        told += [f"  {count:>8,} {name}" for name, count in self.counts.items()]
        told += ["well again after (s):        times  median  longest"]
        for name, took in sorted(self.recovery_s.items()):
            told.append(f"  {name:26} {len(took):5} {median(took):7.1f} {max(took):8.1f}")
        told += self.lines
        told += [f"WRONG: {what}" for what in self.found] or ["all as it must be"]
        return "\n".join(told)


def settings_of(servers: Servers, seed: int) -> Settings:
    """Of one run: topics, groups and keys of its own."""
    name = f"f{seed}-{uuid.uuid4().hex[:8]}"
    several = bool(servers.brokers)
    return Settings(
        kafka_bootstrap=servers.lined,
        redis_url=servers.redis_url,
        redis_timeout_s=2.0,
        namespace=name,
        topic_prefix=f"{name}.",
        consumer_group=name,
        partitions=4 if several else 2,
        replication_factor=servers.replicas,
        idempotent_producer=several,
        session_timeout_s=5.0,
        heartbeat_interval_s=1.0,
        late_after_s=1e7,  # clocks are wrong by days,
        budget_ms=BUDGET_MS,
        showable_users=1,
        log_json=False,
    )


async def run_on_own_servers(
    seed: int, seconds: float, *, redis: Redis | None, only: Sequence[str] | None, logs: Path
) -> Report:
    """A long run. Raises `MissingServerError` and `ServerStartError`."""
    kind = random.Random(seed).choice(REDIS) if redis is None else redis
    print(f"seed {seed}, Redis: {kind}; starting the servers", flush=True)
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    shutil.rmtree(logs, ignore_errors=True)
    async with own_servers(kind) as servers:
        names = [n for n in only or FAULTS if FAULTS[n].can(servers)]
        tell("the servers are there")
        settings = settings_of(servers, seed)
        async with world(servers, settings, logs, seed=seed, stream=2, generators=2) as made:
            over = time.monotonic() + seconds

            def drawn() -> Iterator[Step]:
                for step in steps(seed, names):
                    if time.monotonic() > over:
                        return
                    yield step

            return await run(made, seed, drawn(), tell)


async def run(made: World, seed: int, drawn: Iterator[Step], tell: Tell) -> Report:
    """Have the steps befall a world, heal it, and judge."""
    report = Report(seed, made.servers.redis)
    made.tell = tell
    made.feed.start()
    began, sending_s = time.monotonic(), 0.0
    try:
        for step in drawn:
            name = " and ".join(step.names)
            tell(f"{name}, for {step.for_s:.1f} s")
            rebuilt = len(made.rebuilt_s)
            await befall(made, step)
            took = await made.recovered()
            tell(f"    well again after {took:.1f} s")
            if len(step.names) > 1:
                name = "two together"
            if len(made.rebuilt_s) > rebuilt:
                name = "state lost and built anew"
            report.recovery_s[name].append(took)
            report.steps += 1
        sending_s = time.monotonic() - began
        await asyncio.wait_for(made.feed.stop(), 120)
        began = time.monotonic()
        await caught_up(made)
        report.recovery_s["to the end of the log"].append(time.monotonic() - began)
        tell("caught up; comparing")
        async with asyncio.timeout(JUDGED_WITHIN_S):
            report.found += await faults_found(made)
    except Exception as error:  # whatever it is, it is a verdict
        tell("".join(traceback.format_exception(error)))
        report.found.append(f"{type(error).__name__}: {error}")
    if made.false_alarms:
        report.found.append(
            f"{made.false_alarms} times the state was told to be lost, and no Redis had taken "
            "another's place"
        )
    asked = sorted(took for took, _ in made.feed.asked)
    marks = Counter(mark for _, mark in made.feed.asked)
    report.counts = {
        "events accepted": len(made.feed.accepted),
        "impressions among them": len(made.feed.viewed),
        "messages that are no events": sum(made.feed.poison.values()),
        "lookups answered": len(asked),
        "later than budget + 20 ms": sum(took > 0.02 for took in asked),
        "processes told to end": len(made.fleet.stops_s),
        "processes that ended by themselves": len(made.fleet.ends),
        "changes of the primaries of Redis": made.servers.redis_nodes.successions,
        "states lost and built anew": len(made.rebuilt_s),
    }
    report.lines = [
        f"events were sent for {sending_s:.0f} s",
        f"lookups: {', '.join(f'{count:,} {mark}' for mark, count in marks.most_common())}; "
        f"the longest took {(asked[-1] if asked else 0) * 1000 + BUDGET_MS:.0f} ms",
        f"longest to end: {max((took for _, took in made.fleet.stops_s), default=0):.1f} s",
        f"refused meanwhile: {dict(made.feed.problems.most_common())}",
        *made.fleet.ends,
    ]
    return report
