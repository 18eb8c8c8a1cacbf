"""A cascade as a peer: recall, filter, rank, all learnt from the train part's log.

What a team without a generator would build: it can only show queries that somebody wrote
before. The ranker learns on the last part of the train time with a recall that has only seen
what came before, as it will be when it answers; then recall is built again from all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebar.evaluation.baselines.recall import Recall, Recalled, document, fit_vectors
from onebar.evaluation.predict import Prediction
from onebar.evidence.evidence import terms
from onebar.triggers import EmptyDatasetError, Trigger

RANKED_SHARE = 0.2
"""The last part of the train clicks, that the ranker learns from."""
MOST_RANKED = 20_000
NEGATIVES = 24
"""Other candidates of a trigger the ranker learns from, those that were shown first."""
MOST_KEPT = 20_000
"""Triggers without a rejection that the rejecting model learns from."""
SEED = 7

_terms = lru_cache(maxsize=100_000)(terms)


class Cascade:
    """Recall (`onebar.evaluation.baselines.recall`), then gradient-boosted trees, after a linear
    model that rejects. Deterministic."""

    name = "cascade"

    def __init__(self, train: Sequence[Trigger]) -> None:
        """Raises `EmptyDatasetError` where no click is among the triggers."""
        clicks = [trigger for trigger in train if trigger.kind == "click"]
        if not clicks:
            raise EmptyDatasetError(
                "the train part has no clicks, which the cascade learns from: make the dataset "
                "from a longer log"
            )
        edge = clicks[int(len(clicks) * (1 - RANKED_SHARE))].ts
        before = [trigger for trigger in train if trigger.ts < edge]
        after = [trigger for trigger in clicks if trigger.ts >= edge]
        rng = np.random.default_rng(SEED)
        if len(after) > MOST_RANKED:
            picked = np.sort(rng.choice(len(after), MOST_RANKED, replace=False))
            after = [after[at] for at in picked]
        self._recall = Recall(before)
        self._ranker = self._fit_ranker(after, rng)
        self._recall = Recall(train)
        self._rejecter = Rejecter(train, rng)

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        recalled = list(self._recall(triggers))
        scores = self._scores(triggers, recalled)
        found = []
        for candidates, reject in zip(recalled, self._rejecter(triggers), strict=True):
            own = [next(scores) for _ in candidates]
            order = sorted(range(len(own)), key=lambda at: (-own[at], candidates[at].query))
            queries = () if reject else tuple(candidates[at].query for at in order[:k])
            found.append(Prediction(queries, rejected=bool(reject)))
        return found

    def _scores(
        self, triggers: Sequence[Trigger], recalled: Sequence[list[Recalled]]
    ) -> Iterator[float]:
        """Of all candidates of all triggers, in a row."""
        if self._ranker is None:
            return (-_rank_sum(candidate) for each in recalled for candidate in each)
        pairs = zip(triggers, recalled, strict=True)
        rows = [features(self._recall, trigger, each) for trigger, each in pairs if each]
        if not rows:
            return iter(())
        with one_thread():
            chances = self._ranker.predict_proba(np.concatenate(rows))[:, 1]
        return iter(chances.tolist())

    def _fit_ranker(self, triggers: Sequence[Trigger], rng: np.random.Generator) -> Any:
        """A model of which candidate is clicked; None where nothing clicked was recalled.

        Triggers whose click was not recalled teach nothing about order and are left out.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        rows: list[NDArray[np.float64]] = []
        clicked: list[bool] = []
        for trigger, candidates in zip(triggers, self._recall(triggers), strict=True):
            shown = {query.query for query in trigger.shown}
            right = [c for c in candidates if c.query == trigger.target]
            if not right:
                continue
            seen = [c for c in candidates if c.query in shown and c.query != trigger.target]
            rest = [c for c in candidates if c.query not in shown and c.query != trigger.target]
            few = max(0, min(len(rest), NEGATIVES - len(seen)))
            seen += [rest[at] for at in rng.permutation(len(rest))[:few]]
            rows.append(features(self._recall, trigger, [*right, *seen]))
            clicked += [True] + [False] * len(seen)
        if not rows or all(clicked):
            return None
        model = HistGradientBoostingClassifier(
            max_iter=200,
            learning_rate=0.08,
            max_leaf_nodes=31,
            min_samples_leaf=min(40, max(1, len(clicked) // 20)),
            l2_regularization=1.0,
            early_stopping=False,
            random_state=SEED,
        )
        with one_thread():
            return model.fit(np.concatenate(rows), np.array(clicked))


class Rejecter:
    """A linear model over a video's text that says where no query may be shown."""

    def __init__(self, train: Sequence[Trigger], rng: np.random.Generator) -> None:
        from sklearn.linear_model import LogisticRegression

        refused = [t for t in train if t.kind == "reject"]
        others = [t for t in train if t.kind != "reject"]
        self._model = None
        if not refused or not others:
            return
        few = min(len(others), MOST_KEPT)
        kept = [others[at] for at in np.sort(rng.choice(len(others), few, replace=False))]
        weights = [1.0] * len(refused) + [len(others) / few] * few
        texts = [document(t) for t in (*refused, *kept)]
        self._vectors, rows = fit_vectors(texts)
        model = LogisticRegression(C=30.0, solver="liblinear", random_state=SEED)
        model.fit(rows, [1] * len(refused) + [0] * few, sample_weight=weights)
        self._model = model

    def __call__(self, triggers: Sequence[Trigger]) -> NDArray[np.bool_]:
        """Whether each is rejected."""
        if self._model is None or not triggers:
            return np.zeros(len(triggers), dtype=np.bool_)
        chance = self._model.predict_proba(self._vectors([document(t) for t in triggers]))
        return np.asarray(chance[:, 1] > 0.5)


def features(
    recall: Recall, trigger: Trigger, candidates: Sequence[Recalled]
) -> NDArray[np.float64]:
    """A row a candidate; nothing of the trigger's outcome is in it."""
    text, summary = terms(trigger.text), terms(trigger.summary)
    anchors: frozenset[str] = frozenset().union(*map(_terms, trigger.anchors))
    history: frozenset[str] = frozenset().union(*map(_terms, trigger.history))
    context = (
        float(len(trigger.anchors)),
        float(len(trigger.history)),
        math.log1p(trigger.video_behaviors),
        float(bool(trigger.summary)),
    )
    of_category: Mapping[str, int] = recall.by_category.get(trigger.category, {})
    rows = []
    for c in candidates:
        words = _terms(c.query)
        many = max(1, len(words))
        told = words & (text | summary | anchors)
        rows.append(
            (
                *(c.anchor_rank, c.history_rank, c.popular_rank),
                *(c.video_score, c.video_rank, c.query_score, c.query_rank),
                math.log1p(recall.clicks[c.query]),
                math.log1p(of_category.get(c.query, 0)),
                len(words & text) / many,
                len(words & summary) / many,
                len(words & anchors) / many,
                len(words & history) / many,
                len(told) / many,
                float(len((words & history) - text - summary)),
                float(len(words - text - summary - anchors - history)),
                float(many),
                float(len(c.query)),
                *context,
            )
        )
    # A number that no source gives: the trees can't bin a column that is NaN throughout.
    return np.nan_to_num(np.array(rows, dtype=np.float64), nan=-1.0)


def one_thread() -> Any:
    """A context in which OpenMP has one thread: on cores that others use too, the trees' threads
    wait for each other much longer than they work."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="openmp")


def _rank_sum(candidate: Recalled) -> float:
    """Order without a ranker: the sum of ranks in three sources, 32 for each that lacks it."""
    ranks = (candidate.anchor_rank, candidate.video_rank, candidate.query_rank)
    return sum(32.0 if math.isnan(rank) else rank for rank in ranks)
