"""From settings to a model that answers: what the API and the generator worker both load."""

from __future__ import annotations

from msgspec import Struct

from feature_store.records import Candidate
from onebar.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from onebar.engines import Engine, EngineName, load_engine
from onebar.evidence import Evidence
from onebar.prompt import PromptConfig, build_prompt
from onebar.registry import Registry
from onebar.settings import Settings

WARM_EVIDENCE = Evidence(
    text="warm up: waterproof hiking boots for wide feet",
    summary="hiking boots",
    anchors=("hiking boots", "trail shoes"),
    history=("wool socks",),
)
"""What a model is asked before anybody else asks it."""


class CheckpointUnusableError(CheckpointError):
    """A checkpoint's files are sound, but it does not answer."""


class LoadedModel(Struct, frozen=True):
    """An engine, and the shape of the prompts that its checkpoint was trained on."""

    engine: Engine
    prompt_config: PromptConfig

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.engine.model


def open_configured(settings: Settings) -> Checkpoint:
    """The checkpoint that the settings name, verified: the current one where they name a
    registry, the shipped one where they name nothing. Raises `CheckpointError` and
    `RegistryError`."""
    if settings.registry is None:
        return open_checkpoint(settings.checkpoint)
    return Registry(settings.registry).open_current()


def load_model(settings: Settings) -> LoadedModel:
    """The model of the checkpoint that the settings name. Takes a second or so; call it in a
    thread. Raises `CheckpointError` and `RegistryError`."""
    checkpoint = open_configured(settings)
    engine = load_engine(
        checkpoint,
        engine=settings.engine,
        beam_size=max(settings.beam_size, settings.k),
        workers=settings.engine_workers,
        threads=settings.engine_threads,
    )
    return LoadedModel(engine, checkpoint.card.prompt)


def warm_prompt(config: PromptConfig) -> str:
    """A prompt of the shape that a model was trained on."""
    return build_prompt(WARM_EVIDENCE, config)


def check_answer(model: str, candidates: list[Candidate]) -> None:
    """Raises `CheckpointUnusableError` where the answer to `warm_prompt` is none."""
    if not candidates:
        raise CheckpointUnusableError(
            f"{model} gave no candidate for a simple prompt: train or export it again"
        )


def prove(checkpoint: Checkpoint, *, engine: EngineName = "auto", k: int = 8) -> None:
    """Load a checkpoint and have it answer one prompt.

    Raises `CheckpointError`: `CheckpointMismatchError` where it lacks the weights of the engine,
    `CheckpointUnusableError` for whatever else goes wrong.
    """
    try:
        loaded = load_engine(checkpoint, engine=engine, beam_size=k)
        try:
            [candidates] = loaded.generate([warm_prompt(checkpoint.card.prompt)], k)
        finally:
            loaded.close()
    except (CheckpointError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise CheckpointUnusableError(
            f"{checkpoint.name} can't be used ({type(error).__name__}: {error}): train or export "
            "it again"
        ) from error
    check_answer(checkpoint.name, candidates)
