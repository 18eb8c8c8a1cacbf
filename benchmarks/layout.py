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
    """Pre-training is done once, and every seed begins with it."""
    return 0 if BY_NAME[name].stage == "pretrain" else seed


def checkpoint_of(work: Path, name: str, seed: int) -> Path:
    return work / f"seed-{seed_of(name, seed)}" / name


def outcomes_of(work: Path, name: str, seed: int) -> Path:
    return work / "outcomes" / f"{name}-{seed}"


def load_outcomes(work: Path, name: str, seeds: int) -> list[Outcomes]:
    """The outcomes of a run, a seed each, as far as there are any."""
    paths = (outcomes_of(work, name, seed) for seed in range(seeds))
    return [Outcomes.load(path) for path in paths if path.with_suffix(".json").exists()]
