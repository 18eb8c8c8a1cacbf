"""How fast queries are generated on a CPU, beside `transformers.generate` on the same checkpoint.

    python benchmarks/generation.py CHECKPOINT DATASET
    python benchmarks/generation.py CHECKPOINT DATASET --threads 1 --rounds 1 --prompts 8 --same 32

CHECKPOINT needs its float weights as well (`onebar train` keeps them); prompts are those of
DATASET's test part. Beam 8, 8 results. Each engine has a process of its own and as many threads;
they are asked turn by turn. `one` is one prompt at a time, `many` the prompts a second at the best
of several batch sizes (for CTranslate2: prompts side by side). transformers is timed as it is
fastest, with `early_stopping=True`. `same_first` is the share of prompts whose first candidate is
that of transformers in float32 with `early_stopping=False`, which finds better ones: with True it
stops while a beam that is not yet at its end is still ahead of all that are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from rich.progress import track

BEAMS = 8
SIZES = (4, 16, 32)


class Runner(Protocol):
    """First candidates of prompts, given `size` at a time. `fast` may stop a search early."""

    def __call__(self, prompts: Sequence[str], size: int, *, fast: bool) -> list[str]: ...


def transformers_runner(checkpoint: Path, threads: int) -> Runner:
    import torch

    from onebar.checkpoint import open_checkpoint
    from onebar.training.pretrained import load_pretrained

    torch.set_num_threads(threads)
    opened = open_checkpoint(checkpoint)
    tokenizer = opened.tokenizer()
    generation = opened.card.generation
    with tempfile.TemporaryDirectory() as scratch:
        model = load_pretrained(str(checkpoint), Path(scratch))[0].eval()

    def run(prompts: Sequence[str], size: int, *, fast: bool) -> list[str]:
        first = []
        for at in range(0, len(prompts), size):
            rows = tokenizer.encode(prompts[at : at + size])
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
            first += [tokenizer.decode(row[1:]) for row in found[::BEAMS].tolist()]
        return first

    return run


def engine_runner(checkpoint: Path, threads: int, *, together: bool) -> Runner:
    """Our engine: all threads on one prompt, or a prompt a thread."""
    from onebar.checkpoint import open_checkpoint
    from onebar.engines import load_engine

    engine = load_engine(
        open_checkpoint(checkpoint),
        engine="ctranslate2",
        beam_size=BEAMS,
        workers=1 if together else threads,
        threads=threads if together else 1,
    )

    def run(prompts: Sequence[str], size: int, *, fast: bool) -> list[str]:
        return [
            candidates[0].text
            for at in range(0, len(prompts), size)
            for candidates in engine.generate(prompts[at : at + size], BEAMS)
        ]

    return run


ENGINES: dict[str, Callable[[Path, int], Runner]] = {
    "transformers": transformers_runner,
    "onebar_one": lambda checkpoint, threads: engine_runner(checkpoint, threads, together=True),
    "onebar_many": lambda checkpoint, threads: engine_runner(checkpoint, threads, together=False),
}


def serve(name: str, checkpoint: Path, threads: int) -> None:
    """Answer jobs, one a line: {"prompts", "size", "fast"} -> {"seconds", "first"}."""
    runner = ENGINES[name](checkpoint, threads)
    for line in sys.stdin:
        job = json.loads(line)
        seconds, first = [], []
        groups = [[prompt] for prompt in job["prompts"]] if job["size"] == 1 else [job["prompts"]]
        for group in groups:
            began = time.perf_counter()
            first += runner(group, job["size"], fast=job["fast"])
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": seconds, "first": first}), flush=True)


class Worker:
    """An engine in a process of its own."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
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

    def ask(self, prompts: Sequence[str], size: int, *, fast: bool = True) -> dict[str, Any]:
        pipe_in, pipe_out = self._pipes()
        pipe_in.write(json.dumps({"prompts": prompts, "size": size, "fast": fast}) + "\n")
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
    from onebar.checkpoint import open_checkpoint
    from onebar.prompt import build_prompt
    from onebar.training.triggers import open_dataset

    opened = open_checkpoint(options.checkpoint)
    triggers = islice(open_dataset(options.dataset).read("test", ("click",)), options.same)
    prompts = [build_prompt(trigger.evidence, opened.card.prompt) for trigger in triggers]
    timed = prompts[: options.prompts]
    workers = {name: Worker(name, options) for name in ENGINES}
    for worker in workers.values():
        worker.ask(prompts[:4], 1)  # loads and warms
    one: dict[str, list[float]] = {name: [] for name in ("transformers", "onebar_one")}
    many: dict[tuple[str, int], list[float]] = {
        **{("transformers", size): [] for size in SIZES},
        ("onebar_many", 32): [],
    }
    for _ in track(range(options.rounds), "generating", transient=True):
        for name, seconds in one.items():
            seconds.append(statistics.median(workers[name].ask(timed, 1)["seconds"]))
        for (name, size), rates in many.items():
            rates.append(len(timed) / sum(workers[name].ask(timed, size)["seconds"]))
    exact = workers["transformers"].ask(prompts, 16, fast=False)["first"]
    ours = workers["onebar_one"].ask(prompts, 32)["first"]
    for worker in workers.values():
        worker.end()
    best = max(SIZES, key=lambda size: statistics.median(many["transformers", size]))
    theirs = many["transformers", best]
    return {
        "checkpoint": opened.name,
        "threads": options.threads,
        "prompts": len(timed),
        "rounds": options.rounds,
        "one_ms": {name: round(1000 * statistics.median(found), 2) for name, found in one.items()},
        "one_times": ratio(one["transformers"], one["onebar_one"]),
        "many_per_s": {
            "transformers": round(statistics.median(theirs), 1),
            "transformers_batch": best,
            "onebar": round(statistics.median(many["onebar_many", 32]), 1),
        },
        "many_times": ratio(many["onebar_many", 32], theirs),
        "same_first": round(sum(a == b for a, b in zip(ours, exact, strict=True)) / len(exact), 4),
        "same_of": len(exact),
    }


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median over the rounds of their ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=64, help="prompts that are timed")
    parser.add_argument("--same", type=int, default=1000, help="prompts that are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=sorted(ENGINES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.checkpoint, options.threads)
    else:
        print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
