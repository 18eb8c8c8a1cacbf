"""Chinese queries are of whole words: a decoder knows of none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from onebar.evidence.chinese import is_chinese_word
from onebar.evidence.words import Word
from onebar.recommending.phrases.names import is_done, is_thing, script, stands_open

_WHOM = "女男"
_LONGEST = 8
"""Characters that a word of a dictionary may have here."""
_ASKS = re.compile("怎么样?|怎样|如何|什么|多少|哪[个里儿]?|几|为什么|吗|谁")
"""Words that make a question."""


class WordList(Protocol):
    """Which words exist."""

    def __contains__(self, key: str, /) -> bool: ...


class ChineseWords:
    """The Chinese words of some texts, to hold queries against."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        """As the texts have them, and those that longer ones are made of."""
        self._openings: set[str] = set()
        """What words begin with, where a thing of one character ends them: *electric* of a car."""
        self._endings: set[str] = set()
        """Characters that words end with and that say what kind of thing it is."""
        self._done: set[str] = set()
        """Characters that say what somebody does (`is_done`)."""
        self._texts: list[str] = []

    def add(self, text: str, found: Sequence[Word]) -> None:
        """`found` are all words of the text."""
        if text.isascii():
            return
        chinese = [word.key for word in found if script(word) == "z"]
        if not chinese:
            return
        self._texts.append(text.lower())
        self._done.update(word.key for at, word in enumerate(found) if is_done(found, at))
        for key in chinese:
            self._words.update((key, *_made_of(key)))
            if is_thing(key[-1]):
                self._endings.add(key[-1])
                if len(key) > 2 and is_chinese_word(key[:-1]):
                    self._openings.add(key[:-1])

    def whole(self, run: str, lexicon: WordList = ()) -> bool:
        """Whether Chinese characters that stand together are nothing but whole words: those of the
        texts, as they have them; those of a dictionary; and at the end what kind of thing it is,
        where a word of the texts ends so. Half a word of the texts is none, though its character
        is one elsewhere."""
        reached = [True] + [False] * len(run)
        said = list(reached)  # And the last word is one of the texts.
        for end in range(1, len(run) + 1):
            for start in range(max(0, end - _LONGEST), end):
                if not reached[start]:
                    continue
                if end < len(run) and run[start:end] in self._openings:
                    reached[end] = True
                elif self._is_word(run[start:end], lexicon):
                    reached[end] = True
                    said[end] = said[end] or run[start:end] in self._words
        if run[-1] in self._done:
            return any(
                reached[start] and self._is_word(run[start:], lexicon)
                for start in range(max(0, len(run) - _LONGEST), len(run) - 1)
            )
        return reached[-1] or (len(run) > 1 and said[-2] and run[-1] in self._endings)

    def _is_word(self, text: str, lexicon: WordList) -> bool:
        if text in self._words or text in _WHOM:
            return True
        if len(text) < 2:
            return False
        beside = [
            (one[at - 1 : at], one[at + len(text) : at + len(text) + 1])
            for one in self._texts
            for at in _places(text, one)
        ]
        if not beside:
            return is_chinese_word(text) or text in lexicon
        # Of the texts, but of other words; or one that no dictionary has, which stands between
        # different characters.
        return all(len(set(side)) > 1 for side in zip(*beside, strict=True))


def _places(part: str, text: str) -> list[int]:
    return [at for at in range(len(text)) if text.startswith(part, at)]


def runs(found: Sequence[Word]) -> list[str]:
    """What stands together in Chinese characters, between words that only join others."""
    joined: list[str] = []
    end = -1
    for word in found:
        if script(word) != "z" or word.function:
            continue
        if joined and word.start == end:
            joined[-1] += word.key
        else:
            joined.append(word.key)
        end = word.end
    return joined


def repeats(run: str) -> bool:
    """Whether two Chinese characters stand side by side twice: half a word is said again."""
    pairs = [run[at : at + 2] for at in range(len(run) - 1)]
    return len(set(pairs)) < len(pairs)


def breaks_off(found: Sequence[Word]) -> bool:
    """Whether a Chinese query is one character, or asks nothing and ends with a number or a word
    that only joins others, or begins with a particle."""
    last = found[-1]
    if script(last) != "z":
        return False
    if len(found) == 1 and len(last.text) == 1:
        return True
    if any(_ASKS.fullmatch(word.text) for word in found):
        return False
    return last.function or last.tag in ("d", "m") or stands_open(last) or found[0].tag[0] in "uyc"


@lru_cache(maxsize=16384)
def _made_of(word: str) -> tuple[str, ...]:
    """The words that a Chinese word is made of, where it is of two."""
    return tuple(
        part
        for at in range(2, len(word) - 1)
        if is_chinese_word(word[:at]) and is_chinese_word(word[at:])
        for part in (word[:at], word[at:])
    )
