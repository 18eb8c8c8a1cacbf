"""What a click ranker sees of the candidates of a list, as a table of numbers.

The features speak no language and name no word: how the user puts things is told by what a
candidate shares with their newest queries, what the video is about by what it shares with the
evidence, how it fared by the video's counters. So a ranker learned on one catalogue holds on
another's words. What a query asks for (its base) and how it is put (its style) are told apart
(`onebar.ranking.habits`): ten people's ways of asking for one thing speak for that thing together.

All candidates of a list are described at once, in tables of words: a few numpy operations a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from math import exp, log, log2, nan
from typing import TYPE_CHECKING, NamedTuple

from onebar.evidence.words import words
from onebar.ranking.book import Book
from onebar.ranking.habits import PLAIN, Habits, Style
from onebar.recommending.material import Material
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
_NOTHING = tuple(
    0.0
    if name in ("near", "span", "styled", "sources", "exposures", "taps", "engagements")
    else ABSENT
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
    apart = [habits.apart(one.text) for one in proposals]
    bases: dict[str, int] = {}
    of_base = np.array([bases.setdefault(base, len(bases)) for base, _ in apart], dtype=np.intp)
    shown = sum(one.exposures for one in material.counts)
    tapped = sum(one.clicks for one in material.counts)
    found = np.empty((len(proposals), len(FEATURES)), dtype=np.float32)
    edge = len(OF_QUERY)
    found[:, :edge] = _of_query(proposals, [style for _, style in apart], material, ranker, book)
    if len(proposals):
        named = _named(proposals, of_base, len(bases), material, book, habits, list(bases))
        said = _said(list(bases), named[:, OF_BASE.index("base_beam")], material, habits)
        found[:, edge : edge + len(OF_BASE)] = np.concatenate([named, said], axis=1)[of_base]
    found[:, -len(OF_LIST) :] = (len(material.recent), shown, _rate(tapped, shown))
    return found


def _of_query(
    proposals: Sequence[Proposal],
    styles: Sequence[Style],
    material: Material,
    ranker: Ranker,
    book: Book | None,
) -> NDArray[np.float32]:
    """The columns `OF_QUERY`."""
    import numpy as np

    habits = NO_HABITS if book is None else book.habits
    spans = [one for one in proposals if one.span is not None]
    phrases = iter(ranker.scores([Proposal(one.text, one.words, one.span) for one in spans]))
    counts = {one.query: one for one in material.counts}
    recent = material.recent
    again = {query: at for at, query in reversed(list(enumerate(recent)))}
    chances = habits.chances(recent)
    taken: dict[Style, float] = {}
    for query in recent:
        style = habits.apart(query)[1]
        taken[style] = taken.get(style, 0.0) + 1.0 / len(recent)
    said = {style: log(max(LEAST_CHANCE, chances.get(style, 0.0))) for style in set(styles)}
    found = np.empty((len(proposals), len(OF_QUERY)), dtype=np.float32)
    found[:] = _NOTHING
    column = OF_QUERY.index
    found[:, column("style")] = [said[style] for style in styles]
    found[:, column("style_own")] = (
        [taken.get(style, 0.0) for style in styles] if recent else ABSENT
    )
    found[:, column("plain")] = [style == PLAIN for style in styles]
    found[:, column("characters")] = [len(one.text) for one in proposals]
    if book is not None:
        found[:, column("asked")] = [book.count(one.text) for one in proposals]
        found[:, column("asked")] = np.log2(1 + found[:, column("asked")])
    places: list[int] = []
    values: list[float] = []
    for start, one in enumerate(proposals):
        at, sources = start * len(OF_QUERY), int(one.book is not None)
        if one.beam is not None:
            places += (at, at + 1, at + 2)
            values += (one.beam, one.log_probability, one.behind)
            sources += 1
        if one.anchor is not None:
            places += (at + 3, at + 4, at + 5)
            values += (one.anchor, log2(1 + one.weight), one.near)
            sources += 1
        if one.history is not None:
            places.append(at + 6)
            values.append(one.history)
            sources += 1
        if one.counted is not None:
            places.append(at + 7)
            values.append(one.counted)
            sources += 1
        if one.span is not None:
            places += (at + 8, at + 9)
            values += (1.0, next(phrases))
            sources += 1
        places += (at + 10, at + 11)
        values += (one.styled, sources)
        if one.text in again:
            places.append(at + 13)
            values.append(again[one.text])
        if one.text in counts:
            seen = counts[one.text]
            places += (at + 18, at + 19, at + 20, at + 21)
            rate = _rate(seen.clicks, seen.exposures)
            values += (seen.exposures, seen.clicks, seen.engagements, rate)
    found.ravel()[places] = values
    return found


def _named(
    proposals: Sequence[Proposal],
    of_base: NDArray[np.intp],
    many: int,
    material: Material,
    book: Book | None,
    habits: Habits,
    bases: Sequence[str],
) -> NDArray[np.float32]:
    """The columns of `OF_BASE` on who named each base, (bases, 10): its best rank, the sum of its
    shares, its sources."""
    import numpy as np

    rank, match = [ABSENT] * many, [ABSENT] * many
    beam, anchor, sources = [0.0] * many, [0.0] * many, [0] * many
    exposures, taps = [0.0] * many, [0.0] * many
    for at, one in zip(of_base.tolist(), proposals, strict=True):
        if one.book is not None:
            rank[at], match[at] = one.book, one.match
        if one.beam is not None:
            beam[at] += exp(one.log_probability)
            sources[at] += 1
        if one.anchor is not None:
            anchor[at] = max(anchor[at], log2(1 + one.weight))
            sources[at] += 1
        sources[at] += (one.history is not None) + (one.span is not None)
    mass = sum(beam) or 1.0
    places = {base: at for at, base in enumerate(bases)}
    shown = 0
    for count in material.counts:
        shown += count.exposures
        place = places.get(habits.apart(count.query)[0])
        if place is not None:
            sources[place] += 1
            exposures[place] += count.exposures
            taps[place] += count.clicks
    asked = [ABSENT if book is None else book.base_count(base) for base in bases]
    found = np.empty((many, 10), dtype=np.float32)
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
    # Column 0 is no word: what shorter queries are filled up with.
    columns: dict[str, int] = {}
    for key in chain(chain.from_iterable(said), chain.from_iterable(history)):
        columns.setdefault(key, len(columns) + 1)
    for key in chain(chain.from_iterable(anchors), chain.from_iterable(user.queries)):
        columns.setdefault(key, len(columns) + 1)
    vocabulary = len(columns) + 1
    longest = max(1, *map(len, said))
    words_of = np.zeros((len(bases), longest), dtype=np.intp)
    for at, keys in enumerate(said):
        words_of[at, : len(keys)] = [columns[key] for key in keys]
    length = np.array([max(1, len(keys)) for keys in said], dtype=np.float32)
    there = words_of > 0

    def marked(keys: Sequence[str] | frozenset[str]) -> NDArray[np.float32]:
        row = np.zeros(vocabulary, dtype=np.float32)
        row[[columns[key] for key in keys if key in columns]] = 1.0
        return row

    def weighed(shares: Mapping[str, float]) -> NDArray[np.float32]:
        row = np.zeros(vocabulary, dtype=np.float32)
        for key, share in shares.items():
            row[columns[key]] = share
        return row

    in_anchors = marked(list(chain.from_iterable(anchors)))
    in_history = marked(list(chain.from_iterable(history)))
    table = np.stack(
        [marked(title), marked(summary), in_anchors, in_history, weighed(user.share)], axis=1
    )
    about: NDArray[np.bool_] = np.asarray(table[:, :3].any(axis=1))
    each = table[words_of]  # (bases, longest, 5)
    shares = each[:, :, 4]
    foreign = there & ~about[words_of]

    many = len(user.queries)
    others = [*anchors, *history, *user.queries]
    has = np.zeros((len(bases) + len(others), vocabulary), dtype=np.float32)
    has[np.arange(len(bases))[:, None], words_of] = 1.0
    for at, keys in enumerate(others, len(bases)):
        has[at, [columns[key] for key in keys]] = 1.0
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
