"""The engine of a checkpoint: one interface, two ways to run it.

Importing this or `onebar.generator.ct2` loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from onebar.generator.engine import Engine

if TYPE_CHECKING:
    from onebar.generator.checkpoint import Checkpoint

EngineName = Literal["auto", "ctranslate2", "torch"]


def load_engine(
    checkpoint: Checkpoint,
    *,
    engine: EngineName = "auto",
    beam_size: int = 8,
    workers: int = 1,
    threads: int = 1,
) -> Engine:
    """The engine for a checkpoint.

    `auto` takes CTranslate2 where the checkpoint has its weights, else torch. `workers` prompts
    batches run side by side, each on `threads` cores. Raises `CheckpointMismatchError` where the
    checkpoint lacks the weights of the engine asked for.
    """
    if engine == "torch" or (engine == "auto" and not checkpoint.has_ctranslate2):
        from onebar.generator.torch_engine import TorchEngine

        return TorchEngine(checkpoint, beam_size=beam_size, threads=workers * threads)
    from onebar.generator.ct2 import CTranslate2Engine

    return CTranslate2Engine(checkpoint, beam_size=beam_size, workers=workers, threads=threads)
