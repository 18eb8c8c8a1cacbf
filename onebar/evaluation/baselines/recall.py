"""Recall of the cascade: several sources of queries that have been seen before."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from msgspec import Struct

from onebar.evaluation.baselines.simple import top
from onebar.recommending.grounding import presentable
from onebar.triggers import Trigger

POPULAR = 12
NEAREST_VIDEOS = 24
FROM_VIDEOS = 24
FROM_QUERIES = 24
HISTORY = 4
CHUNK = 256
ABSENT = math.nan
"""The value of a feature of a source that did not bring the query."""


_presentable = lru_cache(maxsize=100_000)(presentable)


class Recalled(Struct):
    """A query and what its sources say of it: ranks from 0, similarities, NaN where absent."""

    query: str
    anchor_rank: float = ABSENT
    history_rank: float = ABSENT
    popular_rank: float = ABSENT
    video_score: float = ABSENT
    video_rank: float = ABSENT
    query_score: float = ABSENT
    query_rank: float = ABSENT


class Recall:
    """Anchors, the user's history, popular queries of the category, queries that were clicked or
    searched under similar videos, and known queries whose words are those of the video.

    Learnt from the train part only; deterministic.
    """

    def __init__(self, train: Sequence[Trigger]) -> None:
        self.clicks: Counter[str] = Counter()
        self.by_category: defaultdict[str, Counter[str]] = defaultdict(Counter)
        under: defaultdict[str, Counter[str]] = defaultdict(Counter)
        texts: dict[str, str] = {}
        for trigger in train:
            if trigger.kind not in ("click", "search"):
                continue
            query = _presentable(trigger.target)
            if not query:
                continue
            under[trigger.video_id][query] += 1
            texts[trigger.video_id] = document(trigger)
            if trigger.kind == "click":
                self.clicks[query] += 1
                self.by_category[trigger.category][query] += 1
        self._popular = {c: top(counts, POPULAR) for c, counts in self.by_category.items()}
        self._everywhere = top(self.clicks, POPULAR)
        self._under = list(under.values())
        known = Counter[str]()
        for queries in self._under:
            known.update(queries)
        self._known = sorted(known)
        self.vectors, rows = fit_vectors([*texts.values(), *self._known])
        self._videos = rows[: len(texts)].T.tocsr() if texts else None
        self._queries = rows[len(texts) :].T.tocsr() if texts else None

    def __call__(self, triggers: Sequence[Trigger]) -> Iterator[list[Recalled]]:
        """The candidates of each trigger, without order between sources, each query once."""
        for at in range(0, len(triggers), CHUNK):
            chunk = triggers[at : at + CHUNK]
            vectors = self.vectors([document(trigger) for trigger in chunk])
            near = None if self._videos is None else (vectors @ self._videos).toarray()
            match = None if self._queries is None else (vectors @ self._queries).toarray()
            for row, trigger in enumerate(chunk):
                found: dict[str, Recalled] = {}
                self._evidence(trigger, found)
                if near is not None and match is not None:
                    self._from_videos(near[row], found)
                    self._from_queries(match[row], found)
                yield list(found.values())

    def _evidence(self, trigger: Trigger, found: dict[str, Recalled]) -> None:
        for rank, query in enumerate(trigger.anchors):
            _put(found, _presentable(query), "anchor_rank", rank)
        for rank, query in enumerate(trigger.history[:HISTORY]):
            _put(found, _presentable(query), "history_rank", rank)
        popular = self._popular.get(trigger.category, self._everywhere)
        for rank, query in enumerate(popular):
            _put(found, query, "popular_rank", rank)

    def _from_videos(self, similar: Any, found: dict[str, Recalled]) -> None:
        scores: dict[str, float] = defaultdict(float)
        for video in _best(similar, NEAREST_VIDEOS):
            total = self._under[video].total()
            for query, count in self._under[video].items():
                scores[query] += float(similar[video]) ** 2 * count / (total + 1)
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:FROM_VIDEOS]
        for rank, (query, score) in enumerate(ranked):
            _put(found, query, "video_score", score)
            _put(found, query, "video_rank", rank)

    def _from_queries(self, similar: Any, found: dict[str, Recalled]) -> None:
        for rank, at in enumerate(_best(similar, FROM_QUERIES)):
            _put(found, self._known[at], "query_score", float(similar[at]))
            _put(found, self._known[at], "query_rank", rank)


class Vectors:
    """TF-IDF of words, word pairs and character 2- to 4-grams, each half normalised."""

    def __init__(self, parts: Sequence[Any]) -> None:
        """`fit_vectors` makes the fitted parts."""
        self._parts = parts

    def __call__(self, texts: Sequence[str]) -> Any:
        """A sparse row a text."""
        from scipy.sparse import hstack

        return hstack([part.transform(texts) for part in self._parts], format="csr")


def fit_vectors(texts: Sequence[str]) -> tuple[Vectors, Any]:
    """Vectors learnt from these texts, and the texts' own rows."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    enough = len(texts) >= 50  # to tell a rare or a common n-gram
    shared = {
        "sublinear_tf": True,
        "dtype": np.float32,
        "max_df": 0.5 if enough else 1.0,
        "min_df": 2 if enough else 1,
    }
    parts = (
        TfidfVectorizer(ngram_range=(1, 2), max_features=60_000, **shared),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=40_000, **shared),
    )
    rows = hstack([part.fit_transform(texts or ["nothing"]) for part in parts], format="csr")
    return Vectors(parts), rows


def document(trigger: Trigger) -> str:
    """What a video is found by: all its text."""
    return f"{trigger.text} {trigger.summary}"


def _best(scores: Any, most: int) -> list[int]:
    """Places of the highest positive scores, highest first, equal ones by place."""
    some = np.flatnonzero(scores > 0)
    if len(some) > most:
        edge = np.partition(scores[some], -most)[-most]
        some = some[scores[some] >= edge]
    order = np.lexsort((some, -scores[some]))[:most]
    return [int(at) for at in some[order]]


def _put(found: dict[str, Recalled], query: str, name: str, value: float) -> None:
    if not query:
        return
    recalled = found.setdefault(query, Recalled(query))
    if math.isnan(getattr(recalled, name)):
        setattr(recalled, name, float(value))
