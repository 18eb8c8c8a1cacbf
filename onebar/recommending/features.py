"""What a click ranker sees of the candidates of a list, as a table of numbers.

The features speak no language and name no word: how the user puts things is told by what a
candidate shares with their newest queries, what the video is about by what it shares with the
evidence, how it fared by the video's counters. So a ranker learned on one catalogue holds on
another's words. What a query asks for (its base) and how it is put (its style) are told apart
(`onebar.ranking.habits`): ten people's ways of asking for one thing speak for that thing together.

All candidates of a list are described at once, in tables of words: a few numpy operations a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from math import exp, log, log2, nan
from typing import TYPE_CHECKING, NamedTuple

from onebar.evidence.words import Word, words
from onebar.ranking.book import Book
from onebar.ranking.habits import PLAIN, Habits, Style
from onebar.recommending.material import Material
from onebar.recommending.phrases.spans import Span
from onebar.recommending.ranker import Proposal, Ranker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABSENT = nan
"""The value of what is not known: trees send it down a branch of its own."""
PRIOR_TAPS, PRIOR_EXPOSURES = 0.5, 10.0
"""A click rate is smoothed as if a query had been shown so often, and tapped at 5 %."""
SUMMARY = 1.5
"""What a word of M or A counts beside one of T, in finding known queries."""
LEAST_CHANCE = 1e-4
"""Of a style that nobody was seen to take."""
NO_HABITS = Habits((), ())

OF_QUERY: tuple[str, ...] = (
    # Who named it.
    *("beam", "log_probability", "behind", "anchor", "anchor_weight", "near", "history"),
    *("counted", "span", "phrase", "styled", "sources", "asked", "repeated"),
    # How it is put.
    *("style", "style_own", "plain", "characters"),
    # How it fared under this video.
    *("exposures", "taps", "engagements", "tap_rate"),
)
"""Columns that each candidate has its own of."""
OF_BASE: tuple[str, ...] = (
    # Who named it, in whatever style.
    *("base_book", "base_match", "base_asked", "base_beam", "base_anchor", "base_sources"),
    *("base_exposures", "base_taps", "base_rate", "base_share"),
    # What it says, and of what.
    *("words", "in_title", "in_summary", "in_anchors", "in_history", "foreign", "agreement"),
    *("nearest_anchor",),
    # What the user has to do with it.
    *("habit_mean", "habit_least", "habit_foreign", "habit_first", "habit_last", "habit_pairs"),
    *("habit_order", "habit_length", "nearest_query", "nearest_own", "own_words", "own_missing"),
    *("own_order",),
)
"""Columns that candidates share which ask for the same."""
OF_LIST: tuple[str, ...] = ("queries", "video_exposures", "video_tap_rate")
"""Columns that all candidates of a list share."""
FEATURES = (*OF_QUERY, *OF_BASE, *OF_LIST)
"""The columns, in their order."""
_AT = {name: at for at, name in enumerate(OF_QUERY)}


def _columns(first: str, last: str) -> slice:
    return slice(_AT[first], _AT[last] + 1)


_BEAM = _columns("beam", "behind")
_ANCHOR = _columns("anchor", "near")
_STYLE = _columns("style", "plain")
_FARED = _columns("exposures", "tap_rate")
_NOTHING = tuple(
    0.0 if name in ("near", "span", "exposures", "taps", "engagements") else ABSENT
    for name in OF_QUERY
)
"""Of a candidate that nobody named."""


@lru_cache(maxsize=65536)
def keys_in(text: str) -> tuple[str, ...]:
    """The keys of the words that say something, in order; of all where none does."""
    found = words(text)
    return tuple(word.key for word in found if not word.function) or tuple(
        word.key for word in found
    )


@lru_cache(maxsize=8192)
def _keys(text: str) -> frozenset[str]:
    return frozenset(word.key for word in words(text) if not word.function)


class User(NamedTuple):
    """How a user puts things, by their newest queries: of their bases."""

    queries: tuple[tuple[str, ...], ...] = ()
    """The words of each."""
    share: Mapping[str, float] = {}
    """Of them that have a word; so the next ones."""
    first: Mapping[str, float] = {}
    last: Mapping[str, float] = {}
    follows: Mapping[tuple[str, str], float] = {}
    length: float = 0.0
    """Mean words of one."""


@lru_cache(maxsize=4096)
def user_of(recent: tuple[str, ...], habits: Habits = NO_HABITS) -> User:
    """What some newest queries say of who asked them."""
    queries = tuple(keys_in(habits.apart(query)[0]) for query in recent)
    if not queries:
        return User()
    one = 1.0 / len(queries)
    share: dict[str, float] = {}
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    follows: dict[tuple[str, str], float] = {}
    for keys in queries:
        for key in dict.fromkeys(keys):
            share[key] = share.get(key, 0.0) + one
        for pair in dict.fromkeys(pairwise(keys)):
            follows[pair] = follows.get(pair, 0.0) + one
        if keys:
            first[keys[0]] = first.get(keys[0], 0.0) + one
            last[keys[-1]] = last.get(keys[-1], 0.0) + one
    return User(queries, share, first, last, follows, sum(map(len, queries)) * one)


def known(book: Book, material: Material, most: int) -> list[tuple[str, float]]:
    """The bases of a book that suit the evidence, those first that have words of the user's."""
    evidence: dict[str, float] = {}
    told = ((material.video.summary, SUMMARY), *((a.query, SUMMARY) for a in material.anchors))
    for said, weight in (*((field, 1.0) for field in _fields(material)), *told):
        for key in _keys(said):
            evidence[key] = max(weight, evidence.get(key, 0.0))
    return book.find(evidence, user_of(material.recent, book.habits).share, most)


def _fields(material: Material) -> tuple[str, ...]:
    video = material.video
    return (video.title, video.caption, video.item_title, video.ocr, video.asr)


def describe(
    proposals: Sequence[Proposal], material: Material, ranker: Ranker, book: Book | None = None
) -> NDArray[np.float32]:
    """A row of `FEATURES` for each proposal, (n, features); what one gets depends on the list it
    is in. `ranker` tells how good a span of the text is as a phrase, `book` how often a query was
    asked, and what of it is style."""
    import numpy as np

    habits = NO_HABITS if book is None else book.habits
    found = np.empty((len(proposals), len(FEATURES)), dtype=np.float32)
    shown = sum(one.exposures for one in material.counts)
    tapped = sum(one.clicks for one in material.counts)
    found[:, -len(OF_LIST) :] = (len(material.recent), shown, _rate(tapped, shown))
    if not proposals:
        return found
    apart = [habits.apart(one.text) for one in proposals]
    bases: dict[str, int] = {}
    of_base = np.array([bases.setdefault(base, len(bases)) for base, _ in apart], dtype=np.intp)
    table = _Table.of(proposals)
    edge = len(OF_QUERY)
    styles = [style for _, style in apart]
    found[:, :edge] = _of_query(table, styles, material, ranker, book, habits)
    each = np.empty((len(bases), len(OF_BASE)), dtype=np.float32)
    each[:, :_NAMED] = _named(table, of_base, bases, material, book, habits)
    each[:, _NAMED:] = _said(list(bases), each[:, OF_BASE.index("base_beam")], material, habits)
    found[:, edge : edge + len(OF_BASE)] = each[of_base]
    return found


class _Table(NamedTuple):
    """What is looked at of some proposals, by its name in `Proposal`."""

    text: Sequence[str]
    words: Sequence[tuple[Word, ...]]
    span: Sequence[Span | None]
    beam: Sequence[int | None]
    log_probability: Sequence[float]
    behind: Sequence[float]
    anchor: Sequence[int | None]
    weight: Sequence[float]
    near: Sequence[bool]
    history: Sequence[int | None]
    book: Sequence[int | None]
    match: Sequence[float]
    counted: Sequence[int | None]
    styled: Sequence[bool]

    @classmethod
    def of(cls, proposals: Sequence[Proposal]) -> _Table:
        """Of one proposal at least."""
        columns = dict(zip(Proposal._fields, zip(*proposals, strict=True), strict=True))
        return cls(*(columns[name] for name in cls._fields))


def _of_query(
    table: _Table,
    styles: Sequence[Style],
    material: Material,
    ranker: Ranker,
    book: Book | None,
    habits: Habits,
) -> NDArray[np.float32]:
    """The columns `OF_QUERY`."""
    import numpy as np

    texts, recent = table.text, material.recent
    place = dict(zip(texts, range(len(texts)), strict=True))
    found = np.empty((len(texts), len(OF_QUERY)), dtype=np.float32)
    found[:] = _NOTHING
    sources = np.zeros(len(texts), dtype=np.float32)
    for at in _there(table.beam):
        found[at, _BEAM] = table.beam[at], table.log_probability[at], table.behind[at]
        sources[at] += 1
    for at in _there(table.anchor):
        found[at, _ANCHOR] = table.anchor[at], log2(1 + table.weight[at]), table.near[at]
        sources[at] += 1
    for name, ranks in (("history", table.history), ("counted", table.counted)):
        named = _there(ranks)
        found[named, _AT[name]] = [ranks[at] for at in named]
        sources[named] += 1
    spans = _there(table.span)
    found[spans, _AT["span"]] = 1.0
    found[spans, _AT["phrase"]] = ranker.scores(
        [Proposal(texts[at], table.words[at], table.span[at]) for at in spans]
    )
    sources[spans] += 1
    found[:, _AT["styled"]] = table.styled
    sources[_there(table.book)] += 1
    found[:, _AT["sources"]] = sources
    if book is not None:
        asked = np.array(list(map(book.count, texts)), dtype=np.float32)
        found[:, _AT["asked"]] = np.log2(1 + asked)
    for rank, query in reversed(list(enumerate(recent))):
        if query in place:
            found[place[query], _AT["repeated"]] = rank
    chances = habits.chances(recent)
    taken: dict[Style, float] = {}
    for query in recent:
        style = habits.apart(query)[1]
        taken[style] = taken.get(style, 0.0) + 1.0 / len(recent)
    absent = 0.0 if recent else ABSENT
    kinds = {style: at for at, style in enumerate(dict.fromkeys(styles))}
    of_kind = np.array(
        [
            (
                log(max(LEAST_CHANCE, chances.get(style, 0.0))),
                taken.get(style, absent),
                style == PLAIN,
            )
            for style in kinds
        ],
        dtype=np.float32,
    )
    found[:, _STYLE] = of_kind[[kinds[style] for style in styles]]
    found[:, _AT["characters"]] = list(map(len, texts))
    for one in material.counts:
        if one.query in place:
            rate = _rate(one.clicks, one.exposures)
            fared = one.exposures, one.clicks, one.engagements, rate
            found[place[one.query], _FARED] = fared
    return found


def _there(facts: Sequence[object]) -> list[int]:
    """Where something is known."""
    return [at for at, fact in enumerate(facts) if fact is not None]


_NAMED = 10
"""Columns of `OF_BASE` on who named a base."""


def _named(
    table: _Table,
    of_base: NDArray[np.intp],
    bases: Mapping[str, int],
    material: Material,
    book: Book | None,
    habits: Habits,
) -> NDArray[np.float32]:
    """The columns of `OF_BASE` on who named each base, (bases, 10): its best rank, the sum of its
    shares, its sources."""
    import numpy as np

    many = len(bases)
    beam, anchor, sources = [0.0] * many, [0.0] * many, [0] * many
    exposures, taps = [0.0] * many, [0.0] * many
    places = of_base.tolist()
    for at in _there(table.beam):
        beam[places[at]] += exp(table.log_probability[at])
    for at in _there(table.anchor):
        anchor[places[at]] = max(anchor[places[at]], log2(1 + table.weight[at]))
    for named in (table.beam, table.anchor, table.history, table.span):
        for at in _there(named):
            sources[places[at]] += 1
    mass = sum(beam) or 1.0
    shown = 0
    for count in material.counts:
        shown += count.exposures
        place = bases.get(habits.apart(count.query)[0])
        if place is not None:
            sources[place] += 1
            exposures[place] += count.exposures
            taps[place] += count.clicks
    rank, match = [ABSENT] * many, [ABSENT] * many
    for at, known_as, matched in zip(places, table.book, table.match, strict=True):
        if known_as is not None:
            rank[at], match[at] = known_as, matched
    asked = [ABSENT] * many if book is None else list(map(book.base_count, bases))
    found = np.empty((many, _NAMED), dtype=np.float32)
    found[:, :8] = np.array(
        (rank, match, asked, beam, anchor, sources, exposures, taps), dtype=np.float32
    ).T
    found[:, 2] = np.log2(1 + found[:, 2])
    found[:, 3] /= mass
    found[:, 8] = np.log((found[:, 7] + PRIOR_TAPS) / (found[:, 6] + PRIOR_EXPOSURES))
    found[:, 9] = found[:, 6] / shown if shown else ABSENT
    return found


def _said(
    bases: Sequence[str], beam: NDArray[np.float32], material: Material, habits: Habits
) -> NDArray[np.float32]:
    """The other columns of `OF_BASE`: what each base says. `beam` is the generator's share of
    each."""
    import numpy as np

    said = [keys_in(base) for base in bases]
    user = user_of(material.recent, habits)
    anchors = [keys_in(habits.apart(anchor.query)[0]) for anchor in material.anchors]
    history = [keys_in(habits.apart(query)[0]) for query in material.history]
    title = frozenset[str]().union(*map(_keys, _fields(material)))
    summary = _keys(material.video.summary)
    others = [*anchors, *history, *user.queries]
    # Column 0 is no word: what shorter queries are filled up with.
    columns: dict[str, int] = {}
    words_in, sizes_in = _flat(said, columns)
    words_out, sizes_out = _flat(others, columns)
    vocabulary = len(columns) + 1
    longest = max(1, *map(len, said))
    words_of = np.zeros((len(bases), longest), dtype=np.intp)
    words_of[np.arange(longest) < sizes_in[:, None]] = words_in
    length = np.maximum(1, sizes_in).astype(np.float32)
    there = words_of > 0

    def places(keys: Iterable[str]) -> list[int]:
        return [columns[key] for key in keys if key in columns]

    def weighed(shares: Mapping[str, float]) -> NDArray[np.float32]:
        row = np.zeros(vocabulary, dtype=np.float32)
        row[[columns[key] for key in shares]] = list(shares.values())
        return row

    table = np.zeros((vocabulary, 5), dtype=np.float32)
    table[places(title), 0] = 1.0
    table[places(summary), 1] = 1.0
    table[places(chain.from_iterable(anchors)), 2] = 1.0
    table[places(chain.from_iterable(history)), 3] = 1.0
    table[:, 4] = weighed(user.share)
    about: NDArray[np.bool_] = np.asarray(table[:, :3].any(axis=1))
    each = table[words_of]  # (bases, longest, 5)
    shares = each[:, :, 4]
    foreign = there & ~about[words_of]

    many = len(user.queries)
    has = np.zeros((len(bases) + len(others), vocabulary), dtype=np.float32)
    has[np.arange(len(bases))[:, None], words_of] = 1.0
    has[np.repeat(np.arange(len(bases), len(has)), sizes_out), words_out] = 1.0
    has[:, 0] = 0.0
    likely = np.argsort(-beam, kind="stable")[:8]
    likely = likely[beam[likely] > 0]
    compared = np.concatenate([has[likely], has[len(bases) :]])
    sizes = np.maximum(1.0, has[: len(bases)].sum(axis=1)[:, None] + compared.sum(axis=1)[None])
    near = 2.0 * (has[: len(bases)] @ compared.T) / sizes  # (bases, compared)
    edges = np.cumsum([0, len(likely), len(anchors), len(history), many]).tolist()

    def nearest(part: int) -> NDArray[np.float32] | float:
        start, end = edges[part], edges[part + 1]
        return near[:, start:end].max(axis=1) if end > start else ABSENT

    found = np.empty((len(bases), len(OF_BASE) - 10), dtype=np.float32)
    found[:, 0] = length
    found[:, 1:5] = each[:, :, :4].sum(axis=1) / length[:, None]
    found[:, 5] = foreign.sum(axis=1)
    found[:, 6] = near[:, : len(likely)] @ beam[likely] if len(likely) else 0.0
    found[:, 7] = nearest(1)
    found[:, 8] = shares.sum(axis=1) / length
    found[:, 9] = np.where(there, shares, 2.0).min(axis=1)
    found[:, 10] = np.where(foreign, shares, -1.0).max(axis=1)
    first, last = words_of[:, 0], words_of[np.arange(len(bases)), length.astype(np.intp) - 1]
    found[:, 11] = weighed(user.first)[first]
    found[:, 12] = weighed(user.last)[last]
    forwards, backwards = _follows(words_of, user, columns, vocabulary)
    found[:, 13] = forwards / np.maximum(1.0, length - 1)
    found[:, 14] = forwards - backwards
    found[:, 15] = length - user.length if many else ABSENT
    found[:, 16] = nearest(3)
    found[:, 17] = nearest(2)
    if history:
        own = has[len(bases) + len(anchors) :][: len(history)].sum(axis=0)
        shared = (has[: len(bases)] * own).sum(axis=1)
        found[:, 18] = shared / len(history) / length
        found[:, 19] = (own.sum() - shared) / len(history)
    else:
        found[:, 18:20] = ABSENT
    found[:, 20] = _order(words_of, history, columns, vocabulary)
    return found


def _flat(
    lists: Sequence[Sequence[str]], columns: dict[str, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The columns of all words, one list after the other, and how many each has; new words get
    the next columns, from 1."""
    import numpy as np

    flat = list(chain.from_iterable(lists))
    for key in dict.fromkeys(flat):
        columns.setdefault(key, len(columns) + 1)
    places = np.array(list(map(columns.__getitem__, flat)), dtype=np.intp)
    return places, np.array(list(map(len, lists)), dtype=np.intp)


def _follows(
    words_of: NDArray[np.intp], user: User, columns: Mapping[str, int], vocabulary: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How often the pairs of words of each base follow each other in the user's queries, and how
    often the other way round; sums of shares."""
    import numpy as np

    beside = np.zeros(vocabulary * vocabulary, dtype=np.float32)
    for (key, then), share in user.follows.items():
        beside[columns[key] * vocabulary + columns[then]] = share
    return _both_ways(words_of, beside, vocabulary)


def _both_ways(
    words_of: NDArray[np.intp], pairs: NDArray[np.float32], vocabulary: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sums over the neighbouring words of each base of what `pairs` has of them, as they stand and
    the other way round."""
    one, other = words_of[:, :-1], words_of[:, 1:]
    return (
        pairs[one * vocabulary + other].sum(axis=1),
        pairs[other * vocabulary + one].sum(axis=1),
    )


def _order(
    words_of: NDArray[np.intp],
    history: Sequence[Sequence[str]],
    columns: Mapping[str, int],
    vocabulary: int,
) -> NDArray[np.float32]:
    """Of pairs of words that stand side by side in a base, how many more the user's queries about
    the video have in the same order than in the other, -1 to 1; absent where none has both."""
    import numpy as np

    before = np.zeros(vocabulary * vocabulary, dtype=np.float32)
    for keys in history:
        places = [columns[key] for key in keys]
        for at, place in enumerate(places):
            for then in places[at + 1 :]:
                before[place * vocabulary + then] += 1
    same, reverse = _both_ways(words_of, before, vocabulary)
    total = same + reverse
    return np.where(total > 0, (same - reverse) / np.maximum(total, 1), ABSENT).astype(np.float32)


def _rate(clicks: float, exposures: float) -> float:
    return log((clicks + PRIOR_TAPS) / (exposures + PRIOR_EXPOSURES))
