"""What constrained generation costs, and that it says nothing else: by engine, size and mode.

    python benchmarks/constrained.py
    python benchmarks/constrained.py --checkpoint DIR --engine torch --sizes 1000,100000

Each prompt by itself, the modes in turn; medians, in milliseconds of the CPU (one thread computes,
so a quiet machine takes as long).The repertoire is made of the
queries of a simulated feed and of pairs of their words; prompts are those of its videos. `illegal`
counts what `only` said that may not be said; `at_hand` is what is found for a prompt, of 8.
`near_ms` is finding the queries near a prompt, `change_ms` a generation behind one query added or
taken out. An engine of CTranslate2 scores queries; torch's masks its search.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

from onebar.evidence.evidence import assemble
from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.text import REJECT, clean_video, normalize_query
from onebar.gating.repertoire import Repertoire
from onebar.generator.checkpoint import open_checkpoint
from onebar.generator.load import load_engine
from onebar.generator.within import Within
from onebar.recommending.recommend import NEAR
from onebar.records import Features
from stream.events import Search, Video
from stream.events.fold import text_of
from stream.simulator import SimulatorConfig, simulate

EVENTS = 6000
K = 8


def feed() -> tuple[list[str], list[str]]:
    """Prompts of a simulated feed's videos, and its queries."""
    prompts: list[str] = []
    queries: set[str] = set()
    for event in simulate(SimulatorConfig(events=EVENTS, seed=5)):
        if isinstance(event, Video):
            evidence = assemble(Features(clean_video(text_of(event))), max_anchors=8, max_history=8)
            prompts.append(build_prompt(evidence, PromptConfig()))
        elif isinstance(event, Search):
            queries.add(normalize_query(event.query))
    return prompts, sorted(queries - {""})


def repertoire_of(queries: list[str], size: int) -> tuple[Repertoire, float]:
    """So many queries, and the MiB that they take."""
    rng = random.Random(1)
    words = sorted({word for query in queries for word in query.split()})
    made = dict.fromkeys(queries[:size])
    while len(made) < size:
        made[" ".join(rng.sample(words, rng.choice((2, 3))))] = None
    tracemalloc.start()
    repertoire = Repertoire(made)
    mib = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    return repertoire, mib


def ms(work: Callable[[], object]) -> float:
    """What one call takes of the CPU."""
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1000


def main() -> None:
    """Measure, and print a row for each size."""
    parser = argparse.ArgumentParser(description="What constrained generation costs.")
    parser.add_argument("--checkpoint", type=Path, help="the shipped one if not given")
    parser.add_argument("--engine", default="auto", choices=["auto", "ctranslate2", "torch"])
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--prompts", type=int, default=30)
    asked = parser.parse_args()
    engine = load_engine(open_checkpoint(asked.checkpoint), engine=asked.engine, beam_size=K)
    prompts, queries = feed()
    prompts = prompts[: asked.prompts]
    print("| queries | open | prefer | only | near_ms | change_ms | at_hand | illegal | MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in map(int, asked.sizes.split(",")):
        repertoire, mib = repertoire_of(queries, size)
        engine.generate(prompts[:1], K, [Within(repertoire)])  # reads the tokens
        took: dict[str, list[float]] = {}
        found, illegal = [], 0
        for prompt in prompts:
            near = repertoire.near([prompt], NEAR)
            held = Within(repertoire, (), near)
            works: dict[str, Callable[[], object]] = {
                "near": partial(repertoire.near, [prompt], NEAR),
                "open": partial(engine.generate, [prompt], K),
                "prefer": partial(
                    engine.generate, [prompt], K, [Within(repertoire, (), near, True)]
                ),
                "only": partial(engine.generate, [prompt], K, [held]),
            }
            for name, work in works.items():
                took.setdefault(name, []).append(ms(work))
            [said] = engine.generate([prompt], K, [held])
            found.append(len(said))
            illegal += sum(c.text != REJECT and c.text not in repertoire for c in said)
        for number, prompt in enumerate(prompts[:8]):
            for change in (repertoire.add, repertoire.remove):
                change(f"quite new {number}")
                work = partial(engine.generate, [prompt], K, [Within(repertoire)])
                took.setdefault("change", []).append(ms(work))
        of = {name: f"{statistics.median(each):.1f}" for name, each in took.items()}
        print(
            f"| {size:,} | {of['open']} | {of['prefer']} | {of['only']} | {of['near']} "
            f"| {of['change']} | {statistics.mean(found):.1f} | {illegal} | {mib:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
