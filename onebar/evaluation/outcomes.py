"""Outcomes: what one predictor did on each trigger, as columns. Metrics are means over them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from onebar.errors import OneBarError
from onebar.evaluation.bars import diversity, hung_f1, logged_taps, references, repeats
from onebar.evaluation.predict import Prediction, Predictor
from onebar.evidence.text import REJECT, normalize_query
from onebar.triggers import Trigger

RelevanceGrade = Callable[[str, str], int]
"""Grade 0 to 3 of (video_id, query); raises KeyError for a video it does not know."""
Closeness = Callable[[Sequence[Trigger], Sequence[Sequence[str]]], Sequence[float]]
"""Mean cosine of each trigger and the queries it was answered with; NaN where there are none."""
TapChances = Callable[[str, str, Sequence[str]], Sequence[float]]
"""How likely each query of a bar, given (video_id, user_id), is tapped where none before it was, by
a simulator's hidden truth; raises KeyError for a video or a user it does not know."""
Progress = Callable[[int, int], None]
"""Told how many triggers are done, of how many."""

EDIT_DISTANCE = 2
GOOD = 3
"""The grade of relevance from which a query counts as good."""
CHUNK = 256

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


class OutcomesError(OneBarError, ValueError):
    """Outcomes that can't be read or do not belong together."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One row a trigger; all arrays are of one length.

    Target metrics (`rank`, `ed_hit`, `bleu`) mean something where `has_target`; elsewhere they
    are 0. `relevance`, `good` and `closeness` are NaN where nobody was asked or no query was
    given.
    """

    name: str
    k: int
    trigger_id: NDArray[np.str_]
    user: NDArray[np.int64]
    """Index of the user, for clustering; a trigger without a user is one of its own."""
    is_reject: NDArray[np.bool_]
    has_target: NDArray[np.bool_]
    rank: NDArray[np.int64]
    """Place of the target among the first k, from 1; 0 is a miss."""
    ed_hit: NDArray[np.bool_]
    """Some query of the first k is within `EDIT_DISTANCE` of the target."""
    bleu: NDArray[np.float64]
    """Sentence BLEU of the best of the first k, 0 to 1."""
    rejected: NDArray[np.bool_]
    count: NDArray[np.int64]
    """Queries given, 0 to k."""
    first: NDArray[np.str_]
    """The first query, empty where none was given."""
    relevance: NDArray[np.float64]
    """Mean grade of the queries given, 0 to 3."""
    good: NDArray[np.float64]
    """Share of the queries given with a grade of 3."""
    closeness: NDArray[np.float64]
    hung_f1: NDArray[np.float64]
    """CTR-HungF1 (`onebar.evaluation.bars`), 0 to 1."""
    diversity: NDArray[np.float64]
    """1 less the mean overlap of two queries given; NaN where there are fewer than two."""
    repeats: NDArray[np.float64]
    """Queries given that say what one before them says; NaN where none was given."""
    true_first: NDArray[np.float64]
    """How likely the first query is tapped by the hidden truth; NaN where nobody knows it."""
    true_bar: NDArray[np.float64]
    """How likely any of them is."""
    ips_taps: NDArray[np.float64]
    """Logged taps on queries given, each weighed e(rank)/e(position); NaN where the trigger showed
    no bar, or the propensities e are not known."""
    ips_looks: NDArray[np.float64]
    """Looks at the logged queries that are given, weighed alike."""
    given: NDArray[np.str_]
    """The queries given, a line each."""
    slices: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Rows by the name of a slice."""

    def __len__(self) -> int:
        return len(self.rank)

    def with_slices(self, slices: dict[str, NDArray[np.bool_]]) -> Outcomes:
        return replace(self, slices=dict(slices))

    def save(self, path: Path) -> None:
        """Write `path`.npz, and `path`.json last: without it there are no outcomes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in _COLUMNS}
        names = list(self.slices)
        arrays |= {f"slice_{i}": self.slices[name] for i, name in enumerate(names)}
        np.savez_compressed(_beside(path, ".npz"), **arrays)
        card = {"name": self.name, "k": self.k, "rows": len(self), "slices": names}
        _beside(path, ".json").write_text(json.dumps(card, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """What `save` wrote. Raises `OutcomesError`."""
        try:
            card = json.loads(_beside(path, ".json").read_text(encoding="utf-8"))
            with np.load(_beside(path, ".npz"), allow_pickle=False) as arrays:
                columns = {name: arrays[name] for name in _COLUMNS}
                names = enumerate(card["slices"])
                slices = {name: arrays[f"slice_{i}"] for i, name in names}
            return cls(name=card["name"], k=card["k"], slices=slices, **columns)
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise OutcomesError(f"{path} holds no outcomes ({error}): measure again") from None


_COLUMNS = tuple(
    name for name in Outcomes.__dataclass_fields__ if name not in ("name", "k", "slices")
)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def measure(
    predictor: Predictor,
    triggers: Sequence[Trigger],
    k: int = 8,
    *,
    relevance: RelevanceGrade | None = None,
    closeness: Closeness | None = None,
    taps: TapChances | None = None,
    propensity: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Outcomes:
    """Ask the predictor about every trigger and compare with what was clicked.

    A target counts where there is one and it is not `[REJECT]`. Queries are normalised and each
    counted once before they are compared. `propensity` is how likely a place of the logged bars is
    looked at, the first place's 1 (`onebar.evaluation.offpolicy.Examination`).
    """
    score = _Scorer(relevance, taps, propensity)
    rows: list[tuple[Any, ...]] = []
    close: list[float] = []
    for at in range(0, len(triggers), CHUNK):
        chunk = triggers[at : at + CHUNK]
        answers = predictor.predict(chunk, k)
        if len(answers) != len(chunk):
            raise OutcomesError(
                f"{predictor.name} gave {len(answers)} predictions for {len(chunk)} triggers"
            )
        queries = [_queries(answer, k) for answer in answers]
        for trigger, answer, given in zip(chunk, answers, queries, strict=True):
            rows.append(score(trigger, given, rejected=answer.rejected))
        close += [math.nan] * len(chunk) if closeness is None else closeness(chunk, queries)
        if progress is not None:
            progress(min(at + CHUNK, len(triggers)), len(triggers))
    columns = list(zip(*rows, strict=True)) or [()] * len(_SCORED)
    arrays: dict[str, Any] = {
        name: np.array(column, dtype=dtype)
        for (name, dtype), column in zip(_SCORED.items(), columns, strict=True)
    }
    return Outcomes(
        name=predictor.name,
        k=k,
        trigger_id=np.array([t.trigger_id for t in triggers], dtype=np.str_),
        user=_user_index(triggers),
        closeness=np.array(close, dtype=np.float64),
        **arrays,
    )


_SCORED: dict[str, Any] = {
    "is_reject": np.bool_,
    "has_target": np.bool_,
    "rank": np.int64,
    "ed_hit": np.bool_,
    "bleu": np.float64,
    "rejected": np.bool_,
    "count": np.int64,
    "first": np.str_,
    "relevance": np.float64,
    "good": np.float64,
    "hung_f1": np.float64,
    "diversity": np.float64,
    "repeats": np.float64,
    "true_first": np.float64,
    "true_bar": np.float64,
    "ips_taps": np.float64,
    "ips_looks": np.float64,
    "given": np.str_,
}


class _Scorer:
    """The row of one trigger, in the order of `_SCORED`."""

    def __init__(
        self,
        relevance: RelevanceGrade | None,
        taps: TapChances | None,
        propensity: Sequence[float] | None,
    ) -> None:
        from rapidfuzz.distance import Levenshtein
        from sacrebleu.metrics import BLEU

        self._distance = Levenshtein.distance
        self._words = BLEU(effective_order=True, tokenize="13a")
        self._chars = BLEU(effective_order=True, tokenize="char")
        self._relevance = relevance
        self._taps = taps
        self._propensity = propensity

    def __call__(
        self, trigger: Trigger, queries: tuple[str, ...], *, rejected: bool
    ) -> tuple[Any, ...]:
        target = "" if trigger.target == REJECT else normalize_query(trigger.target)
        rank, near, bleu = 0, False, 0.0
        if target:
            rank = queries.index(target) + 1 if target in queries else 0
            near = rank > 0 or any(self._near(query, target) for query in queries)
            bleu = 1.0 if rank else max((self.bleu(query, target) for query in queries), default=0)
        mean, good = self._grades(trigger.video_id, queries)
        first = queries[0] if queries else ""
        return (
            *(trigger.kind == "reject", bool(target), rank, near, bleu),
            *(rejected, len(queries), first, mean, good),
            hung_f1(queries, references(trigger)) if target else 0.0,
            *(diversity(queries), repeats(queries), *self._true(trigger, queries)),
            *logged_taps(trigger, queries, self._propensity),
            "\n".join(queries),
        )

    def _true(self, trigger: Trigger, queries: tuple[str, ...]) -> tuple[float, float]:
        if self._taps is None or trigger.kind == "reject":
            return math.nan, math.nan
        try:
            chances = self._taps(trigger.video_id, trigger.user_id, queries)
        except KeyError:
            return math.nan, math.nan
        left = math.prod(1.0 - chance for chance in chances)
        return (chances[0] if chances else 0.0), 1.0 - left

    def _near(self, query: str, target: str) -> bool:
        return self._distance(query, target, score_cutoff=EDIT_DISTANCE) <= EDIT_DISTANCE

    def bleu(self, query: str, target: str) -> float:
        metric = self._chars if _CJK.search(target) else self._words
        return float(metric.sentence_score(query, [target]).score) / 100.0

    def _grades(self, video_id: str, queries: tuple[str, ...]) -> tuple[float, float]:
        if self._relevance is None or not queries:
            return math.nan, math.nan
        try:
            grades = [self._relevance(video_id, query) for query in queries]
        except KeyError:
            return math.nan, math.nan
        return sum(grades) / len(grades), sum(g >= GOOD for g in grades) / len(grades)


def _queries(prediction: Prediction, k: int) -> tuple[str, ...]:
    if prediction.rejected:
        return ()
    normal = (normalize_query(query) for query in prediction.queries)
    return tuple(dict.fromkeys(query for query in normal if query))[:k]


def _user_index(triggers: Sequence[Trigger]) -> NDArray[np.int64]:
    index: dict[str, int] = {}
    keys = (f"u{t.user_id}" if t.user_id else f"t{number}" for number, t in enumerate(triggers))
    return np.array([index.setdefault(key, len(index)) for key in keys], dtype=np.int64)
