"""What a click ranker sees of a candidate, and the ranker: trees over what is known at the moment.

The features speak no language and name no word: how the user puts things is told by what a
candidate shares with their newest queries, what the video is about by what it shares with the
evidence, how it fared by the video's counters. So a ranker learned on one catalogue holds on
another's words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import exp, log, log2, nan
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from onebar.evidence.words import words
from onebar.ranking.book import Book
from onebar.ranking.overlap import Pairs, overlap, pairs
from onebar.ranking.trees import Trees
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
HABIT = 0.25
"""Share of a user's queries that a word stands in, from which it is a habit."""

FEATURES: tuple[str, ...] = (
    # Who named it.
    *("beam", "log_probability", "behind", "beam_share", "anchor", "anchor_weight", "near"),
    *("history", "span", "phrase", "book", "match", "asked", "sources"),
    # What it says, and of what.
    *("words", "characters", "covered", "in_title", "in_summary", "in_anchors", "in_history"),
    *("foreign", "agreement", "nearest_anchor"),
    # How the user puts things.
    *("queries", "habit_mean", "habit_least", "habit_most", "habit_foreign", "habit_first"),
    *("habit_last", "habit_pairs", "habit_order", "habit_missing", "habit_length"),
    *("nearest_query", "nearest_own", "own_words", "own_missing", "own_order"),
    # How it fared under this video, and the video altogether.
    *("exposures", "taps", "engagements", "tap_rate", "video_exposures", "video_tap_rate"),
)
"""The columns, in their order."""


class Phrase(NamedTuple):
    """A query, taken apart."""

    keys: tuple[str, ...]
    """Of its words that say something, in order; of all where none does."""
    pairs: Pairs


class User(NamedTuple):
    """How a user puts things, by their newest queries."""

    queries: tuple[Phrase, ...]
    share: Mapping[str, float]
    """Of their queries that have a word."""
    first: Mapping[str, float]
    last: Mapping[str, float]
    follows: Mapping[tuple[str, str], float]
    length: float
    """Mean words of a query."""


_NOBODY = User((), {}, {}, {}, {}, 0.0)


@lru_cache(maxsize=32768)
def phrase(text: str) -> Phrase:
    """A query, taken apart; queries come again and again."""
    found = words(text)
    keys = tuple(word.key for word in found if not word.function) or tuple(
        word.key for word in found
    )
    return Phrase(keys, pairs(text))


@lru_cache(maxsize=4096)
def user_of(recent: tuple[str, ...]) -> User:
    """What some newest queries say of who asked them."""
    queries = tuple(phrase(query) for query in recent)
    many = len(queries)
    if not many:
        return _NOBODY

    def shares(names: Counter[str]) -> dict[str, float]:
        return {name: count / many for name, count in names.items()}

    has = Counter(key for one in queries for key in set(one.keys))
    follows = Counter(pair for one in queries for pair in set(pairwise(one.keys)))
    return User(
        queries,
        shares(has),
        shares(Counter(one.keys[0] for one in queries if one.keys)),
        shares(Counter(one.keys[-1] for one in queries if one.keys)),
        {pair: count / many for pair, count in follows.items()},
        sum(len(one.keys) for one in queries) / many,
    )


@lru_cache(maxsize=8192)
def _keys(text: str) -> frozenset[str]:
    return frozenset(word.key for word in words(text) if not word.function)


def known(book: Book, material: Material, most: int) -> list[tuple[str, float]]:
    """The queries of a book that suit the evidence, and are put as the user puts things."""
    evidence: dict[str, float] = {}
    video = material.video
    text = (video.title, video.caption, video.item_title, video.ocr, video.asr)
    told = ((video.summary, SUMMARY), *((anchor.query, SUMMARY) for anchor in material.anchors))
    for said, weight in (*((field, 1.0) for field in text), *told):
        for key in _keys(said):
            evidence[key] = max(weight, evidence.get(key, 0.0))
    return book.find(evidence, user_of(material.recent).share, most)


def describe(
    proposals: Sequence[Proposal], material: Material, ranker: Ranker, book: Book | None = None
) -> NDArray[np.float32]:
    """A row of `FEATURES` for each proposal; what one gets depends on the list it is in. `ranker`
    tells how good a phrase is, whatever else is known, `book` how often it was asked."""
    import numpy as np

    video = material.video
    told = (video.title, video.caption, video.item_title, video.ocr, video.asr)
    title = frozenset[str]().union(*map(_keys, told))
    summary = _keys(video.summary)
    anchors = [phrase(anchor.query) for anchor in material.anchors]
    history = [phrase(query) for query in material.history]
    in_anchors = frozenset(key for one in anchors for key in one.keys)
    in_history = frozenset(key for one in history for key in one.keys)
    about = title | summary | in_anchors
    user = user_of(material.recent)
    habits = {key: share for key, share in user.share.items() if share >= HABIT}
    own = Counter(key for one in history for key in set(one.keys))
    counts = {one.query: one for one in material.counts}
    shown = sum(one.exposures for one in material.counts)
    tapped = sum(one.clicks for one in material.counts)
    video_rate = _rate(tapped, shown)
    phrases = [phrase(one.text) for one in proposals]
    beam = [
        (at, exp(one.log_probability)) for at, one in enumerate(proposals) if one.beam is not None
    ]
    mass = sum(chance for _, chance in beam) or 1.0
    likely = sorted(beam, key=lambda one: -one[1])[:8]
    scores = ranker.scores(proposals)
    best = max(scores, default=0.0)
    rows = []
    for at, (one, said) in enumerate(zip(proposals, phrases, strict=True)):
        keys = said.keys
        many = len(keys) or 1
        said_keys = set(keys)
        habit = [user.share.get(key, 0.0) for key in keys]
        foreign = [key for key in keys if key not in about]
        follows = list(pairwise(keys))
        in_beam = one.beam is not None
        seen = counts.get(one.text)
        backwards = sum(user.follows.get((b, a), 0.0) for a, b in follows)
        forwards = sum(user.follows.get(pair, 0.0) for pair in follows)
        rows.append(
            (
                one.beam if one.beam is not None else ABSENT,
                one.log_probability if in_beam else ABSENT,
                one.behind if in_beam else ABSENT,
                exp(one.log_probability) / mass if in_beam else ABSENT,
                one.anchor if one.anchor is not None else ABSENT,
                log2(1 + one.weight) if one.anchor is not None else ABSENT,
                1.0 if one.near else 0.0,
                one.history if one.history is not None else ABSENT,
                1.0 if one.span is not None else 0.0,
                scores[at] - best,
                one.book if one.book is not None else ABSENT,
                one.match if one.book is not None else ABSENT,
                ABSENT if book is None else log2(1 + book.count(one.text)),
                in_beam + sum(x is not None for x in (one.anchor, one.history, one.span, one.book)),
                many,
                len(one.text),
                one.covered,
                len(said_keys & title) / many,
                len(said_keys & summary) / many,
                len(said_keys & in_anchors) / many,
                len(said_keys & in_history) / many,
                len(foreign),
                sum(
                    chance / mass * overlap(said.pairs, phrases[other].pairs)
                    for other, chance in likely
                ),
                max((overlap(said.pairs, other.pairs) for other in anchors), default=ABSENT),
                len(user.queries),
                sum(habit) / many,
                min(habit, default=0.0),
                max(habit, default=0.0),
                max((user.share.get(key, 0.0) for key in foreign), default=ABSENT),
                user.first.get(keys[0], 0.0) if keys else 0.0,
                user.last.get(keys[-1], 0.0) if keys else 0.0,
                forwards / max(1, len(follows)),
                forwards - backwards,
                sum(share for key, share in habits.items() if key not in said_keys),
                many - user.length if user.queries else ABSENT,
                max((overlap(said.pairs, other.pairs) for other in user.queries), default=ABSENT),
                max((overlap(said.pairs, other.pairs) for other in history), default=ABSENT),
                sum(own[key] for key in said_keys) / len(history) / many if history else ABSENT,
                sum(many for key, many in own.items() if key not in said_keys) / len(history)
                if history
                else ABSENT,
                _order(keys, history),
                seen.exposures if seen else 0.0,
                seen.clicks if seen else 0.0,
                seen.engagements if seen else 0.0,
                _rate(seen.clicks, seen.exposures) if seen else ABSENT,
                shown,
                video_rate,
            )
        )
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(FEATURES))


def _order(keys: Sequence[str], history: Sequence[Phrase]) -> float:
    """Of pairs of words that a candidate shares with the user's queries about the video, how many
    more stand in the same order than in the other, -1 to 1; absent where none is shared."""
    places = {key: at for at, key in enumerate(keys)}
    same = other = 0
    for one in history:
        shared = [places[key] for key in one.keys if key in places]
        for a, b in pairwise(shared):
            same += a < b
            other += a > b
    return (same - other) / (same + other) if same + other else ABSENT


def _rate(clicks: float, exposures: float) -> float:
    return log((clicks + PRIOR_TAPS) / (exposures + PRIOR_EXPOSURES))


class ClickRanker:
    """A `Scorer` learned from what was shown and tapped, or not (`onebar train clicks`)."""

    def __init__(self, trees: Trees, ranker: Ranker, book: Book | None = None) -> None:
        """`ranker` and `book` are those of the checkpoint, part of what the features are made
        from. Raises `TreesError` where the trees were grown on other features."""
        trees.check(FEATURES)
        self._book = book
        self._trees = trees
        self._ranker = ranker
        self.digest = trees.digest
        self.beam = int(trees.settings.get("beam", 0))
        self.variety = float(trees.settings.get("variety", 0.0))

    @classmethod
    def load(cls, path: Path, ranker: Ranker, book: Book | None = None) -> ClickRanker:
        """Raises `TreesError`."""
        return cls(Trees.load(path), ranker, book)

    def scores(self, proposals: Sequence[Proposal], material: Material) -> list[float]:
        """The log of how likely each is tapped where it is looked at, but for a constant."""
        if not proposals:
            return []
        found = self._trees(describe(proposals, material, self._ranker, self._book))
        return [float(score) for score in found]
