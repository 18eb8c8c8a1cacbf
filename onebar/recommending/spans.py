"""Contiguous spans of a video's own text that could be queries: what people type is, more often
than not, written somewhere in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from onebar.evidence.evidence import stop_words
from onebar.evidence.words import Word, is_chinese_word, words
from onebar.records import VideoText

FIELDS = ("item_title", "title", "caption", "summary", "ocr", "asr")
"""Where spans are taken from, the most telling first."""
MAX_WORDS = 5
MAX_CHARS = 36
MAX_HAN_WORDS = 6
MAX_HAN_CHARS = 14
FIELD_WORDS = 28
"""Words of a field that are looked at."""
_SUFFIXES = ("ing", "ed", "ly", "er", "able", "less", "proof", "y")


class Span(NamedTuple):
    """A few neighbouring words of a field, and what speaks for or against them as a query."""

    text: str
    words: tuple[Word, ...]
    context: tuple[str, ...]
    """Names of the features that are not those of its words alone."""
    seen: tuple[str, ...]
    """For each word, the feature that says in how many fields it stands."""


class Field(NamedTuple):
    """A field as words, with the features that its spans share."""

    name: str
    text: str
    words: tuple[Word, ...]
    scripts: tuple[str, ...]
    cuts: tuple[bool, ...]
    """Whether a boundary (the beginning, punctuation) stands before each word, and at the end."""
    counts: tuple[int, ...]
    """In how many fields each word stands."""
    seen: tuple[str, ...]
    inside: tuple[bool, ...]
    """Whether a Chinese thing's name goes on over the boundary before each word, and at the end."""
    place: str
    prose: str
    """`~` where a Chinese text is made of sentences; empty where it is one of things and what they
    are like, as titles of shops are, or another language's."""
    among: int
    """How many fields there are, 3 at most."""


class Extent(NamedTuple):
    """Words `first` to `last` of a field, `chars` characters; `script` is `z` with any Chinese."""

    first: int
    last: int
    chars: int
    script: str


@lru_cache(maxsize=1)
def names() -> Mapping[str, tuple[int, int]]:
    """How often a word is the head of a thing's name and how often it qualifies one, by match key:
    from a taxonomy of products (`data/names.tsv`)."""
    counts: dict[str, tuple[int, int]] = {}
    text = (Path(__file__).parent / "data" / "names.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.startswith("//"):
            key, heads, others = line.split("\t")
            counts[key] = (int(heads), int(others))
    return counts


@lru_cache(maxsize=1)
def chinese_kinds() -> Mapping[str, str]:
    """What Chinese words are in the title of a thing that is sold: `thing`, `whom`, `property`,
    `brand`, `common` or `selling` (`data/chinese.txt`)."""
    kinds: dict[str, str] = {}
    kind = ""
    text = (Path(__file__).parent / "data" / "chinese.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.endswith(":"):
            kind = line[:-1]
        elif not line.startswith("//"):
            for word in line.split():
                kinds.setdefault(word.lower(), kind)
    return kinds


def is_known(text: str) -> bool:
    """Whether a Chinese word is in a dictionary: others are guesses of the segmentation."""
    return len(text) == 1 or text in chinese_kinds() or is_chinese_word(text)


def _is_thing(text: str) -> bool:
    return chinese_kinds().get(text.lower()) == "thing"


def _band(count: int) -> int:
    return 0 if count == 0 else 1 if count < 3 else 2 if count < 12 else 3


def script(word: Word) -> str:
    """`z` Chinese, `l` Latin, `o` another alphabet, else the tag of its script."""
    if word.tag in "xcm":
        code = ord(word.text[0])
        return "l" if code < 0x250 or 0x1E00 <= code < 0x2000 else "o"
    return word.tag if word.tag in "hkt" else "z"


@lru_cache(maxsize=16384)
def _head_feature(key: str) -> str:
    heads, others = names().get(key, (0, 0))
    return f"h:{_band(heads)}:{_band(others)}"


@lru_cache(maxsize=16384)
def _word_features(text: str, key: str, tag: str, function: bool) -> tuple[str, ...]:
    lang = script(Word(text, key, 0, 0, tag, function))
    found = [f"t:{lang}:{tag}", f"n:{lang}:{min(len(text), 9)}", f"id:{key}"]
    if function:
        found.append(f"f:{lang}")
    if lang == "z":
        found += (f"lc:{text[-1]}", f"tl:{tag}:{min(len(text), 4)}")
        kind = chinese_kinds().get(text)
        if kind is not None:
            found.append(f"k:{kind}")
        elif not is_known(text):
            found.append("u")
    elif lang == "l":
        if tag == "x":
            found.append(_head_feature(key))
            found += [f"x:{suffix}" for suffix in _SUFFIXES if key.endswith(suffix)][:1]
            if key != text.lower():
                found.append("x:s")
        shape = "l" if text[0].islower() else "U" if text.isupper() and len(text) > 1 else "C"
        found.append(f"s:{tag}:{shape}")
    return tuple(found)


def word_features(word: Word) -> tuple[str, ...]:
    """What a word says of itself wherever it stands."""
    return _word_features(word.text, word.key, word.tag, word.function)


@lru_cache(maxsize=16384)
def head_features(text: str, tag: str) -> tuple[str, ...]:
    """What the last word of a Chinese phrase says of it, whether or not it is the only one: names
    of things end with what kind of thing it is."""
    kind = chinese_kinds().get(text) or (
        "ends" if any(_is_thing(text[at:]) for at in range(1, len(text) - 1)) else "-"
    )
    return f"H:t:{tag}", f"H:lc:{text[-1]}", f"H:k:{kind}"


def shape_features(lang: str, count: int, chars: int) -> tuple[str, str]:
    """How long a phrase is, in words and characters."""
    return (
        f"L:{lang}:{count}",
        f"C:{lang}:{min(chars, 16) if lang == 'z' else min(chars // 3, 12)}",
    )


def phrase_script(found: Sequence[Word]) -> str:
    """`z` with any Chinese in it, else that of its first word."""
    scripts = [script(word) for word in found]
    return "z" if "z" in scripts else scripts[0]


def start_features(field: Field, first: int, lang: str) -> tuple[str, ...]:
    """What speaks for a span that begins there."""
    before = "^" if field.cuts[first] else side(field.words[first - 1])
    name = field.name + field.prose
    return f"F:{field.place}", f"P:{name}:{min(first, 8)}", f"LN:{lang}{field.prose}:{before}"


def end_features(field: Field, last: int, lang: str) -> tuple[str, ...]:
    """What speaks for a span that ends there."""
    if field.cuts[last + 1]:
        beside = f"RN:{lang}{field.prose}:$"
        return (beside, "HC") if field.inside[last] else (beside,)
    after = field.words[last + 1]
    beside = f"RN:{lang}{field.prose}:{side(after)}"
    if lang != "l":
        return (beside, "HC") if field.inside[last] else (beside,)
    return beside, f"RN{_head_feature(after.key) if after.tag == 'x' else ''}"


def side(word: Word) -> str:
    """What a word says of what it stands beside."""
    return word.tag + "!" if word.function else word.tag


def fields(video: VideoText) -> list[Field]:
    """The fields that hold a word, the most telling first."""
    texts = [(name, getattr(video, name)) for name in FIELDS]
    kept = [(name, text, found) for name, text in texts if (found := words(text)[:FIELD_WORDS])]
    count: dict[str, int] = {}
    for _, _, found in kept:
        for key in {word.key for word in found}:
            count[key] = count.get(key, 0) + 1
    among = min(len(kept), 3)
    has_item = int(bool(video.item_title))
    return [
        Field(
            name,
            text,
            found,
            tuple(map(script, found)),
            _cuts(text, found),
            (counts := tuple(min(count[word.key], 3) for word in found)),
            tuple(f"df:{times}:{among}" for times in counts),
            _inside(text, found),
            f"{name}:{has_item}",
            _prose(found),
            among,
        )
        for name, text, found in kept
    ]


def _cuts(text: str, found: Sequence[Word]) -> tuple[bool, ...]:
    cuts = [True]
    for before, word in pairwise(found):
        gap = text[before.end : word.start]
        cuts.append(bool(gap) and not gap.isspace())
    return (*cuts, True)


def _prose(found: Sequence[Word]) -> str:
    return "~" if any(word.function and script(word) == "z" for word in found) else ""


def _inside(text: str, found: Sequence[Word]) -> tuple[bool, ...]:
    inside = [False] * (len(found) + 1)
    for last in range(1, len(found)):
        end = found[last]
        for first in range(last - 1, max(-1, last - 3), -1):
            if found[first].end != found[first + 1].start:
                break
            if _is_thing(text[found[first].start : end.end]):
                inside[first + 1 : last + 1] = [True] * (last - first)
    return tuple(inside)


def extents(field: Field) -> Iterator[Extent]:
    """Every span of a field that has the shape of a query.

    At most `MAX_WORDS` words (of Chinese `MAX_HAN_WORDS`) with no boundary between them, that
    neither begins nor ends with a function word, says no word twice and isn't only numbers and
    measures. None has a word that only shops say, or begins or ends inside a thing's name.
    """
    found, cuts, scripts, inside = field.words, field.cuts, field.scripts, field.inside
    kinds = chinese_kinds() if "z" in scripts else {}
    for first, start in enumerate(found):
        if start.function or inside[first]:
            continue
        lang = scripts[first]
        most_words, most_chars = MAX_WORDS, MAX_CHARS
        keys: set[str] = set()
        numbers = True
        for last in range(first, min(len(found), first + MAX_HAN_WORDS)):
            word = found[last]
            if (last > first and cuts[last]) or kinds.get(word.text) == "selling":
                break
            if scripts[last] == "z":
                lang, most_words, most_chars = "z", MAX_HAN_WORDS, MAX_HAN_CHARS
            chars = word.end - start.start
            if last - first >= most_words or chars > most_chars or word.key in keys:
                break
            keys.add(word.key)
            numbers = numbers and word.tag in ("m", "q")
            if not word.function and chars > 1 and not numbers and not inside[last + 1]:
                yield Extent(first, last, chars, lang)


def span(field: Field, extent: Extent) -> Span:
    """What stands there, as it was written."""
    first, last, chars, lang = extent
    found = field.words[first : last + 1]
    return Span(
        field.text[found[0].start : found[-1].end],
        found,
        (
            *shape_features(lang, len(found), chars),
            *start_features(field, first, lang),
            *end_features(field, last, lang),
            f"D:{min(field.counts[first : last + 1])}:{field.among}",
        ),
        field.seen[first : last + 1],
    )


def spans(video: VideoText) -> Iterator[Span]:
    """Every span of a cleaned video's text that has the shape of a query, field by field."""
    for field in fields(video):
        for extent in extents(field):
            yield span(field, extent)


def signature(found: Sequence[Word]) -> str:
    """Equal for phrases that say the same: order, number, accents and trivial words don't count."""
    keys = {word.key for word in found if not word.function}
    keys = keys - stop_words() or keys or {word.key for word in found}
    if any(script(word) == "z" for word in found):
        # Two segmentations of the same characters are the same thing.
        return "".join(sorted("".join(keys)))
    return " ".join(sorted(keys))
