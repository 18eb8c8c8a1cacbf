"""From settings to a model that answers: what the API and the generator worker both load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from onebar.evidence.evidence import Evidence, Relevance, shares_a_term
from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.words import words
from onebar.gating.gate import Gate
from onebar.gating.risk import SHIPPED as SHIPPED_RISK
from onebar.gating.risk import shipped_rules
from onebar.gating.rules import RuleBook
from onebar.generator.checkpoint import (
    BOOK,
    CLICKS,
    LEXICON,
    RANKER,
    Checkpoint,
    CheckpointError,
    open_checkpoint,
)
from onebar.generator.engine import Engine
from onebar.generator.load import EngineName, load_engine
from onebar.generator.registry import Registry
from onebar.ranking.book import Book, BookError
from onebar.ranking.trees import TreesError
from onebar.recommending.candidates import choose
from onebar.recommending.clicks import ClickRanker
from onebar.recommending.grounding import Lexicon, LexiconError
from onebar.recommending.material import material
from onebar.recommending.pool import Taste, shipped_taste
from onebar.recommending.ranker import Ranker, RankerError
from onebar.records import Candidate, Features, VideoText

if TYPE_CHECKING:
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
    """An engine, the shape of the prompts that its checkpoint was trained on, what chose the
    histories in them, and how its candidates are judged (None: as the shipped parts do)."""

    engine: Engine
    prompt_config: PromptConfig
    relevance: Relevance = shares_a_term
    taste: Taste | None = None

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


def configured_embedder(settings: Settings) -> str | None:
    """The embedder that the settings name, else the one that the checkpoint brings, if any.

    Raises `CheckpointError` and `RegistryError`.
    """
    if settings.embedder is not None:
        return settings.embedder
    brought = open_configured(settings).embedder
    return None if brought is None else str(brought)


def load_model(settings: Settings) -> LoadedModel:
    """The model of the checkpoint that the settings name. Takes a second or so; call it in a
    thread. Raises `CheckpointError` and `RegistryError`."""
    checkpoint = open_configured(settings)
    taste = open_taste(checkpoint)
    engine = load_engine(
        checkpoint,
        engine=settings.engine,
        beam_size=max(settings.beam_size, settings.k, taste.beam),
        workers=settings.engine_workers,
        threads=settings.engine_threads,
    )
    relevance = open_relevance(checkpoint)
    return LoadedModel(engine, checkpoint.card.prompt, relevance, taste)


def open_taste(checkpoint: Checkpoint) -> Taste:
    """How its candidates are judged: by the parts it brings, else by the shipped ones. Raises
    `CheckpointError`."""
    shipped = shipped_taste()
    ranker, lexicon = checkpoint.optional(RANKER), checkpoint.optional(LEXICON)
    clicks, queries = checkpoint.optional(CLICKS), checkpoint.optional(BOOK)
    try:
        weights = Ranker.load(ranker) if ranker else shipped.ranker
        book = Book.load(queries) if queries else None
        return Taste(
            ranker=weights,
            risk=shipped.risk,
            scorer=ClickRanker.load(clicks, weights, book) if clicks else None,
            book=book,
            lexicon=Lexicon.load(lexicon) if lexicon else None,
            floor=checkpoint.card.generation.floor,
        )
    except (RankerError, LexiconError, TreesError, BookError) as error:
        raise CheckpointUnusableError(f"{checkpoint.name}: {error}") from error


def open_relevance(checkpoint: Checkpoint) -> Relevance:
    """What chose the histories that a checkpoint was trained on. Raises `CheckpointError`."""
    if checkpoint.embedder is None:
        return shares_a_term
    from onebar.embedding.relevance import relevance_of

    try:
        return relevance_of(checkpoint.embedder)
    except ValueError as error:
        raise CheckpointUnusableError(f"{checkpoint.name}: {error}") from error


def open_gate(settings: Settings) -> Gate:
    """The gate of a process, with the harm and personal data that the package knows of. It stays
    closed until somebody has read the rules."""
    rules = SHIPPED_RISK.read_text(encoding="utf-8")
    # What was kept for another number of queries is looked at again, as under other rules.
    named = f"{rules}\0{settings.kept}" if settings.exploration else rules
    gate = Gate(
        RuleBook(market=settings.market),
        risk=shipped_rules(),
        risk_name=named,
        constrain=settings.constrain,
    )
    gate.open = False
    return gate


def warm_up() -> None:
    """Read what is else read by the first answer that has to be put together: dictionaries, rules
    and trees, 50 ms of the processor. Call it before anybody waits."""
    words("预热")
    known = Features(text=VideoText(title=WARM_EVIDENCE.text))
    choose(material(known, ()), (Candidate(WARM_EVIDENCE.summary, -0.5),), 1)


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
            open_relevance(checkpoint)
            open_taste(checkpoint)
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
