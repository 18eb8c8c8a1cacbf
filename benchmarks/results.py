"""Train and measure everything that docs/results.md reports, and write it.

    python benchmarks/results.py                        # all of it: hours on two cores
    python benchmarks/results.py --qbqtc qbqtc_dev.json # and on real Chinese text
    python benchmarks/results.py --only sft,listwise    # these runs, and those they start from
    python benchmarks/results.py --events 20000 --seeds 1 --scale 0.01 --out /tmp/results.md

One simulated log becomes an archive, that a dataset, and each run of `benchmarks/experiments.py` a
checkpoint a seed, measured on the dataset's last part. Work lies in `--work`; what is there already
is not done again, so an interrupted call goes on and a longer list of seeds adds to a shorter one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from experiments import BY_NAME, PRESET, QBQTC, SIMULATOR, Experiment
from layout import beams_of, checkpoint_of, dataset_directory, outcomes_of, seed_of
from report import write_report
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sources import make_qbqtc, make_simulated, propensity_of, test_triggers

from onebar.generator.checkpoint import CARD, open_checkpoint

PACE = "sft"
"""The run whose seconds a step tell how many steps another one's time is worth."""


def main() -> None:
    options = parse()
    work: Path = options.work
    if options.cell:
        name, _, seed = options.cell.rpartition(":")
        run_one(name, int(seed), options)
        return
    make_simulated(work, options.events, options.days)
    propensity_of(work)
    sources = {SIMULATOR}
    if options.qbqtc is not None:
        make_qbqtc(work, options.qbqtc)
        sources.add(QBQTC)
    asked = options.only.split(",") if options.only else list(BY_NAME)
    graph = needed([name for name in asked if BY_NAME[name].source in sources])
    names = [name for name in BY_NAME if name in graph]
    run_all(names, options)
    told = [name for name in names if is_told(name, options)]
    write_report(work, options.out, told, options.seeds, options.limit, command=said(options))
    print(options.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path(".cache/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--only", default="", help="names of runs, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the log")
    parser.add_argument("--days", type=float, default=7.0, help="over how many days")
    parser.add_argument(
        "--qbqtc", type=Path, help="qbqtc_dev.json; that part is left out without it"
    )
    parser.add_argument("--limit", type=int, default=6_000, help="most triggers to measure on")
    parser.add_argument("--scale", type=float, default=1.0, help="shortens every run")
    parser.add_argument("--preset", default=PRESET, help="size of the model")
    parser.add_argument("--device", default="cpu", choices=("cpu", "auto"), help="auto: a GPU")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--cell", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def said(options: argparse.Namespace) -> str:
    """The command as anybody could give it: what shapes the result, no paths of this machine."""
    shaping = ("only", "seeds", "events", "days", "limit", "scale", "preset", "device")
    given = [(name, getattr(options, name)) for name in shaping]
    given.append(("qbqtc", options.qbqtc and options.qbqtc.name))
    return " ".join(
        ["python benchmarks/results.py", *(f"--{name} {value}" for name, value in given if value)]
    )


def needed(names: list[str]) -> dict[str, set[str]]:
    """These runs and those they stand on, each with what has to be done before it."""
    graph: dict[str, set[str]] = {}
    waiting = list(names)
    while waiting:
        experiment = BY_NAME[waiting.pop()]
        others = (experiment.start, experiment.as_long_as, experiment.rewarded_by)
        before = {name for name in others if name}
        if experiment.as_long_as:
            before.add(PACE)
        graph[experiment.name] = before
        waiting += [name for name in before if name not in graph]
    return graph


def run_all(names: list[str], options: argparse.Namespace) -> None:
    """Every run of every seed, `jobs` at a time, each in a process of its own; of those that can
    begin, the first in the list of experiments."""
    graph = {
        (name, seed): {(other, seed_of(other, seed)) for other in before}
        for seed in range(options.seeds)
        for name, before in needed(names).items()
        if seed_of(name, seed) == seed
    }
    order = TopologicalSorter(graph)
    order.prepare()
    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    place = {name: number for number, name in enumerate(BY_NAME)}
    ready: list[tuple[int, int, str]] = []
    running: dict[Future[None], tuple[str, int]] = {}
    with Progress(*columns) as progress, ThreadPoolExecutor(options.jobs) as pool:
        task = progress.add_task("", total=len(graph))
        while order.is_active():
            for name, seed in order.get_ready():
                heappush(ready, (place[name], seed, name))
            while ready and len(running) < options.jobs:
                _, seed, name = heappop(ready)
                running[pool.submit(run_cell, name, seed, options)] = (name, seed)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                cell = running.pop(future)
                future.result()
                order.done(cell)
                progress.update(task, advance=1, description=f"{cell[0]} seed {cell[1]}")


def run_cell(name: str, seed: int, options: argparse.Namespace) -> None:
    if is_done(name, seed, options):
        return
    log = options.work / "logs" / f"{name}-{seed}.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--cell", f"{name}:{seed}", "--work", str(options.work)]
    for option in ("scale", "limit", "preset", "device", "only"):
        command += [f"--{option}", str(getattr(options, option))]
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}, seed {seed} failed: see {log}")


def is_told(name: str, options: argparse.Namespace) -> bool:
    """Whether the run is measured and told of: a pretrained model answers nothing that could be,
    and a click ranker that only rewards another run was not asked for."""
    asked = not options.only or name in options.only.split(",")
    return BY_NAME[name].stage != "pretrain" and (asked or not BY_NAME[name].ranked)


def is_done(name: str, seed: int, options: argparse.Namespace) -> bool:
    """Whether the run was made, and measured where it is told of."""
    if not is_told(name, options):
        return (checkpoint_of(options.work, name, seed) / CARD).is_file()
    path = outcomes_of(options.work, name, seed, options.limit)
    return path.with_suffix(".json").exists()


def settings_of(experiment: Experiment, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The stage's settings for one seed; `--scale` shortens every run."""
    work: Path = options.work
    changes = dict(experiment.changes)
    if "steps" in changes:
        changes["steps"] = max(1, round(changes["steps"] * options.scale))
    if experiment.as_long_as is not None:
        other = open_checkpoint(checkpoint_of(work, experiment.as_long_as, seed)).card.training
        own = open_checkpoint(checkpoint_of(work, PACE, seed)).card.training
        # Equal compute: a step of this run costs what one of stage 1 did.
        step_s = max(1e-9, own["seconds"] / own["steps"])
        changes["steps"] = max(1, round(other["seconds"] / step_s))
    start = checkpoint_of(work, experiment.start, seed) if experiment.start else None
    if experiment.rewarded_by is not None:
        changes["rewarded_by"] = str(checkpoint_of(work, experiment.rewarded_by, seed))
    return {
        **changes,
        "dataset": str(dataset_directory(work, experiment.source)),
        "out": str(checkpoint_of(work, experiment.name, seed)),
        "preset": options.preset,
        "init": None if start is None else str(start),
        "seed": seed,
        "threads": 1,
        "device": options.device,
    }


def run_one(name: str, seed: int, options: argparse.Namespace) -> None:
    """Train one run of one seed and measure it."""
    from runs import measure_run, train_run

    from onebar.process.logging import configure_logging

    configure_logging("info", json=False)
    work, limit = options.work, options.limit
    experiment = BY_NAME[name]
    path = checkpoint_of(work, name, seed)
    if not (path / CARD).is_file():
        train_run(experiment.stage, settings_of(experiment, seed, options))
    if not is_told(name, options):
        return
    outcomes = measure_run(
        path,
        test_triggers(work, experiment.source, limit),
        work,
        experiment.source,
        name=name,
        beams=beams_of(work, name, seed, limit),
        ranked=experiment.ranked,
    )
    outcomes.save(outcomes_of(work, name, seed, limit))


if __name__ == "__main__":
    main()
