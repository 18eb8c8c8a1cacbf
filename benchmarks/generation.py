"""How fast queries are generated on a CPU, beside `transformers.generate` on the same checkpoint.

    python benchmarks/generation.py CHECKPOINT DATASET
    python benchmarks/generation.py CHECKPOINT DATASET --rounds 1 --prompts 8 --many 32 --same 32
    python benchmarks/generation.py deep DATASET                 # a preset, with random weights

CHECKPOINT needs its float weights as well (`onebar train` keeps them); prompts are those of
DATASET's test part. Beam 8, 8 results. Each engine has a process of its own and as many threads;
they are asked turn by turn. `one` is one prompt at a time, on all of the threads or on one of them:
`one_threads` says what was faster. `many` is the prompts a second when
MANY are there at once, as from a backlog: all are handed to our engine, which decodes those of one
length together (`groups_of` is how many on average); transformers has them in the order of their
length, which is faster, at the best of several batch sizes. `floor_ms` is the least that `one` can
take with 8-bit weights (`onebar.bench.floor`).

`same_first` is the share of prompts whose first candidate is that of transformers in float32 with
the search that our engines do without a length penalty, `early_stopping=False`: it goes on while
a candidate that has not ended is ahead of one of the eight that have. `transformers_early` is
with True, which ends sooner and finds worse: both are timed, and compared with. `hr8` are the
shares of prompts with the clicked query among the eight.

A preset has the vocabulary that DATASET gives it, and the ends of its queries are forbidden: for
every prompt both engines make {steps} steps. Nothing is compared then but time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from rich.progress import track

BEAMS = 8
SIZES = (4, 16, 32, 64)
STEPS = 12
"""Steps of an untrained model."""


class Runner(Protocol):
    """Candidates of prompts, given `size` at a time. `fast` may stop a search early, and `threads`
    may be less than those there are."""

    def __call__(
        self, prompts: Sequence[str], size: int, *, fast: bool, threads: int
    ) -> list[list[str]]: ...


def untrained(name: str, dataset: Path, out: Path) -> None:
    """Write a checkpoint of a preset with random weights that never ends a query."""
    import torch
    from transformers import BartForConditionalGeneration

    from onebar.evidence.prompt import PromptConfig
    from onebar.generator.checkpoint import TOKENIZER, GenerationConfig
    from onebar.training.models.export import export_checkpoint
    from onebar.training.models.outputs import outputs_of
    from onebar.training.models.tokenizer import train_tokenizer
    from onebar.training.presets import bart_config, preset
    from onebar.triggers import open_dataset

    opened = open_dataset(dataset)
    generation = GenerationConfig(max_target_tokens=STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / TOKENIZER
        train_tokenizer(opened.texts(), path, vocab_size=preset(name).vocab_size)
        tokenizer = generation.tokenizer(path)
        torch.manual_seed(0)
        model = BartForConditionalGeneration(bart_config(preset(name), tokenizer.vocab_size))
        model.final_logits_bias[0, tokenizer.eos_id] = -1e4
        export_checkpoint(
            model,
            path,
            out,
            preset=name,
            prompt=PromptConfig(),
            generation=generation,
            training={},
            outputs=outputs_of(opened, tokenizer),
        )


def transformers_runner(checkpoint: Path) -> Runner:
    import torch

    from onebar.generator.checkpoint import open_checkpoint
    from onebar.training.models.pretrained import load_pretrained

    opened = open_checkpoint(checkpoint)
    tokenizer = opened.tokenizer()
    generation = opened.card.generation
    with tempfile.TemporaryDirectory() as scratch:
        model = load_pretrained(str(checkpoint), Path(scratch))[0].eval()

    def run(prompts: Sequence[str], size: int, *, fast: bool, threads: int) -> list[list[str]]:
        torch.set_num_threads(threads)
        sources = tokenizer.encode(prompts)
        order = sorted(range(len(sources)), key=lambda at: len(sources[at]))
        candidates: list[list[str]] = [[] for _ in sources]
        for start in range(0, len(order), size):
            places = order[start : start + size]
            rows = [sources[at] for at in places]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [tokenizer.pad_id] * (longest - len(row)) for row in rows])
            with torch.inference_mode():
                found = model.generate(
                    input_ids=ids,
                    attention_mask=(ids != tokenizer.pad_id).long(),
                    num_beams=BEAMS,
                    num_return_sequences=BEAMS,
                    early_stopping=fast,
                    length_penalty=generation.length_penalty,
                    max_new_tokens=generation.max_target_tokens,
                    do_sample=False,
                    decoder_start_token_id=tokenizer.eos_id,
                    pad_token_id=tokenizer.pad_id,
                )
            texts = [tokenizer.decode(row[1:]) for row in found.tolist()]
            for row, at in enumerate(places):
                candidates[at] = texts[row * BEAMS : (row + 1) * BEAMS]
        return candidates

    return run


def engine_runner(checkpoint: Path, threads: int, *, together: bool) -> Runner:
    """Our engine: all threads on one prompt, or a prompt a thread."""
    from onebar.generator.checkpoint import open_checkpoint
    from onebar.generator.load import load_engine

    engine = load_engine(
        open_checkpoint(checkpoint),
        engine="ctranslate2",
        beam_size=BEAMS,
        workers=1 if together else threads,
        threads=threads if together else 1,
    )

    def run(prompts: Sequence[str], size: int, *, fast: bool, threads: int) -> list[list[str]]:
        return [
            [candidate.text for candidate in candidates]
            for at in range(0, len(prompts), size)
            for candidates in engine.generate(prompts[at : at + size], BEAMS)
        ]

    return run


ENGINES: dict[str, Callable[[Path, int], Runner]] = {
    "transformers": lambda checkpoint, threads: transformers_runner(checkpoint),
    "onebar_one": lambda checkpoint, threads: engine_runner(checkpoint, threads, together=True),
    "onebar_many": lambda checkpoint, threads: engine_runner(checkpoint, threads, together=False),
}


def serve(name: str, checkpoint: Path, threads: int) -> None:
    """Answer jobs, one a line: what `Worker.ask` writes -> {"seconds", "candidates"}."""
    runner = ENGINES[name](checkpoint, threads)
    for line in sys.stdin:
        job = json.loads(line)
        seconds, candidates = [], []
        groups = [[prompt] for prompt in job["prompts"]] if job["size"] == 1 else [job["prompts"]]
        for group in groups:
            began = time.perf_counter()
            candidates += runner(group, job["size"], fast=job["fast"], threads=job["threads"])
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": seconds, "candidates": candidates}), flush=True)


class Worker:
    """An engine in a process of its own."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self._threads: int = options.threads
        self._process = subprocess.Popen(
            [
                *(sys.executable, __file__, str(options.checkpoint), str(options.dataset)),
                *("--threads", str(options.threads), "--serve", name),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(
        self, prompts: Sequence[str], size: int, *, fast: bool = True, threads: int | None = None
    ) -> dict[str, Any]:
        pipe_in, pipe_out = self._pipes()
        threads = threads or self._threads
        job = {"prompts": prompts, "size": size, "fast": fast, "threads": threads}
        pipe_in.write(json.dumps(job) + "\n")
        pipe_in.flush()
        line = pipe_out.readline()
        if not line:
            raise SystemExit("an engine ended early: has the checkpoint its float weights?")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        self._pipes()[0].close()
        self._process.wait()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from onebar.bench.floor import floor_s, measure_machine
    from onebar.bench.generation import scored_entries, shape_of
    from onebar.evidence.prompt import build_prompt
    from onebar.generator.checkpoint import open_checkpoint
    from onebar.generator.ct2 import ROWS, groups
    from onebar.triggers import open_dataset

    opened = open_checkpoint(options.checkpoint)
    wanted = max(options.prompts, options.many, 0 if options.random else options.same)
    clicks = list(islice(open_dataset(options.dataset).read("test", ("click",)), wanted))
    prompts = [build_prompt(trigger.evidence, opened.card.prompt) for trigger in clicks]
    timed, backlog = prompts[: options.prompts], prompts[: options.many]
    workers = {name: Worker(name, options) for name in ENGINES}
    for worker in workers.values():
        worker.ask(prompts[:4], 1)  # loads and warms
    asked = {"transformers": False, "transformers_early": True}
    names = (*asked, "onebar")
    one: dict[tuple[str, int], list[float]] = {
        (name, threads): [] for name in names for threads in {1, options.threads}
    }
    many: dict[tuple[str, int], list[float]] = {
        **{(name, size): [] for name in asked for size in options.sizes},
        ("onebar", len(backlog)): [],
    }
    for _ in track(range(options.rounds), "generating", transient=True):
        for (name, threads), seconds in one.items():
            engine = "onebar_one" if threads == options.threads else "onebar_many"
            worker = workers["transformers" if name in asked else engine]
            found = worker.ask(timed, 1, fast=asked.get(name, True), threads=threads)
            seconds.append(statistics.median(found["seconds"]))
        for (name, size), rates in many.items():
            worker = workers["transformers" if name in asked else "onebar_many"]
            found = worker.ask(backlog, size, fast=asked.get(name, True))
            rates.append(len(backlog) / sum(found["seconds"]))
    ours = workers["onebar_many"].ask(prompts, len(prompts))["candidates"]
    compared: dict[str, Any] = {}
    if not options.random:
        theirs = workers["transformers"].ask(prompts, 16, fast=False)["candidates"]
        early = workers["transformers"].ask(prompts, 16)["candidates"]
        compared = {
            "same_first": share(a[0] == b[0] for a, b in zip(ours, theirs, strict=True)),
            "same_first_early": share(a[0] == b[0] for a, b in zip(ours, early, strict=True)),
            "same_of": len(prompts),
            "hr8": {
                name: share(click.target in each for click, each in zip(clicks, found, strict=True))
                for name, found in (
                    ("transformers", theirs),
                    ("transformers_early", early),
                    ("onebar", ours),
                )
            },
        }
    for worker in workers.values():
        worker.end()
    sizes = {name: best_of(name, many, max) for name in names}
    rates_at_best = {name: many[name, size] for name, size in sizes.items()}
    one_threads = {name: best_of(name, one, min) for name in names}
    ms = {name: one[name, threads] for name, threads in one_threads.items()}
    tokenizer = opened.tokenizer()
    source = statistics.fmean(map(len, tokenizer.encode(timed)))
    together = groups([len(ids) for ids in tokenizer.encode(backlog)], ROWS // BEAMS)
    # A search goes on until its longest candidate has ended.
    longest = (max(map(len, tokenizer.encode_targets(each))) for each in ours[: len(timed)])
    steps = STEPS if options.random else statistics.fmean(longest)
    shape = shape_of(opened, scored_entries(opened))
    weights = shape.encoder_weights + shape.crossing_weights + shape.decoder_weights
    machine = measure_machine(weights, options.threads)
    floor = floor_s(shape, machine, source_tokens=source, steps=steps, beams=BEAMS)
    return {
        "checkpoint": opened.name,
        "threads": options.threads,
        "prompts": len(timed),
        "source_tokens": round(source, 1),
        "steps": round(steps, 1),
        "vocabulary": tokenizer.vocab_size,
        "scored": shape.outputs,
        "rounds": options.rounds,
        "one_threads": one_threads,
        "one_ms": {name: round(1000 * statistics.median(found), 2) for name, found in ms.items()},
        "one_times": {name: ratio(ms[name], ms["onebar"]) for name in asked},
        "floor_ms": round(1000 * floor, 2),
        "one_times_floor": round(statistics.median(ms["onebar"]) / floor, 2),
        "many": len(backlog),
        "groups_of": round(len(backlog) / len(together), 2),
        "many_sizes": sizes,
        "many_per_s": {
            name: round(statistics.median(rates), 1) for name, rates in rates_at_best.items()
        },
        "many_times": {name: ratio(rates_at_best["onebar"], rates_at_best[name]) for name in asked},
        **compared,
    }


def best_of(
    name: str,
    measured: Mapping[tuple[str, int], Sequence[float]],
    choose: Callable[..., tuple[str, int]],
) -> int:
    """The size or the number of threads with which an engine was best."""
    ways = [way for way in measured if way[0] == name]
    return choose(ways, key=lambda way: statistics.median(measured[way]))[1]


def share(found: Iterable[bool]) -> float:
    return round(statistics.fmean(found), 4)


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median over the rounds of their ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.format(steps=STEPS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="a directory, or the name of a preset")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=64, help="prompts that are timed one by one")
    parser.add_argument("--many", type=int, default=256, help="prompts that are there at once")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="transformers' batches")
    parser.add_argument("--same", type=int, default=1000, help="prompts that are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=sorted(ENGINES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.checkpoint, options.threads)
        return
    with tempfile.TemporaryDirectory() as scratch:
        options.random = not options.checkpoint.is_dir()
        if options.random:
            name, options.checkpoint = str(options.checkpoint), Path(scratch) / "untrained"
            untrained(name, options.dataset, options.checkpoint)
        print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
