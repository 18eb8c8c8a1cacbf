"""What a checkpoint costs on this machine: one prompt, many prompts, memory, and the floor."""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from onebar.bench.floor import Shape, floor_s, measure_machine
from onebar.generator.checkpoint import CONFIG, OUTPUTS, Checkpoint
from onebar.generator.load import EngineName, load_engine

Told = Callable[[float, str], None]


class GenerationFigures(Struct, frozen=True):
    """Milliseconds of one prompt with all threads on it; prompts a second with one thread each.

    `floor_ms` is what one prompt takes at least (`onebar.bench.floor`), None where the engine's
    weights are not the 8-bit ones that it is computed for.
    """

    checkpoint: str
    engine: str
    threads: int
    beams: int
    prompts: int
    source_tokens: float
    steps: float
    p50_ms: float
    p99_ms: float
    per_s: float
    floor_ms: float | None
    resident_mib: float


def shape_of(checkpoint: Checkpoint, outputs: int | None = None) -> Shape:
    """The shape of its model. `outputs` are the vocabulary entries that a step scores: all of
    them where nothing is said."""
    config = json.loads(checkpoint.need(CONFIG).read_bytes())
    return Shape(
        d_model=config["d_model"],
        encoder_layers=config["encoder_layers"],
        encoder_ffn=config["encoder_ffn_dim"],
        decoder_layers=config["decoder_layers"],
        decoder_ffn=config["decoder_ffn_dim"],
        outputs=config["vocab_size"] if outputs is None else outputs,
    )


def measure_generation(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    *,
    engine: EngineName = "auto",
    threads: int = 1,
    beams: int = 8,
    rounds: int = 3,
    told: Told = lambda fraction, text: None,
) -> GenerationFigures:
    """Run the prompts, `rounds` times one by one and `rounds` times handed over at once.

    Raises `ValueError` without prompts, and `CheckpointMismatchError` where the checkpoint has no
    weights for the engine.
    """
    if not prompts:
        raise ValueError("no prompts to run")
    uses_torch = engine == "torch" or not checkpoint.has_ctranslate2
    seconds: list[float] = []
    rates: list[float] = []
    one = load_engine(checkpoint, engine=engine, beam_size=beams, threads=threads)
    found = one.generate(prompts[:4], beams)
    for turn in range(rounds):
        for prompt in prompts:
            began = time.perf_counter()
            found += one.generate([prompt], beams)
            seconds.append(time.perf_counter() - began)
        told((turn + 1) / (2 * rounds), "one by one")
    one.close()
    many = load_engine(checkpoint, engine=engine, beam_size=beams, workers=threads)
    many.generate(prompts[:4], beams)
    for turn in range(rounds):
        began = time.perf_counter()
        many.generate(prompts, beams)
        rates.append(len(prompts) / (time.perf_counter() - began))
        told(0.5 + (turn + 1) / (2 * rounds), "side by side")
    many.close()
    tokenizer = checkpoint.tokenizer()
    source = statistics.fmean(len(ids) for ids in tokenizer.encode(list(prompts)))
    # A search goes on until its longest candidate has ended.
    steps = statistics.fmean(
        max(map(len, tokenizer.encode_targets([candidate.text for candidate in candidates])))
        for candidates in found
        if candidates
    )
    floor = None
    if not uses_torch:
        shape = shape_of(checkpoint, scored_entries(checkpoint))
        weights = shape.encoder_weights + shape.crossing_weights + shape.decoder_weights
        machine = measure_machine(weights, threads)
        floor = 1000 * floor_s(shape, machine, source_tokens=source, steps=steps, beams=beams)
    p50, p99 = _quantiles(seconds)
    return GenerationFigures(
        checkpoint=checkpoint.name,
        engine="torch" if uses_torch else "ctranslate2",
        threads=threads,
        beams=beams,
        prompts=len(prompts),
        source_tokens=round(source, 1),
        steps=round(steps, 1),
        p50_ms=round(1000 * p50, 2),
        p99_ms=round(1000 * p99, 2),
        per_s=round(statistics.median(rates), 1),
        floor_ms=None if floor is None else round(floor, 2),
        resident_mib=round(_resident_mib(), 1),
    )


def scored_entries(checkpoint: Checkpoint) -> int | None:
    """How many vocabulary entries a step scores, where the checkpoint says that not all."""
    if OUTPUTS not in checkpoint.card.files:
        return None
    return len(json.loads(checkpoint.need(OUTPUTS).read_bytes()))


def _quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    import numpy as np

    p50, p99 = np.percentile(seconds, [50, 99])
    return float(p50), float(p99)


def _resident_mib() -> float:
    """Of this process, at its most where the system does not say how much it is now."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        most: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(most) / (2**20 if sys.platform == "darwin" else 2**10)
