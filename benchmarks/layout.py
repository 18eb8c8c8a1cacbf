"""Where everything lies in the work directory of docs/results.md."""

from __future__ import annotations

from pathlib import Path

from experiments import BY_NAME

from onebar.evaluation.outcomes import Outcomes


def source_directory(work: Path, source: str) -> Path:
    return work / source


def dataset_directory(work: Path, source: str) -> Path:
    return source_directory(work, source) / "dataset"


def seed_of(name: str, seed: int) -> int:
    """The seed of this run that another run of seed `seed` stands on."""
    return 0 if BY_NAME[name].once else seed


def checkpoint_of(work: Path, name: str, seed: int) -> Path:
    return work / f"seed-{seed_of(name, seed)}" / name


def generator_of(name: str) -> str:
    """The run whose weights this one has: a click ranker changes none of them."""
    experiment = BY_NAME[name]
    start = experiment.start
    return generator_of(start) if experiment.ranked and start is not None else name


def beams_of(work: Path, name: str, seed: int, limit: int) -> Path:
    """Where the candidates of a run's generator are kept."""
    return work / "beams" / f"of-{limit}" / f"{generator_of(name)}-{seed}.msgpack"


def outcomes_of(work: Path, name: str, seed: int, limit: int) -> Path:
    """Where outcomes lie: those on another number of triggers are others."""
    return work / "outcomes" / f"of-{limit}" / f"{name}-{seed}"


def load_outcomes(work: Path, name: str, seeds: int, limit: int) -> list[Outcomes]:
    """The outcomes of a run, a seed each, as far as there are any."""
    paths = (outcomes_of(work, name, seed, limit) for seed in range(seeds))
    return [Outcomes.load(path) for path in paths if path.with_suffix(".json").exists()]


def chosen_of(work: Path, stage: str, name: str) -> Path:
    """The checkpoint of a candidate of `benchmarks/choosing.py`."""
    return work / "choosing" / stage / name


def outcomes_beside(checkpoint: Path) -> Path:
    """Where the outcomes of a candidate's checkpoint lie."""
    return checkpoint.parent / "outcomes" / checkpoint.name
