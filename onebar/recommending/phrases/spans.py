"""Spans of a video's own text that could be queries: what people type is, more often than not,
written somewhere in it, if not in one piece."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from onebar.evidence.chinese import chinese_kinds
from onebar.evidence.evidence import stop_words
from onebar.evidence.scripts import HAN
from onebar.evidence.words import Word, joining, words
from onebar.recommending.phrases.clauses import clause_ends, is_only_done, leaves_open
from onebar.recommending.phrases.names import (
    COMMON,
    asked_as,
    go_together,
    is_done,
    is_known,
    is_thing,
    measures,
    names,
    role,
    script,
    stands_open,
    synonyms,
)
from onebar.records import VideoText

FIELDS = ("item_title", "title", "caption", "summary", "ocr", "asr")
"""Where spans are taken from, the most telling first."""
_NUMBERS = frozenset(
    (
        *("one", "two", "three", "four", "five", "six"),
        *("seven", "eight", "nine", "ten", "eleven", "twelve"),
    )
)
MAX_WORDS = 5
MAX_CHARS = 36
MAX_HAN_WORDS = 6
MAX_HAN_CHARS = 14
ANY_WORDS = 8
ANY_HAN_CHARS = 16
SHAPELESS = "shapeless"
"""The feature of a span that no query of a bar has the shape of, but what people type may have:
*what is good for a cold*. Looked at where a ranker has a weight for it."""
ASKED = "made:asked"
"""The feature of a Chinese span with what people ask for in the place of what its thing is called:
a ranker without a weight for it has none."""
ASKED_WORDS = 2
"""Words of such a span at most: the thing alone, or with one that says which."""
FIELD_WORDS = 40
"""Words of a field that are looked at."""
LEAD_WORDS = 8
"""How far before a name a word of it may stand that is put before it."""
_GO_ALONG = frozenset("味色款风袖领边型系底跟")
"""What makes one word with the one before it, whatever that is."""
_SHOUTED = re.compile("【[^】]*】")
_AGAIN = re.compile(rf"([{HAN}])\1\1+")
_SUFFIXES = ("ing", "ed", "ly", "er", "able", "less", "proof", "y")


class Span(NamedTuple):
    """A few neighbouring words of a field, and what speaks for or against them as a query."""

    text: str
    words: tuple[Word, ...]
    context: tuple[str, ...]
    """Names of the features that are not those of its words alone."""
    seen: tuple[str, ...]
    """For each word, the feature that says in how many fields it stands."""
    scored: tuple[str, float] = ("", 0.0)
    """The digest of the ranker that found it, and its score as nothing but a span."""


class Field(NamedTuple):
    """A field as words, with the features that its spans share."""

    name: str
    text: str
    words: tuple[Word, ...]
    scripts: tuple[str, ...]
    cuts: tuple[bool, ...]
    """Whether a boundary (the beginning, punctuation) stands before each word, and at the end."""
    counts: tuple[int, ...]
    """In how many fields each word stands, or a form of it."""
    seen: tuple[str, ...]
    roles: tuple[str, ...]
    """What part each word plays in a thing's name (`role`)."""
    known: tuple[bool, ...]
    """Whether a word and the one before it go together in a taxonomy's names."""
    inside: tuple[bool, ...]
    """Whether a Chinese thing's name goes on over the boundary before each word, and at the end."""
    bracketed: tuple[bool, ...]
    """Whether each word stands in square brackets, as what shops shout does."""
    place: str
    prose: str
    """`~` where a Chinese text is made of sentences; empty where it is one of things and what they
    are like, as titles of shops are, or another language's."""
    among: int
    """How many fields there are, 3 at most."""
    kin: tuple[tuple[str, ...], ...] = ()
    """Of each Chinese word that names a thing, how many others do that are of its kind, and how
    many behind it, as features."""


class Extent(NamedTuple):
    """Words `first` to `last` of a field, `chars` characters; `script` is `z` with any Chinese."""

    first: int
    last: int
    chars: int
    script: str
    lead: int = -1
    """A word from before `first` that is put before them; -1: none, they are as they stand."""
    shapeless: bool = False
    """Whether it hasn't the shape of a query."""


def _band(count: int) -> int:
    return 0 if count == 0 else 1 if count < 3 else 2 if count < 12 else 3


@lru_cache(maxsize=16384)
def _head_feature(key: str) -> str:
    heads, others = names().get(key, (0, 0))
    return f"h:{_band(heads)}:{_band(others)}"


@lru_cache(maxsize=16384)
def _word_features(text: str, key: str, tag: str, function: bool) -> tuple[str, ...]:
    word = Word(text, key, 0, 0, tag, function)
    lang = script(word)
    found = [f"t:{lang}:{tag}", f"n:{lang}:{min(len(text), 9)}", f"id:{key}"]
    if function:
        found.append(f"f:{lang}")
    if lang == "z":
        found += (f"lc:{text[-1]}", f"tl:{tag}:{min(len(text), 4)}")
        kind = chinese_kinds().get(text)
        if kind is not None:
            found.append(f"k:{kind}")
        elif not is_known(text):
            found.append("k:?")
    elif lang == "l":
        if tag == "x":
            found += (_head_feature(key), f"r:{role(word)}")
            found += [f"x:{suffix}" for suffix in _SUFFIXES if key.endswith(suffix)][:1]
            if key != text.lower():
                found.append("x:s")
        shape = "l" if text[0].islower() else "U" if text.isupper() and len(text) > 1 else "C"
        found.append(f"s:{tag}:{shape}")
    else:
        found += (f"r:{role(word)}", f"le:{text[-2:]}")
    return tuple(found)


def word_features(word: Word) -> tuple[str, ...]:
    """What a word says of itself wherever it stands."""
    return _word_features(word.text, word.key, word.tag, word.function)


@lru_cache(maxsize=16384)
def head_features(text: str, tag: str) -> tuple[str, ...]:
    """What the last word of a Chinese phrase says of it, whether or not it is the only one: names
    of things end with what kind of thing it is."""
    kind = chinese_kinds().get(text) or (
        "ends" if any(is_thing(text[at:]) for at in range(1, len(text) - 1)) else "-"
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
    where: tuple[str, ...] = (
        f"F:{field.place}",
        f"P:{name}:{min(first, 8)}",
        f"LN:{lang}{field.prose}:{before}",
    )
    if field.bracketed[first]:
        where = (*where, f"B:{lang}:{field.name}")
    own = field.roles[first]
    if not own:
        return where
    beside = "^" if field.cuts[first] else field.roles[first - 1]
    return *where, f"A:{beside}{own}:{field.known[first] and not field.cuts[first]:d}"


def end_features(field: Field, last: int, lang: str) -> tuple[str, ...]:
    """What speaks for a span that ends there."""
    own = field.roles[last]
    whole = (*(("HC",) if field.inside[last] else ()), *field.kin[last])
    if field.cuts[last + 1]:
        beside = f"RN:{lang}{field.prose}:$"
        return (beside, f"Z:{own}$:0") if own else (beside, *whole)
    after = field.words[last + 1]
    beside = f"RN:{lang}{field.prose}:{side(after)}"
    if lang != "l":
        return (beside, *whole)
    return (
        beside,
        f"RN{_head_feature(after.key) if after.tag == 'x' else ''}",
        f"Z:{own}{field.roles[last + 1]}:{field.known[last + 1]:d}",
    )


def lead_features(field: Field, extent: Extent) -> tuple[str, ...]:
    """What speaks for a name that is put together of a word and what stands further on."""
    lead, first = extent.lead, extent.first
    return (
        f"made:{min(first - lead - 1, 4)}",
        f"made:{_joined(field, lead, first)}:{field.roles[lead]}",
        f"made:{'^' if lead == 0 else '-'}:{field.name}",
        f"made:{field.roles[lead + 1]}:{field.known[lead + 1]:d}",
    )


def side(word: Word) -> str:
    """What a word says of what it stands beside."""
    return word.tag + "!" if word.function else word.tag


def fields(video: VideoText) -> list[Field]:
    """The fields that hold a word, the most telling first."""
    texts = [(name, getattr(video, name)) for name in FIELDS]
    joins = joining(tuple(text for _, text in texts if text))
    kept = [
        (name, text, found)
        for name, text in texts
        if (found := _spoken(text, _in_language(words(text)[:FIELD_WORDS], joins)))
    ]
    count: dict[str, int] = {}
    for _, _, found in kept:
        for stem in set(map(_stem, found)):
            count[stem] = count.get(stem, 0) + 1
    among = min(len(kept), 3)
    has_item = int(bool(video.item_title))
    return [
        Field(
            name,
            text,
            found,
            tuple(map(script, found)),
            _cuts(text, found),
            (counts := tuple(min(count[_stem(word)], 3) for word in found)),
            tuple(f"df:{times}:{among}" for times in counts),
            tuple(map(role, found)),
            (False, *(go_together(before, word) for before, word in pairwise(found)), False),
            _inside(text, found),
            _bracketed(text, found),
            f"{name}:{has_item}",
            _prose(found),
            among,
            _kin(found),
        )
        for name, text, found in kept
    ]


def _kin(found: Sequence[Word]) -> tuple[tuple[str, ...], ...]:
    things = [_ends_in_thing(word) for word in found]
    ends = [word.text[-1] for word, thing in zip(found, things, strict=True) if thing]
    kin = []
    left = len(ends)
    for word, thing in zip(found, things, strict=True):
        left -= thing
        kin.append(
            (f"K:{min(ends.count(word.text[-1]), 4)}", f"KB:{min(left, 4)}") if thing else ()
        )
    return tuple(kin)


def _ends_in_thing(word: Word) -> bool:
    return script(word) == "z" and (is_thing(word.text) or is_thing(word.text[-1]))


def _in_language(found: tuple[Word, ...], joins: frozenset[str]) -> tuple[Word, ...]:
    """The words of a field, with those that only join others in the language of all of them."""
    if not any(word.key in joins and not word.function for word in found):
        return found
    return tuple(word._replace(function=word.function or word.key in joins) for word in found)


def _stem(word: Word) -> str:
    """What forms of a word have in common: "printing", "printer"."""
    return word.key[:5] if word.tag == "x" else word.key


def _cuts(text: str, found: Sequence[Word]) -> tuple[bool, ...]:
    cuts = [True]
    for before, word in pairwise(found):
        gap = text[before.end : word.start]
        cuts.append(bool(gap) and not gap.isspace())
    return (*cuts, True)


def _inside(text: str, found: Sequence[Word]) -> tuple[bool, ...]:
    inside = [False] * (len(found) + 1)
    if not any(script(word) == "z" for word in found):
        return tuple(inside)
    for last in range(1, len(found)):
        end = found[last]
        for first in range(last - 1, max(-1, last - 3), -1):
            if found[first].end != found[first + 1].start:
                break
            if is_thing(text[found[first].start : end.end]):
                inside[first + 1 : last + 1] = [True] * (last - first)
        if _ends_a_name(found[last - 1], end) and not is_done(found, last):
            inside[last] = True
        if _is_torn(found[last - 1], end):
            inside[last] = True
    return tuple(inside)


def _is_torn(before: Word, word: Word) -> bool:
    """Whether no query may begin or end between two Chinese words: before a character that goes
    with any word (*飞机袖*, *牛奶味*), and between a character and itself."""
    if before.end != word.start or script(before) != "z":
        return False
    return word.text in _GO_ALONG or (len(word.text) == 1 and word.text == before.text)


def _ends_a_name(before: Word, end: Word) -> bool:
    """Whether a thing of one character makes the name of one with what stands before it."""
    return (
        len(end.text) == 1
        and before.end == end.start
        and len(before.text) > 1
        and is_thing(end.text)
        and script(before) == "z"
        and not before.function
        and chinese_kinds().get(before.text) not in ("selling", "common", "whom")
    )


def _spoken(text: str, found: tuple[Word, ...]) -> tuple[Word, ...]:
    """The words without those that say a Chinese character again and again (*巨巨巨*), and without
    those that a shop shouts before what it sells: 【】 that name no thing."""
    again = [match.span() for match in _AGAIN.finditer(text)]
    if again:
        found = tuple(
            word for word in found if not any(a < word.end and word.start < b for a, b in again)
        )
    if "【" not in text or not any(script(word) == "z" for word in found):
        return found
    shouted = [
        match.span() for match in _SHOUTED.finditer(text) if not _names_something(match[0], found)
    ]
    kept = tuple(
        word for word in found if not any(start <= word.start < end for start, end in shouted)
    )
    return kept if len(kept) > 2 else found


def _names_something(shout: str, found: Sequence[Word]) -> bool:
    return any(
        word.text in shout
        and (chinese_kinds().get(word.text) in ("thing", "brand") or is_thing(word.text[-1]))
        for word in found
        if script(word) == "z"
    )


def _bracketed(text: str, found: Sequence[Word]) -> tuple[bool, ...]:
    """Which words stand in 【】 or 《》, where shops shout."""
    if "【" not in text and "《" not in text:
        return (False,) * len(found)
    return tuple(
        max(text.rfind("【", 0, word.start), text.rfind("《", 0, word.start))
        > max(text.rfind("】", 0, word.start), text.rfind("》", 0, word.start))
        for word in found
    )


def _prose(found: Sequence[Word]) -> str:
    return "~" if any(word.function and script(word) == "z" for word in found) else ""


def extents(field: Field, *, any_shape: bool = False) -> Iterator[Extent]:
    """Every span of a field that has the shape of a query.

    At most `MAX_WORDS` words (of Chinese `MAX_HAN_WORDS`) with no boundary between them, that
    neither begins nor ends with a function word, says no word twice, and isn't only numbers,
    measures and what is said of anything. None has a word that only shops say, or begins or ends
    inside a thing's name; none ends in a number whose measure it leaves out, or begins with that
    measure; no piece of a sentence ends between two words that go together; and none of English
    tells what somebody does.

    With `any_shape` also those of `ANY_WORDS` whole words at most without it, marked as such.
    """
    found, cuts, scripts, inside = field.words, field.cuts, field.scripts, field.inside
    kinds = chinese_kinds() if "z" in scripts else {}
    nothing = _about_nothing(field, kinds)
    ends = [not inside[at + 1] and _may_end(field, at) for at in range(len(found))]
    clauses = clause_ends(found)
    longest = ANY_WORDS if any_shape else MAX_HAN_WORDS
    for first, start in enumerate(found):
        shaped = not (start.function or inside[first] or begins_badly(field, first))
        if not (shaped or any_shape):
            continue
        joined = False
        lang = scripts[first]
        most_words, most_chars, any_chars = MAX_WORDS, MAX_CHARS, MAX_CHARS
        keys: set[str] = set()
        empty = True
        for last in range(first, min(len(found), first + longest)):
            word = found[last]
            if last > first and cuts[last]:
                break
            if scripts[last] == "z":
                lang, most_words, most_chars = "z", MAX_HAN_WORDS, MAX_HAN_CHARS
                any_chars = ANY_HAN_CHARS
            chars = word.end - start.start
            if (
                kinds.get(word.text) == "selling"
                or last - first >= most_words
                or chars > most_chars
                or word.key in keys
            ):
                shaped = False
                if not any_shape or chars > any_chars:
                    break
            keys.add(word.key)
            empty = empty and nothing[last]
            joined = joined or word.function
            if chars < 2:
                continue
            whole = ends[last] and not empty and clauses[last] < first
            cut_short = joined and field.known[last + 1] and not cuts[last + 1]
            if shaped and whole and not cut_short:
                yield Extent(first, last, chars, lang)
            elif any_shape:
                yield Extent(first, last, chars, lang, shapeless=True)


def _about_nothing(field: Field, kinds: Mapping[str, str]) -> list[bool]:
    """Of each word, whether it says nothing by itself: numbers, measures, what was done, what is
    said of anything."""
    counted = measures()
    return [
        word.tag in ("m", "q")
        or own in _ABOUT_NOTHING
        or word.key in counted
        or kinds.get(word.text) == "common"
        or is_only_done(word)
        for word, own in zip(field.words, field.roles, strict=True)
    ]


def _may_end(field: Field, at: int) -> bool:
    """Whether a query may end with a word, by what comes behind it."""
    word = field.words[at]
    if word.function or (_is_number(word) and _counts(field, at)):
        return False
    if leaves_open(field.words, at) or goes_on(field, at):
        return False
    if len(word.text) > 1 or field.cuts[at + 1]:
        return True
    return not (stands_open(word) or is_done(field.words, at))


def _is_number(word: Word) -> bool:
    return word.tag in ("m", "c") or word.text.lower() in _NUMBERS


def _counts(field: Field, at: int) -> bool:
    """Whether a word is a number of what stands behind it, not of what stands before."""
    if field.cuts[at + 1]:
        return False
    if field.words[at].text.lower() in _NUMBERS:
        return True
    if field.words[at].tag == "m" and (field.scripts[at] == "z" or _measures(field.words[at + 1])):
        return True
    return at > 0 and field.words[at - 1].function


def _hangs_on(before: Word, word: Word) -> bool:
    """Whether a lone Chinese character is the rest of what stands before it, where things are
    listed: *霜* of *贴贴霜*, *码* of *加大码*."""
    return (
        _is_lone_noun(word)
        and before.end == word.start
        and script(before) == "z"
        and (before.tag[0] in "nabzj" or (before.tag == "v" and is_thing(word.text)))
        and not before.function
        and chinese_kinds().get(before.text) not in ("whom", "selling")
    )


def _is_lone_noun(word: Word) -> bool:
    return (
        len(word.text) == 1
        and script(word) == "z"
        and word.tag[0] == "n"
        and chinese_kinds().get(word.text) in (None, "thing")
    )


def goes_on(field: Field, at: int) -> bool:
    """Whether a lone Chinese character goes on with the word behind it, where things are listed:
    *葱* of *葱姜蒜*."""
    if field.prose or field.cuts[at + 1] or not _is_lone_noun(field.words[at]):
        return False
    after = field.words[at + 1]
    return not field.inside[at] and after.start == field.words[at].end and _is_lone_noun(after)


def _lists(field: Field, at: int) -> bool:
    """Whether it is a number that says something of what stands before: "12 of them", but not
    "2 in 1"."""
    word, joins = field.words[at], field.words[at + 1 : at + 2]
    return word.tag in "mc" and bool(joins) and joins[0].function and joins[0].key != "in"


def begins_badly(field: Field, at: int) -> bool:
    """Whether no query begins there, whatever follows: with a measure without its number, a time
    without which one, a number of what stands before, or a shop's number for its goods."""
    if field.words[at].tag in ("m", "c"):
        return _lists(field, at) or _is_code(field, at)
    if at == 0 or field.cuts[at]:
        return False
    if not field.prose and _hangs_on(field.words[at - 1], field.words[at]):
        return True
    if field.roles[at] == "t" and field.roles[at - 1] in ("t", "j"):
        return True
    return field.words[at - 1].tag == "m" and _measures(field.words[at])


def _is_code(field: Field, at: int) -> bool:
    word = field.words[at]
    if word.tag != "m" or field.cuts[at + 1] or not _CODE.fullmatch(word.text):
        return False
    after = field.words[at + 1]
    return field.scripts[at + 1] == "z" and after.start == word.end and not _measures(after)


def _measures(word: Word) -> bool:
    return word.tag == "q" or word.key in measures()


def composed(field: Field, found: Sequence[Extent]) -> Iterator[Extent]:
    """Names put together: what a thing is called by one word or two, and before it a word that
    stands further ahead, such as the brand or the one quality that people ask for.

    "Acme K200 silent wireless mouse" holds the acme mouse and the silent mouse. Only in Latin
    script, where the taxonomy knows the thing.
    """
    words, roles, cuts = field.words, field.roles, field.cuts
    for extent in found:
        first, last = extent.first, extent.last
        if (
            extent.shapeless
            or last - first > 1
            or extent.script != "l"
            or roles[last] not in _HEADS
        ):
            continue
        if last > first and not (roles[first] in _HEADS or roles[first] == "Q"):
            continue
        if not cuts[last + 1] and roles[last + 1] in _HEADS and field.known[last + 1]:
            continue
        keys = {word.key for word in words[first : last + 1]}
        for lead in _leads(field, first):
            chars = len(words[lead].text) + 1 + extent.chars
            key = words[lead].key
            if key not in keys and key not in _PREFIXES and chars <= MAX_CHARS:
                yield Extent(first, last, chars, "l", lead)


def _leads(field: Field, first: int) -> Iterator[int]:
    """Which words may be put before a name that begins there: of the same part of the text, with
    no word between that joins; and the first of the field."""
    reached = first
    if first > 1 and _either(field, first - 1) and field.roles[first - 2] in (*_LEADS, "H"):
        yield first - 2
    for lead in range(first - 2, max(-1, first - 2 - LEAD_WORDS), -1):
        if field.cuts[lead + 1] or field.cuts[lead + 2] or field.roles[lead + 1] == "f":
            break
        reached = lead
        if field.roles[lead] in _LEADS:
            yield lead
    if reached > 0 and first > 1 and field.roles[0] == "U":
        yield 0


def _joined(field: Field, lead: int, first: int) -> str:
    if not any(field.cuts[lead + 1 : first + 1]):
        return "in"
    return "or" if lead == first - 2 and _either(field, lead + 1) else "cut"


def _either(field: Field, at: int) -> bool:
    """Whether a slash joins a word to the one before it, of which either goes with the next:
    "DVD/Blu-ray player"."""
    before, word = field.words[at - 1], field.words[at]
    return field.text[before.end : word.start].strip() == "/" and not field.cuts[at + 1]


_PREFIXES = frozenset(("self", "non", "anti", "multi", "semi", "ultra", "extra", "pre", "co"))
"""What says nothing without the word behind it: *self-cleaning litter box*."""
_CODE = re.compile(r"(?!(?:19|20)\d\d$)\d{3,}")
"""Figures that are no year."""
_ABOUT_NOTHING = COMMON - {"n"}
_HEADS = ("H", "B")
_LEADS = ("U", "u", "Q", "B")


def said(field: Field, extent: Extent) -> tuple[Word, ...]:
    """Its words."""
    found = field.words[extent.first : extent.last + 1]
    return found if extent.lead < 0 else (field.words[extent.lead], *found)


def span(field: Field, extent: Extent) -> Span:
    """What stands there, as it was written."""
    first, last, chars, lang, lead, shapeless = extent
    found = field.words[first : last + 1]
    text = field.text[found[0].start : found[-1].end]
    seen = field.seen[first : last + 1]
    least = min(field.counts[first : last + 1])
    begin = first
    made: tuple[str, ...] = ()
    if lead >= 0:
        begin = lead
        made = lead_features(field, extent)
        found = (field.words[lead], *found)
        text = f"{field.words[lead].text} {text}"
        seen = (field.seen[lead], *seen)
    return Span(
        text,
        found,
        (
            *shape_features(lang, len(found), chars),
            *start_features(field, begin, lang),
            *end_features(field, last, lang),
            *made,
            *((SHAPELESS,) if shapeless else ()),
            f"D:{least}:{field.among}",
        ),
        seen,
    )


def spans(video: VideoText, *, any_shape: bool = False) -> Iterator[Span]:
    """Every span of a cleaned video's text that has the shape of a query, field by field, and
    what can be put together of them; with `any_shape` others, too (`extents`)."""
    for field in fields(video):
        found = list(extents(field, any_shape=any_shape))
        for extent in (*found, *composed(field, found)):
            yield span(field, extent)


def says_which(field: Field, at: int) -> bool:
    """Whether a Chinese word stands right before a thing, and may only say which: *电动车* of
    *电动车头盔*."""
    if field.cuts[at + 1] or field.scripts[at] != "z":
        return False
    after = field.words[at + 1]
    return after.start == field.words[at].end and script(after) == "z" and is_thing(after.text)


def variants(found: Sequence[Span], text: frozenset[str], *, asked: bool = True) -> Iterator[Span]:
    """Spans with what a thing is also called in its place. `text` holds the video's match keys;
    without `asked` Chinese ones have none."""
    for one in found:
        if any(word.function for word in one.words):
            continue  # In a sentence a word may mean another thing: "couch to 5k".
        if phrase_script(one.words) == "z":
            if asked:
                yield from _chinese_variants(one)
            continue
        for first, last, called in synonyms(one.words, text):
            before, after = one.words[:first], one.words[last:]
            said = " ".join((*(w.text for w in before), called, *(w.text for w in after)))
            again = words(said)
            seen = (*one.seen[:first], *one.seen[first:last], *one.seen[last:])
            missing = len(again) - len(seen)
            seen = (*seen[:first], *(seen[first],) * missing, *seen[first:])[: len(again)]
            context = (
                *shape_features(phrase_script(again), len(again), len(said)),
                *one.context[2:],
                "made:syn",
            )
            yield Span(said, again, context, seen)


def _chinese_variants(one: Span) -> Iterator[Span]:
    """What people ask for in the place of the thing that a Chinese span names; nothing where that
    says a word twice."""
    for first, last, asked in asked_as(one.words):
        called, behind = (
            "".join([word.text for word in one.words[start:end]])
            for start, end in ((first, last), (last, None))
        )
        before = one.text[: -len(called + behind)]
        said = before + asked + behind
        twice = (
            called in before
            or before[-1:] == asked[0]
            or any(word.text in asked or asked in word.text for word in one.words[:first])
        )
        if twice or one.text != before + called + behind or len(said) > MAX_HAN_CHARS:
            continue
        again = words(said)
        if len(again) > ASKED_WORDS:
            continue
        context = (
            *shape_features("z", len(again), len(said)),
            *one.context[2:],
            ASKED,
            f"{ASKED}:{len(again)}",
        )
        seen = (*one.seen, *(one.seen[-1:] * len(again)))[: len(again)]
        yield Span(said, again, context, seen)


_ASKING = frozenset(
    (
        *("什么", "怎么", "怎么样", "怎样", "怎么办", "如何", "为什么", "为何"),
        *("哪", "哪个", "哪些", "哪里", "哪儿", "哪款", "谁", "几", "多少"),
    )
)
"""Words that make a question of what they stand beside: it says another thing then."""


def signature(found: Sequence[Word]) -> str:
    """Equal for phrases that say the same: order, number, accents and trivial words don't count."""
    keys = {word.key for word in found if not word.function}
    keys = keys - stop_words() or keys or {word.key for word in found}
    keys |= {word.key for word in found} & _ASKING
    if not "".join([word.text for word in found]).isascii() and any(
        script(word) == "z" for word in found
    ):
        # Two segmentations of the same characters are the same thing.
        return "".join(sorted("".join(keys)))
    return " ".join(sorted(keys))
