"""How titles and captions are put together: `data/open.LANG.toml`, read once."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from stream.simulator.config import Lang

DATA = Path(__file__).parent / "data"

Texts = tuple[str, ...]


class Words(Struct, frozen=True):
    """Words besides those of the lists: `common` things, `heads` that end compounds (Chinese),
    `specs` of titles and `filling` between things (English)."""

    attributes: Texts
    uses: Texts
    info: Texts
    modifiers: Texts
    common: Texts
    heads: Texts = ()
    specs: Texts = ()
    filling: Texts = ()


class Templates(Struct, frozen=True):
    """Templates by field of a video; the file says what the slots are."""

    templates: Texts
    captions: Texts
    fillers: Texts
    ocr: Texts
    asr: Texts
    summaries: Texts
    authors: Texts


class Risks(Struct, frozen=True):
    """What must not carry a query: whole texts, and `templates` around `subjects` (`{d}`)."""

    texts: Texts
    templates: Texts
    subjects: Texts


class Near(Struct, frozen=True):
    """Harmless things that sound like it."""

    things: Texts


class OpenPhrases(Struct, frozen=True):
    """One file."""

    words: Words
    titles: Templates
    risks: Risks
    near: Near

    @property
    def attributes(self) -> Texts:
        return self.words.attributes

    @property
    def uses(self) -> Texts:
        return self.words.uses


@lru_cache(maxsize=2)
def load_phrases(lang: Lang) -> OpenPhrases:
    """The phrases of a language."""
    text = (DATA / f"open.{lang}.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), OpenPhrases)
