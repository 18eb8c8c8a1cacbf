"""Chinese words: where they begin and end, and what they are in the title of a thing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from onebar.evidence.scripts import HAN

if TYPE_CHECKING:
    from rjieba import Jieba

_HAN = re.compile(f"[{HAN}]")
_FILE = Path(__file__).parent / "data" / "chinese.txt"
_TAGS = {"thing": "n", "whom": "n", "property": "b", "brand": "nz", "selling": "d", "common": "n"}
"""Parts of speech of words that jieba's dictionary hasn't."""
_WHOM = "女男"
"""For whom a thing is, in one character: no word that jieba guesses begins or ends with it."""


@lru_cache(maxsize=1)
def chinese_kinds() -> Mapping[str, str]:
    """What Chinese words are in the title of a thing that is sold: `thing`, `whom`, `property`,
    `brand`, `common` or `selling` (`data/chinese.txt`)."""
    kinds: dict[str, str] = {}
    kind = ""
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.endswith(":"):
            kind = line[:-1]
        elif not line.startswith("//"):
            for word in line.split():
                kinds.setdefault(word.lower(), kind)
    return kinds


@lru_cache(maxsize=1)
def _jieba() -> Jieba:
    # 0.1 s and 60 MB: not before there is Chinese.
    import rjieba

    found = rjieba.Jieba()
    for word, kind in chinese_kinds().items():
        if len(word) > 1 and _HAN.match(word) and not found.has_word(word):
            found.add_word(word, None, _TAGS[kind])
    return found


def is_chinese_word(word: str) -> bool:
    """Whether jieba's dictionary or `chinese_kinds` has it."""
    return bool(_jieba().has_word(word))


def cut(text: str) -> list[tuple[str, str]]:
    """The words of a text of nothing but Chinese characters with jieba's parts of speech."""
    jieba = _jieba()
    found: list[tuple[str, str]] = []
    for word, tag in jieba.tag(text):
        if len(word) > 1 and (word[0] in _WHOM or word[-1] in _WHOM) and not jieba.has_word(word):
            found += _parted(jieba, word)
        else:
            found.append((word, tag))
    return found


def _parted(jieba: Jieba, guess: str) -> list[tuple[str, str]]:
    """A word that jieba guessed, without those at its ends that say for whom a thing is."""
    within = guess.strip(_WHOM)
    before = guess[: len(guess) - len(guess.lstrip(_WHOM))]
    behind = guess[len(before) + len(within) :]
    return [
        *((one, "b") for one in before),
        *(jieba.tag(within) if within else ()),
        *((one, "b") for one in behind),
    ]
