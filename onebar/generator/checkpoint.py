"""Checkpoints: immutable directories that say what they are and can tell when they are broken.

onebar.json         the card: name, preset, prompt and generation config, sizes and sha256 of
                    every other file, facts of the training
tokenizer.json      how text becomes ids (`onebar.evidence.tokens`)
config.json         the architecture, as transformers reads it
ranker.json         weights that order the candidates (optional, `onebar.recommending.ranker`)
clicks.bin          trees that order them as people tap (optional, `onebar.recommending.clicks`)
queries.bin         queries that people asked (optional, `onebar.ranking.book`)
lexicon.bin         the words it was trained on (optional, `onebar.recommending.grounding`)
embedder/           tells which of a user's queries touch a video (optional, `onebar.embedding`)
ct2/                CTranslate2 weights, int8 (optional)
model.safetensors   float weights for torch (optional)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.evidence.prompt import PromptConfig
from onebar.evidence.tokens import FieldTokens, PromptTokenizer, TokenizerMismatchError
from onebar.process.files import occupied, publish, replace_file

CARD = "onebar.json"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CTRANSLATE2 = "ct2"
MODEL = f"{CTRANSLATE2}/model.bin"
OUTPUTS = f"{CTRANSLATE2}/target_vocabulary.json"
"""The vocabulary entries that a query may use, if not all; CTranslate2 fixes the name."""
SHORTLIST = f"{CTRANSLATE2}/vmap.txt"
"""Of earlier checkpoints: which entries a query may use, by its prompt's."""
EMBEDDER = "embedder"
RANKER = "ranker.json"
LEXICON = "lexicon.bin"
CLICKS = "clicks.bin"
BOOK = "queries.bin"
FORMAT = 1
_FIRST = frozenset(
    {
        *("text", "summary", "anchors", "history", "max_anchors", "max_history"),
        *("text_bytes", "summary_bytes", "anchors_bytes", "history_bytes"),
        *("max_source_tokens", "max_target_tokens", "length_penalty"),
    }
)
"""The settings that were in the first release's cards: always part of a checkpoint's name."""
SHIPPED = Path(__file__).parent / "checkpoints" / "demo"
"""The demo checkpoint that comes with the package."""
SHIPPED_NAME = "shipped"
"""What it is called where a directory could be named."""


class CheckpointError(OneBarError, RuntimeError):
    """A checkpoint can't be used."""


class CheckpointNotFoundError(CheckpointError):
    """There is no checkpoint where one was expected."""


class CheckpointCorruptError(CheckpointError):
    """A file of a checkpoint is missing, damaged or not what its card says."""


class CheckpointMismatchError(CheckpointError):
    """A sound checkpoint of another kind than is needed."""


class GenerationConfig(Struct, frozen=True):
    """How candidates are generated from a checkpoint, whatever the engine.

    `length_penalty` 0 scores a candidate by its log probability; with p > 0 that is divided by
    (tokens with the end token) ** p. `field_tokens` are the most tokens of T, M, A and H in a
    prompt (`onebar.evidence.tokens.PromptTokenizer`); None leaves it to the budgets of the prompt
    config. Where 8-bit arithmetic finds two first candidates whose scores are less than
    `exact_within` apart, the search is done again in float32; 0 never does. `floor` is the log
    probability a token (end token counted) below which a candidate is not worth showing, measured
    on triggers kept from training; None says nothing.
    """

    max_source_tokens: int = 96
    max_target_tokens: int = 24
    length_penalty: float = 0.0
    field_tokens: FieldTokens | None = None
    exact_within: float = 0.0
    floor: float | None = None

    def __post_init__(self) -> None:
        if self.field_tokens is not None and min(self.field_tokens) < 0:
            raise ValueError(f"field_tokens must be 0 or more, got {self.field_tokens}")
        if not 0 <= self.exact_within < inf:
            raise ValueError(f"exact_within must be 0 or more, and finite, got {self.exact_within}")
        if self.floor is not None and not -inf < self.floor <= 0:
            raise ValueError(f"floor must be a log probability, got {self.floor}")

    def tokenizer(self, path: Path) -> PromptTokenizer:
        """A tokenizer that keeps these lengths. Raises `CheckpointMismatchError` where the file
        at `path` is none for prompts."""
        try:
            return PromptTokenizer(
                path,
                max_source_tokens=self.max_source_tokens,
                max_target_tokens=self.max_target_tokens,
                field_tokens=self.field_tokens,
            )
        except TokenizerMismatchError as error:
            raise CheckpointMismatchError(str(error)) from None


class FileFact(Struct, frozen=True):
    """What a file must be: bytes, and sha256 in hex."""

    size: int
    sha256: str


class Card(Struct, frozen=True, kw_only=True):
    """What a checkpoint says of itself (`onebar.json`)."""

    format: int = FORMAT
    name: str
    preset: str
    created_at: str
    prompt: PromptConfig
    generation: GenerationConfig
    files: dict[str, FileFact]
    training: dict[str, Any] = {}


class Checkpoint(Struct, frozen=True):
    """An opened, verified checkpoint."""

    path: Path
    card: Card

    @property
    def name(self) -> str:
        """The preset and the first 8 hex digits of the content's hash: `demo-1a2b3c4d`."""
        return self.card.name

    @property
    def has_ctranslate2(self) -> bool:
        return MODEL in self.card.files

    @property
    def has_shortlist(self) -> bool:
        return SHORTLIST in self.card.files

    @property
    def embedder(self) -> Path | None:
        """The embedder that chose the histories it was trained on; None: terms did."""
        return self.path / EMBEDDER if f"{EMBEDDER}/embedder.json" in self.card.files else None

    def optional(self, name: str) -> Path | None:
        """The path of one of its files; None where it has none of that name."""
        return self.path / name if name in self.card.files else None

    def need(self, name: str) -> Path:
        """The path of one of its files. Raises `CheckpointMismatchError` where it has none."""
        if name not in self.card.files:
            raise CheckpointMismatchError(
                f"checkpoint {self.name} at {self.path} has no {name}; it has "
                f"{', '.join(sorted(self.card.files))}. Export it again with that part, or choose "
                "the other engine (ONEBAR_ENGINE)."
            )
        return self.path / name

    def tokenizer(self) -> PromptTokenizer:
        """Its tokenizer, with the lengths its card sets. Raises `CheckpointMismatchError` where
        it is that of another model."""
        tokenizer = self.card.generation.tokenizer(self.need(TOKENIZER))
        rows = json.loads(self.need(CONFIG).read_bytes())["vocab_size"]
        if tokenizer.vocab_size != rows:
            raise CheckpointMismatchError(
                f"{self.path / TOKENIZER} has {tokenizer.vocab_size:,} entries, the model has "
                f"embeddings for {rows:,}: they don't belong together; export the checkpoint again"
            )
        return tokenizer


def directory_of(path: Path | str | None) -> Path:
    """Where a checkpoint lies: at `path`; None, and `shipped` where there is no such directory, is
    the one that comes with the package."""
    if path is None or (str(path) == SHIPPED_NAME and not Path(path).is_dir()):
        return SHIPPED
    return Path(path)


def open_checkpoint(path: Path | str | None = None, *, verify: bool = True) -> Checkpoint:
    """The checkpoint at `path`, or the shipped one (`directory_of`).

    Every file's presence and size are checked, and with `verify` its sha256 as well. Raises
    `CheckpointNotFoundError`, `CheckpointCorruptError` or `CheckpointMismatchError`, naming the
    file and what to do.
    """
    directory = directory_of(path)
    if not directory.is_dir():
        raise CheckpointNotFoundError(
            f"no checkpoint directory at {directory}; name one with ONEBAR_CHECKPOINT, or train "
            "one with `onebar train sft`"
        )
    card = _read_card(directory)
    for name, fact in card.files.items():
        _check_file(directory, name, fact, verify=verify)
    expected = _name(card)
    if card.name != expected:
        raise CheckpointMismatchError(
            f"{directory / CARD} says the checkpoint is {card.name!r}, but what it lists makes "
            f"{expected!r}: the card was edited. Export the checkpoint again."
        )
    return Checkpoint(directory, card)


def annotate(path: Path, facts: Mapping[str, Any]) -> Checkpoint:
    """Add facts (how good it was found to be) to a checkpoint's card; its name stays."""
    card = open_checkpoint(path).card
    _write_card(path, msgspec.structs.replace(card, training={**card.training, **facts}))
    return open_checkpoint(path)


def _write_card(directory: Path, card: Card) -> None:
    full = {
        **msgspec.structs.asdict(card),
        # Every setting is written, so that a card keeps its meaning whatever defaults become.
        "prompt": msgspec.structs.asdict(card.prompt),
        "generation": msgspec.structs.asdict(card.generation),
    }
    replace_file(directory / CARD, msgspec.json.format(msgspec.json.encode(full), indent=2) + b"\n")


def _read_card(directory: Path) -> Card:
    path = directory / CARD
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointNotFoundError(
            f"{directory} is no checkpoint: it has no {CARD}; name a directory that "
            "`onebar train sft` wrote"
        ) from None
    try:
        found = msgspec.json.decode(raw)
        version = found.get("format") if isinstance(found, dict) else None
        if isinstance(version, int) and version != FORMAT:
            raise CheckpointMismatchError(
                f"{path} has format {version}, this program reads {FORMAT}: use the onebar "
                "version that wrote it, or export it again"
            )
        return msgspec.convert(found, Card)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointCorruptError(
            f"{path} can't be read ({error}): restore it or export the checkpoint again"
        ) from None


def _check_file(directory: Path, name: str, fact: FileFact, *, verify: bool) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise CheckpointCorruptError(f"{directory / CARD} lists {name!r}, outside the checkpoint")
    path = directory / name
    if not path.is_file():
        raise CheckpointCorruptError(f"{path} is missing: copy the checkpoint again, whole")
    size = path.stat().st_size
    if size != fact.size:
        raise CheckpointCorruptError(
            f"{path} has {size:,} bytes, its card says {fact.size:,}: copy the checkpoint again"
        )
    if verify and (digest := _sha256(path)) != fact.sha256:
        raise CheckpointCorruptError(
            f"{path} has sha256 {digest[:12]}…, its card says {fact.sha256[:12]}…: copy the "
            "checkpoint again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(card: Card) -> str:
    """`PRESET-xxxxxxxx`: over the files and over all that changes what they generate."""
    content = (card.files, _stated(card.prompt), _stated(card.generation))
    digest = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
    return f"{card.preset}-{digest[:8]}"


def _stated(config: PromptConfig | GenerationConfig) -> dict[str, Any]:
    """What of a config enters the name: its first settings, and later ones where they are not at
    their default. So a new setting whose default is what was done before renames nothing."""
    return {
        field.name: value
        for field in msgspec.structs.fields(config)
        if (value := getattr(config, field.name)) != field.default or field.name in _FIRST
    }


def seal(
    staged: Path,
    out: Path,
    *,
    preset: str,
    prompt: PromptConfig,
    generation: GenerationConfig,
    training: Mapping[str, Any],
) -> Checkpoint:
    """Write the card of what lies in `staged` and move it to `out` in one rename.

    A checkpoint that is at `out` already is replaced; anything else there is a
    `CheckpointMismatchError`.
    """
    if occupied(out, CARD):
        raise CheckpointMismatchError(
            f"{out} exists and is no checkpoint; choose another directory or remove it"
        )
    files = {
        path.relative_to(staged).as_posix(): FileFact(path.stat().st_size, _sha256(path))
        for path in sorted(staged.rglob("*"))
        if path.is_file() and path.name != CARD
    }
    card = Card(
        name="",
        preset=preset,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        prompt=prompt,
        generation=generation,
        files=files,
        training=dict(training),
    )
    card = msgspec.structs.replace(card, name=_name(card))
    _write_card(staged, card)
    publish(staged, out)
    return open_checkpoint(out)
