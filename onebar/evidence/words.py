"""Words of a text, script by script: relevance, spans and grounding stand on them.

Letters keep their vowel signs, tone marks and joiners. Chinese is cut by rjieba (`chinese.py`);
Thai, Lao, Burmese and Khmer by ICU's dictionaries; Japanese where its scripts change; all others at
spaces and punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from onebar.evidence.chinese import cut
from onebar.evidence.scripts import HAN, HIRAGANA, JOINERS, KATAKANA, MARKS, UNSPACED

_DATA = Path(__file__).parent / "data"
_LETTER = rf"[^\W_{HAN}{HIRAGANA}{KATAKANA}{UNSPACED}]"
_REST = rf"(?:{_LETTER}|[{MARKS}{JOINERS}])"
_WORD = re.compile(
    rf"(?P<han>[{HAN}]+)"
    rf"|(?P<kana>[{KATAKANA}]+|[{HIRAGANA}]+)"
    rf"|(?P<unspaced>[{UNSPACED}]+)"
    rf"|(?P<word>{_LETTER}{_REST}*"
    # don't, l·l, 4.5, 1:32, 1000/6000, wi-fi, h&m
    rf"(?:(?:['’·]|[.,:/](?=\d)|[-‐‑&](?=\w)){_REST}+)*"
    # c++, 50%, 30°C
    r"(?:\+{1,2}(?!\w)|%|°[CcFf]?(?!\w)|℃|℉)?)"
)
_ASCII_WORD = re.compile(
    r"[a-zA-Z0-9]+(?:(?:'|[.,:/](?=[0-9])|[-&])[a-zA-Z0-9]+)*(?:\+{1,2}(?!\w)|%)?"
)
"""What `_WORD` finds in a text of ASCII characters, where there are no other kinds."""
_KANA = re.compile(rf"[{HIRAGANA}{KATAKANA}]")
_LONGEST_COMPOUND = 4
"""Characters that a run of kanji may have and still be taken for one word of Japanese."""
_HYPHENS = re.compile(r"[-‐‑]")
_FUNCTION_TAGS = "upcryeo"
"""First letters of jieba's tags for words that only join others: particles, prepositions,
conjunctions, pronouns, modal particles, interjections, imitations of sounds."""


class Word(NamedTuple):
    """A word where it stands: `text[start:end]`.

    `key` is its `match_key`. `tag` is jieba's part of speech for Chinese (`n`, `vn`, `uj` …), else
    `x` a word, `m` a number, `c` letters with digits, `h` hiragana, `k` katakana, `t` a word of a
    script without spaces. `function`: it only joins others.
    """

    text: str
    key: str
    start: int
    end: int
    tag: str
    function: bool


@lru_cache(maxsize=1)
def _function_words() -> tuple[dict[str, int], frozenset[str], int]:
    """Those of Latin script with the languages they belong to (bits: 1 is English); those of all
    other scripts; and the bit after the last language's."""
    latin: dict[str, int] = {}
    others: set[str] = set()
    bit = 1
    for line in (_DATA / "function_words.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("//"):
            continue
        words = line.split()
        if all(word[0] < "\u0250" or "\u1e00" <= word[0] < "\u2000" for word in words):
            for word in words:
                latin[word] = latin.get(word, 0) | bit
            bit <<= 1
        else:
            others.update(words)
    return latin, frozenset(others), bit


_ARABIC = str.maketrans("أإآىیکة", "ااايي\u0643ه")
_KOREAN_PARTICLE = re.compile("(?<=[\uac00-\ud7a3]{2})(?:에서|으로|[을를이가은는의에로와과도])$")
_FOLDED_MARKS = ((0x0300, 0x036F), (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F))
"""Accents, and the points of Hebrew and Arabic: what a word may be written without."""
_FOLDED = frozenset("\u0640\u0670\u200c\u200d\u00ad")


@lru_cache(maxsize=65536)
def match_key(word: str) -> str:
    """What two spellings of a word have in common, never shown.

    NFKC, case, joiners, accents and points that a word may be written without, Korean particles,
    and the English plural and possessive are folded. Vowel signs and tone marks stay: they make
    other words.
    """
    if word.isascii():
        return _singular(word.lower())
    text = unicodedata.normalize("NFKC", word).casefold()
    if not text.isascii():
        kept = (
            char
            for char in unicodedata.normalize("NFD", text)
            if char not in _FOLDED
            and not any(first <= ord(char) <= last for first, last in _FOLDED_MARKS)
        )
        text = unicodedata.normalize("NFC", "".join(kept)).replace("ı", "i").replace("đ", "d")
        text = _KOREAN_PARTICLE.sub("", text.translate(_ARABIC))
    return _singular(text) if text.replace("’", "").isascii() else text


def _singular(word: str) -> str:
    if word.endswith(("'s", "’s")):
        return word[:-2]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def _unspaced(text: str) -> list[tuple[int, int]]:
    from icu4py.breakers import WordBreaker

    return list(WordBreaker(text, "th").segments())


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[Word, ...]:
    """The words of a text, in order. Pure."""
    return _ascii_words(text) if text.isascii() else _words(text)


def _ascii_words(text: str) -> tuple[Word, ...]:
    """What `_words` gives of a text of ASCII characters, in less time."""
    found: list[Word] = []
    most = at = 0
    if text.replace(" ", "").isalnum():
        for token in text.split(" "):
            if token:
                key, tag, function, mask = _known(token)
                most = max(most, mask)
                found.append(_new(Word, (token, key, at, at + len(token), tag, function)))
            at += len(token) + 1
    else:
        for match in _ASCII_WORD.finditer(text):
            token, (start, end) = match[0], match.span()
            key, tag, function, mask = _known(token)
            most = max(most, mask)
            found.append(_new(Word, (token, key, start, end, tag, function)))
    if most > 1:
        latin, _, end_of_languages = _function_words()
        votes = [mask for word in found if (mask := latin.get(word.text.lower(), 0))]
        found = _of_one_language(found, votes, latin, end_of_languages)
    return tuple(found)


_new = tuple.__new__
"""A word of all its fields, without the call of a function in Python."""


@lru_cache(maxsize=65536)
def _known(token: str) -> tuple[str, str, bool, int]:
    """Of a word at spaces: its key, its tag, whether it joins others in English or in a script
    other than Latin, and the languages in which it does."""
    latin, others, _ = _function_words()
    mask = latin.get(token.lower(), 0)
    function = bool(mask & 1) or (not mask and token in others)
    return match_key(token), _tag(token), function, mask


def _words(text: str) -> tuple[Word, ...]:
    latin, others, end_of_languages = _function_words()
    found: list[Word] = []
    votes: list[int] = []
    japanese = 5 * len(_KANA.findall(text)) > len(text)
    for match in _WORD.finditer(text):
        start, end = match.span()
        token = match[0]
        kind = match.lastgroup
        if kind == "word":
            key, tag, function, mask = _known(token)
            if mask:
                votes.append(mask)
            found.append(Word(token, key, start, end, tag, function))
        elif kind == "han" and japanese and len(token) <= _LONGEST_COMPOUND:
            found.append(Word(token, match_key(token), start, end, "n", token in others))
        elif kind == "han":
            at = start
            for part, tag in cut(token):
                function = part in others or tag[0] in _FUNCTION_TAGS
                found.append(Word(part, match_key(part), at, at + len(part), tag, function))
                at += len(part)
        elif kind == "kana":
            hiragana = token[0] < "\u30a0"
            function = hiragana and (len(token) < 3 or token in others)
            tag = "h" if hiragana else "k"
            found.append(Word(token, match_key(token), start, end, tag, function))
        else:
            for a, b in _unspaced(token):
                part = token[a:b]
                if any(map(str.isalnum, part)):
                    found.append(
                        Word(part, match_key(part), start + a, start + b, "t", part in others)
                    )
    if any(mask > 1 for mask in votes):
        found = _of_one_language(found, votes, latin, end_of_languages)
    return tuple(found)


def _tag(token: str) -> str:
    if token.isalpha() or not any(map(str.isdigit, token)):
        return "x"
    return "c" if any(map(str.isalpha, token)) else "m"


def _language(votes: Iterable[int], end: int) -> int:
    """The bit of the language that most function words belong to, each a vote of all that have it;
    another than English needs two."""
    votes = list(votes)
    best, most = 1, max(1, sum(mask & 1 for mask in votes))
    bit = 2
    while bit < end:
        count = sum(1 for mask in votes if mask & bit)
        if count > most:
            best, most = bit, count
        bit <<= 1
    return best


def _of_one_language(
    found: list[Word], votes: list[int], latin: dict[str, int], end: int
) -> list[Word]:
    """Only the function words of the language most of them belong to: "men" and "pro" join
    nothing in an English text."""
    best = _language(votes, end)
    if best == 1:
        return found
    return [
        word._replace(function=bool(mask & best))
        if (mask := latin.get(word.text.lower(), 0))
        else word
        for word in found
    ]


@lru_cache(maxsize=4096)
def joining(texts: tuple[str, ...]) -> frozenset[str]:
    """Match keys of the words of an alphabet that only join others in the language that the texts
    are in: one text is often too short to tell ("receta de carne")."""
    latin, _, end_of_languages = _function_words()
    found = [word for text in texts for word in words(text) if word.tag == "x"]
    masks = [latin.get(word.text.lower(), 0) for word in found]
    best = _language(filter(None, masks), end_of_languages)
    return frozenset(
        word.key
        for word, mask in zip(found, masks, strict=True)
        if (mask & best if mask else word.function)
    )


def parts(word: Word) -> tuple[str, ...]:
    """The match keys of what a hyphen joins; of a plain word, its own."""
    if not _HYPHENS.search(word.key):
        return (word.key,)
    return tuple(match_key(part) for part in _HYPHENS.split(word.key) if part)
