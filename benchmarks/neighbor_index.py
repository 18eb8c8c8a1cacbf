"""How fast the index of triggers answers and how much memory it takes, at its size in production.

    python benchmarks/neighbor_index.py                     # a million videos, 128-d
    python benchmarks/neighbor_index.py --videos 20000

Vectors are drawn around centres, as videos of one subject are: no index of this kind is good at
vectors without any structure. Recall is that of the nearest against a comparison with every
vector, for some of the queries.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import psutil
from rich.progress import track

from onebar.embedding.encoder import Vectors, unit
from onebar.embedding.index import VectorIndex

BATCH = 2000
SPREAD = 0.7
"""Length of a vector's own part, beside a centre of length 1."""
EXACT = 200
"""Queries that recall is measured on."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--nearest", type=int, default=32, help="how many are asked for")
    options = parser.parse_args()
    nearest: int = options.nearest
    draw = np.random.default_rng(0)
    centres = unit(draw.normal(size=(max(1, options.videos // 50), options.dim)).astype(np.float32))

    def some(count: int) -> Vectors:
        own = unit(draw.normal(size=(count, options.dim)).astype(np.float32))
        return unit(centres[draw.integers(len(centres), size=count)] + SPREAD * own)

    before = psutil.Process().memory_info().rss
    index = VectorIndex("benchmark", options.dim)
    rows: list[Vectors] = []
    built = 0.0
    for start in track(range(0, options.videos, BATCH), description="building", transient=True):
        count = min(BATCH, options.videos - start)
        chunk = some(count)
        began = time.perf_counter()
        index.put([f"video-{start + at}" for at in range(count)], chunk)
        built += time.perf_counter() - began
        rows.append(chunk.astype(np.float16))
    kept = sum(chunk.nbytes for chunk in rows)
    grown = psutil.Process().memory_info().rss - before - kept

    asked = some(options.queries)
    took = []
    for at in range(options.queries):
        began = time.perf_counter()
        index.nearest(asked[at : at + 1], nearest)
        took.append(time.perf_counter() - began)
    found = index.nearest(asked[:EXACT], nearest)
    hits = 0
    scores = np.concatenate([asked[:EXACT] @ chunk.astype(np.float32).T for chunk in rows], axis=1)
    for near, row in zip(found, scores, strict=True):
        best = np.argpartition(-row, nearest)[:nearest]
        hits += len({f"video-{at}" for at in best} & {each.name for each in near})
    p50, p99 = np.percentile(took, [50, 99]) * 1000
    print(
        json.dumps(
            {
                "videos": options.videos,
                "dim": options.dim,
                "search_p50_ms": round(float(p50), 3),
                "search_p99_ms": round(float(p99), 3),
                "nearest": nearest,
                "recall": round(hits / (nearest * len(found)), 4),
                "put_per_s": round(options.videos / built),
                "bytes_per_video": round(grown / options.videos),
            }
        )
    )


if __name__ == "__main__":
    main()
