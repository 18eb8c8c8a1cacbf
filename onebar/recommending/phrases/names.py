"""What words are to the name of a thing: its head, what qualifies it, what stands beside what, and
what else people call it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from onebar.evidence.chinese import chinese_kinds, is_chinese_word
from onebar.evidence.words import Word, words

_DATA = Path(__file__).parents[1] / "data"


def _rows(name: str) -> Iterator[list[str]]:
    for line in (_DATA / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("//"):
            yield line.split("\t")


@lru_cache(maxsize=1)
def names() -> Mapping[str, tuple[int, int]]:
    """How often a word is the head of a thing's name and how often it qualifies one, by match key:
    from a taxonomy of products (`data/names.tsv`)."""
    return {key: (int(heads), int(others)) for key, heads, others in _rows("names.tsv")}


@lru_cache(maxsize=1)
def _pairs() -> frozenset[tuple[str, str]]:
    """Match keys of words that stand side by side in the names of that taxonomy (`pairs.tsv`)."""
    return frozenset(
        (before, after) for before, behind in _rows("pairs.tsv") for after in behind.split()
    )


def go_together(before: Word, after: Word) -> bool:
    """Whether a taxonomy of products has a name in which one stands right before the other."""
    return (before.key, after.key) in _pairs()


@lru_cache(maxsize=1)
def _common() -> Mapping[str, str]:
    """Words that are said of anything, by match key, with their kind (`common.tsv`)."""
    return {key: kind for kind, keys in _rows("common.tsv") for key in keys.split()}


_FEW = 3
"""Names with a common word for a head that don't make it a thing."""


@lru_cache(maxsize=16384)
def _role(key: str, capital: bool) -> str:
    heads, others = names().get(key, (0, 0))
    if key in _common() and (heads <= others or heads < _FEW):
        return _common()[key]
    if heads + others == 0:
        return "U" if capital else "u"
    return "H" if heads > 2 * others else "Q" if others > 2 * heads else "B"


def role(word: Word) -> str:
    """What part a word of Latin script plays in the name of a thing: `H` its head, `Q` what
    qualifies it, `B` both, `U` a name of its own (capital), `u` none that is known, `n` a number or
    a model, `f` it only joins others; and what is said of anything: `v` what one does, `p` who, `t`
    when, `j` how good or how many. In other scripts `o`, or what is said of anything; empty for
    Chinese."""
    kind = script(word)
    if kind != "l":
        return "" if kind == "z" else "f" if word.function else _common().get(word.key, "o")
    if word.function:
        return "f"
    return "n" if word.tag in "mc" else _role(word.key, word.text[0].isupper())


COMMON = frozenset("vptjfn")
"""Roles of words that are about nothing in particular."""


def joint_features(found: Sequence[Word]) -> list[str]:
    """What speaks for words that stand side by side in a phrase."""
    roles = list(map(role, found))
    return [
        joint_feature(roles[at - 1], roles[at], go_together(found[at - 1], found[at]))
        for at in range(1, len(found))
        if roles[at - 1] and roles[at]
    ]


def joint_feature(before: str, after: str, known: bool) -> str:
    return f"J:{before}{after}:{known:d}"


@lru_cache(maxsize=1)
def measures() -> frozenset[str]:
    """What a number before it counts, by match key (`measures.txt`)."""
    return frozenset(key for [keys] in _rows("measures.txt") for key in keys.split())


@lru_cache(maxsize=1)
def _synonyms() -> Mapping[str, tuple[tuple[tuple[str, ...], str, frozenset[str]], ...]]:
    """By the first match key of what a text says: all of its keys, what people ask for, and words
    of which the text must have one (`synonyms.tsv`)."""
    found: dict[str, list[tuple[tuple[str, ...], str, frozenset[str]]]] = {}
    for called, asked, *beside in _rows("synonyms.tsv"):
        keys = tuple(word.key for word in words(called))
        near = frozenset(word.key for word in words(" ".join(beside)))
        found.setdefault(keys[0], []).append((keys, asked, near))
    return {key: tuple(sorted(rows)) for key, rows in found.items()}


def synonyms(phrase: Sequence[Word], text: frozenset[str]) -> Iterator[tuple[int, int, str]]:
    """What words `first` to `last` of a phrase are also called. `text` holds the match keys of
    where it stands."""
    index = _synonyms()
    for first, word in enumerate(phrase):
        for keys, asked, near in index.get(word.key, ()):
            last = first + len(keys)
            if tuple(one.key for one in phrase[first:last]) == keys and (
                not near or not near.isdisjoint(text)
            ):
                yield first, last, asked


@lru_cache(maxsize=1)
def called_so() -> Mapping[str, tuple[str, ...]]:
    """What people ask for, by what a Chinese text calls it: a word, or `-` and what a word ends
    with (`asked_as.txt`)."""
    found: dict[str, list[str]] = {}
    for [line] in _rows("asked_as.txt"):
        asked, _, called = line.partition(": ")
        for one in called.split():
            found.setdefault(one, []).extend([asked] if asked != "-" else ())
    return {called: tuple(asked) for called, asked in found.items()}


def asked_as(phrase: Sequence[Word]) -> Iterator[tuple[int, int, str]]:
    """What people ask for in the place of words `first` to `last` of a Chinese phrase: the thing
    that it ends with, or has before the words that say for whom it is."""
    kinds = chinese_kinds()
    last = len(phrase)
    while last > 1 and kinds.get(phrase[last - 1].text) == "whom":
        last -= 1
    index = called_so()
    for first in range(max(0, last - 2), last):
        called = "".join([word.text for word in phrase[first:last]]).lower()
        if called in index:
            if _adds(phrase[:first]):
                yield from ((first, last, asked) for asked in index[called])
            return
    first = last - 1
    if not is_thing(phrase[first].text) or not _adds(phrase[:first]):
        return
    if len(phrase[first].text) == 1 and first > 0:
        first -= 1  # It makes the thing's name with the word before it.
    name = "".join([word.text for word in phrase[first:last]])
    for at in range(1, len(name)):
        yield from ((first, last, asked) for asked in index.get("-" + name[at:], ()))


def _adds(before: Sequence[Word]) -> bool:
    """Whether what stands before a Chinese thing says which: it is no other thing, and no lone
    character that is the rest of a word."""
    if not before:
        return True
    kind = chinese_kinds().get(before[-1].text)
    return kind != "thing" and (len(before[-1].text) > 1 or kind in ("whom", "property"))


def is_known(text: str) -> bool:
    """Whether a Chinese word is in a dictionary: others are guesses of the segmentation."""
    return len(text) == 1 or text in chinese_kinds() or is_chinese_word(text)


def stands_open(word: Word) -> bool:
    """Whether a Chinese word of one character is none to end with in the middle of a text: it goes
    on. Things, for whom they are, and seasons are."""
    return (
        len(word.text) == 1
        and script(word) == "z"
        and word.tag[0] not in "nbtx"
        and word.text not in chinese_kinds()
    )


def is_done(found: Sequence[Word], at: int) -> bool:
    """Whether a Chinese character is what somebody does, though it is a thing elsewhere: how it is
    done stands behind it ("刷干净")."""
    word, after = found[at], found[at + 1 : at + 2]
    return (
        len(word.text) == 1
        and word.tag in ("v", "zg")
        and bool(after)
        and after[0].start == word.end
        and (after[0].tag in ("a", "v", "ul") or after[0].function)
    )


def is_thing(text: str) -> bool:
    """Whether a Chinese word is something that people look for."""
    return chinese_kinds().get(text.lower()) == "thing"


def glues(before: Word, after: Word) -> bool:
    """Whether a Chinese thing would be followed by another, which says nothing of it: *马面裙飞机*.
    For whom it is and what it is like may follow."""
    return is_thing(before.text) and len(after.text) > 1 and is_thing(after.text)


def script(word: Word) -> str:
    """`z` Chinese, `l` Latin, `o` another alphabet, else the tag of its script."""
    first = word.text[0]
    if "\u3400" <= first <= "\u9fff":
        return "z"  # Whatever jieba's tag is: its times and suffixes are `t` and `k`, too.
    if word.tag in "xcm":
        code = ord(first)
        return "l" if code < 0x250 or 0x1E00 <= code < 0x2000 else "o"
    return word.tag if word.tag in "hkt" else "z"
