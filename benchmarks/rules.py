"""What many rules cost, and how soon a rule holds in every process.

    python benchmarks/rules.py                       # memory and latency by the number of rules
    python benchmarks/rules.py --urls http://127.0.0.1:8080,http://127.0.0.1:8081 --changes 100

The first makes books of rules (of a hundred 80 about one query, 15 about two words, 4 about Chinese
characters, 1 by pattern) and judges queries of which a third match; times are of the CPU, so that
a busy machine tells the same. The second makes rules
by the first URL of an OneBar that runs and asks each of them until the rule holds there: start as
many `onebar api` as there are URLs on one Kafka and Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
import tracemalloc

import httpx
import numpy as np

from onebar.gating.gate import Gate
from onebar.gating.risk import shipped_rules
from onebar.gating.rules import About, RuleBook, check_rule
from onebar.records import Candidate, Rule

SIZES = (0, 1_000, 10_000, 100_000)
WORDS = [
    f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("ck", "ll", "nd", "rt", "x")
]
HAN = "红蓝鞋子衣服包帽夏冬新款男女童装手机壳厨房用品"
QUERIES = 2000
ASKED_EVERY_S = 0.005
GIVE_UP_S = 30.0


def rules(count: int) -> list[Rule]:
    """So many rules."""
    rng = random.Random(7)
    made = []
    for number in range(count):
        name, kind = f"r{number}", number % 100
        text = {"query": " ".join(rng.choices(WORDS, k=3))}
        if kind >= 99:
            text = {"pattern": rf"\b{rng.choice(WORDS)}.*{number}"}
        elif kind >= 95:
            text = {"word": "".join(rng.choices(HAN, k=4))}
        elif kind >= 80:
            text = {"word": " ".join(rng.choices(WORDS, k=2))}
        made.append(check_rule(Rule(name, "block", **text)))  # type: ignore[arg-type]
    return made


def cost(count: int) -> str:
    """A row: rules, MiB, seconds to take them in, then microseconds a judged query and a change."""
    made = rules(count)
    tracemalloc.start()
    started = time.thread_time()
    book = RuleBook(made)
    took = time.thread_time() - started
    mib = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    gate = Gate(book, risk=shipped_rules())
    rng = random.Random(8)
    about = About("v", "ann", "shoes")
    texts = [
        rng.choice(made).query or "red shoes" if made and rng.random() < 0.3 else "".join(ws)
        for ws in ([" ".join(rng.choices(WORDS, k=3))] for _ in range(QUERIES))
    ]
    gate.apply([Candidate(text, -1.0) for text in texts[:10]], about, 0.0)
    each = []
    for text in texts:
        begun = time.thread_time()
        gate.judge(text, about, 0.0)
        each.append((time.thread_time() - begun) * 1e6)
    changes = []
    for number in range(50):
        rule = check_rule(Rule(f"new{number}", "block", pattern=f"new{number}.*x"))
        begun = time.thread_time()
        gate.take(rule.rule_id, rule)
        gate.judge("red shoes", about, 0.0)
        changes.append((time.thread_time() - begun) * 1e6)
    p50, p99 = np.percentile(each, [50, 99])
    return (
        f"| {count:,} | {mib:.1f} | {took:.2f} | {p50:.0f} | {p99:.0f} "
        f"| {np.percentile(changes, 99):.0f} |"
    )


async def hold(urls: list[str], changes: int, key: str | None) -> None:
    """Print how long rules take to hold everywhere, from the moment that one is asked for."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    took: list[float] = []
    async with httpx.AsyncClient(timeout=10, headers=headers) as http:

        async def holds(url: str, name: str) -> None:
            while True:
                found = await http.get(f"{url}/v1/rules/{name}")
                if found.status_code == 200 and found.json()["rule"] is not None:
                    return
                await asyncio.sleep(ASKED_EVERY_S)

        for number in range(changes):
            name = f"bench-{time.time_ns()}-{number}"
            body = {"action": "block", "query": f"bench {number}", "who": "bench"}
            begun = time.perf_counter()
            (await http.put(f"{urls[0]}/v1/rules/{name}", json=body)).raise_for_status()
            async with asyncio.timeout(GIVE_UP_S):
                await asyncio.gather(*(holds(url, name) for url in urls))
            took.append((time.perf_counter() - begun) * 1000)
            (await http.delete(f"{urls[0]}/v1/rules/{name}")).raise_for_status()
    p50, p99 = np.percentile(took, [50, 99])
    print(f"{changes} rules, {len(urls)} processes: p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def main() -> None:
    """Measure one or the other."""
    parser = argparse.ArgumentParser(description="What rules cost.")
    parser.add_argument("--urls", help="of APIs that run, separated by commas")
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--key", help="an admin key, where the APIs want one")
    asked = parser.parse_args()
    if asked.urls:
        asyncio.run(hold(asked.urls.split(","), asked.changes, asked.key))
        return
    print("| rules | MiB | taken in, s | judged, µs p50 | p99 | a change and its effect, µs p99 |")
    print("|---|---|---|---|---|---|")
    for count in SIZES:
        print(cost(count), flush=True)


if __name__ == "__main__":
    main()
