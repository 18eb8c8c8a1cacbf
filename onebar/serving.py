"""From settings to a model that answers: what the API and the generator worker both load."""

from __future__ import annotations

from msgspec import Struct

from onebar.checkpoint import open_checkpoint
from onebar.engines import Engine, load_engine
from onebar.prompt import PromptConfig
from onebar.settings import Settings


class LoadedModel(Struct, frozen=True):
    """An engine, and the shape of the prompts that its checkpoint was trained on."""

    engine: Engine
    prompt_config: PromptConfig


def load_model(settings: Settings) -> LoadedModel:
    """The model of the checkpoint that the settings name. Takes a second or so; call it in a
    thread. Raises `CheckpointError`."""
    checkpoint = open_checkpoint(settings.checkpoint)
    engine = load_engine(
        checkpoint,
        engine=settings.engine,
        beam_size=max(settings.beam_size, settings.k),
        workers=settings.engine_workers,
        threads=settings.engine_threads,
    )
    return LoadedModel(engine, checkpoint.card.prompt)
