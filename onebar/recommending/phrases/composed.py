"""Queries of two pieces of a Chinese text that don't stand together: a brand or a property and,
further on, the thing that has it. Titles of shops pile up words; people type two of them."""

from __future__ import annotations

from typing import NamedTuple

from onebar.evidence.chinese import chinese_kinds
from onebar.evidence.words import Word
from onebar.recommending.phrases.names import glues, is_known, script
from onebar.recommending.phrases.spans import (
    MAX_HAN_CHARS,
    Extent,
    Field,
    Span,
    begins_badly,
    end_features,
    goes_on,
    shape_features,
    side,
    start_features,
)

PIECE_WORDS = 2
PIECE_CHARS = 8
LEAST_WORDS = 3
"""Words of a field below which nothing can stand apart in it."""
COMPOSED = "pair"
"""The feature of every composed query: a ranker without a weight for it composes none."""
_NAMING = frozenset(("vn", "an", "j", "i", "l"))
"""Tags of jieba beside nouns': what is done, what something is like, short and set phrases."""
ALONE = frozenset("女男")
"""What stands behind a thing in a query though it is one character: for whom it is."""


class Pair(NamedTuple):
    """Two pieces of a field, as they follow in the query: `first` may stand behind `then`."""

    first: Extent
    then: Extent


def pieces(field: Field) -> list[Extent]:
    """Every one or two words that one can compose a query of, a thing's name being one. None where
    the text isn't Chinese."""
    found = field.words
    if len(found) < LEAST_WORDS or field.scripts.count("z") < LEAST_WORDS:
        return []
    kept = []
    for first, start in enumerate(found):
        if start.function or begins_badly(field, first):
            continue
        lang = "l"
        count = 0
        keys: set[str] = set()
        for last in range(first, len(found)):
            word = found[last]
            count += last == first or not field.inside[last]
            if count > PIECE_WORDS:
                break
            if (last > first and field.cuts[last]) or word.key in keys:
                break
            keys.add(word.key)
            lang = "z" if "z" in (lang, field.scripts[last]) else lang
            chars = word.end - start.start
            if chinese_kinds().get(word.text) == "selling":
                break
            if word.function or chars > PIECE_CHARS or (last > first and word.tag == "m"):
                continue
            if field.inside[first] or field.inside[last + 1]:
                continue  # Part of a thing's name.
            if not _whole(field, first, last) or goes_on(field, last):
                continue
            if word.tag != "m" and (chars > 1 or word.text in ALONE):
                kept.append(Extent(first, last, chars, lang))
    return kept


def _whole(field: Field, first: int, last: int) -> bool:
    """Whether the piece can be told to say something by itself: its words are no guesses of the
    segmentation, and in a sentence they name something."""
    return all(
        is_known(word.text) and (not field.prose or _names(word))
        for word in field.words[first : last + 1]
        if script(word) == "z"
    )


def _is_thing(field: Field, piece: Extent) -> bool:
    last = piece.last
    return field.inside[last] or chinese_kinds().get(field.words[last].text) == "thing"


def _names(word: Word) -> bool:
    return word.tag[0] == "n" or word.tag in _NAMING or word.text in chinese_kinds()


def apart(field: Field, first: Extent, then: Extent) -> bool:
    """Whether the two make a query that no span of the text is."""
    if first.last < then.first:
        if first.last + 1 == then.first and not field.cuts[then.first]:
            return False
    elif then.last >= first.first or field.prose:
        return False
    elif _is_thing(field, first) and _kind(field.words[then.first]) != "whom":
        return False  # What is said later comes first where it says more of a thing.
    if "z" not in (first.script, then.script) or first.chars + then.chars > MAX_HAN_CHARS:
        return False
    words = field.words
    before, after = words[first.last], words[then.first]
    if glues(before, after) or before.text[-1] == after.text[0]:
        return False
    if _kind(before) == "whom" and first.last > first.first:
        before = words[first.last - 1]
        if _kind(before) == "thing" and _kind(words[then.last]) == "thing":
            return False  # *耳环男银耳*: two things, for whom one of them is between.
    keys = {words[at].key for at in range(first.first, first.last + 1)}
    return all(words[at].key not in keys for at in range(then.first, then.last + 1))


def first_features(field: Field, piece: Extent) -> tuple[str, ...]:
    """What speaks for a composed query that begins with a piece, beside its words."""
    torn = "$" if field.cuts[piece.last + 1] else side(field.words[piece.last + 1])
    return (*start_features(field, piece.first, "z"), f"torn:a:{torn}")


def then_features(field: Field, piece: Extent) -> tuple[str, ...]:
    """What speaks for a composed query that ends with a piece, beside its words."""
    torn = "^" if field.cuts[piece.first] else side(field.words[piece.first - 1])
    return (*end_features(field, piece.last, "z"), f"torn:b:{torn}")


class Join(NamedTuple):
    """All that two pieces' being one query is judged by."""

    field: str
    forward: bool
    """Whether they follow in the query as they do in the text."""
    gap: int
    first_words: int
    then_words: int
    first_chars: int
    then_chars: int
    tags: str
    """Of the words at the seam."""
    kinds: str
    """Of the word before the seam, and of the last."""


def join(field: Field, pair: Pair) -> Join:
    """How two pieces of a field come together."""
    first, then = pair
    forward = first.last < then.first
    gap = then.first - first.last if forward else first.first - then.last
    words = field.words
    return Join(
        field.name + field.prose,
        forward,
        min(gap, 6),
        first.last - first.first,
        then.last - then.first,
        min(first.chars, 6),
        min(then.chars, 6),
        f"{words[first.last].tag}:{words[then.first].tag}",
        f"{_kind(words[first.last])}:{_kind(words[then.last])}",
    )


def join_features(how: Join) -> tuple[str, ...]:
    """What speaks for two pieces as one query, beside what does for each."""
    order = "f" if how.forward else "b"
    return (
        COMPOSED,
        f"pair:field:{how.field}:{order}",
        f"pair:gap:{order}:{how.gap}",
        f"pair:words:{order}:{how.first_words}:{how.then_words}",
        f"pair:tags:{order}:{how.tags}",
        f"pair:kinds:{order}:{how.kinds}",
        f"pair:chars:{order}:{how.first_chars}:{how.then_chars}",
    )


def _kind(word: Word) -> str:
    return chinese_kinds().get(word.text.lower(), "-")


def pair_words(field: Field, pair: Pair) -> tuple[Word, ...]:
    """The words of the query, in its order."""
    first, then = pair
    return (
        *field.words[first.first : first.last + 1],
        *field.words[then.first : then.last + 1],
    )


def compose(field: Field, pair: Pair) -> Span:
    """The query, as it is typed: without a space, but between two words of an alphabet and where
    a sentence ends between the pieces."""
    first, then = pair
    words = pair_words(field, pair)
    low, high = min(first.last, then.last), max(first.first, then.first)
    alphabets = field.scripts[first.last] != "z" and field.scripts[then.first] != "z"
    space = " " if alphabets or any(field.cuts[low + 1 : high + 1]) else ""
    text = space.join(_text(field, piece) for piece in pair)
    at = (*range(first.first, first.last + 1), *range(then.first, then.last + 1))
    return Span(
        text,
        words,
        (
            *shape_features("z", len(words), first.chars + then.chars),
            *first_features(field, first),
            *then_features(field, then),
            f"D:{min(field.counts[i] for i in at)}:{field.among}",
            *join_features(join(field, pair)),
        ),
        tuple(field.seen[i] for i in at),
    )


def _text(field: Field, piece: Extent) -> str:
    return field.text[field.words[piece.first].start : field.words[piece.last].end]
