"""A checkpoint written anew with something learned in it, by a call that goes on when it is given
again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from onebar.generator.checkpoint import Checkpoint, GenerationConfig, seal
from onebar.process.files import replace_file, staging

Item = TypeVar("Item")


def begin(work: Path, fingerprint: str) -> None:
    """An empty work directory, or what an interrupted run of the same settings left."""
    mark = work / "fingerprint"
    if work.is_dir() and (not mark.is_file() or mark.read_text("ascii") != fingerprint):
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    replace_file(mark, fingerprint.encode("ascii"), durable=False)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many, from all over."""
    many = min(most, len(items))
    return [items[at * len(items) // many] for at in range(many)]


def write_anew(
    checkpoint: Checkpoint,
    out: Path,
    put: Callable[[Path], None],
    *,
    without: Collection[str] = (),
    generation: GenerationConfig | None = None,
    **training: Any,
) -> None:
    """The checkpoint under `out`, with what `put` writes into it beside everything else that it
    has but the files `without`; its card says whose it is, and `training` of what was learned."""
    card = checkpoint.card
    with staging(out) as staged:
        for name in set(card.files) - set(without):
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint.path / name, target)
        put(staged)
        seal(
            staged,
            out,
            preset=card.preset,
            prompt=card.prompt,
            generation=card.generation if generation is None else generation,
            training={**card.training, "parent": checkpoint.name, **training},
        )
