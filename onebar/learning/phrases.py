"""Learning a ranker's weights: from what people, or a teacher, asked of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from onebar.gating.risk import shipped_rules
from onebar.ranking.overlap import overlap, pairs
from onebar.recommending.candidates import proposals
from onebar.recommending.material import Material
from onebar.recommending.phrases.composed import COMPOSED
from onebar.recommending.phrases.spans import ASKED, SHAPELESS
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import Feature, Proposal, Ranker, features, source_features
from onebar.records import Candidate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_OVERLAP = 0.3
"""Of character pairs: a query that nothing comes so near to teaches nothing."""


class Example(Struct, frozen=True):
    """What was asked of some evidence, the likeliest first, and what a model had generated for it,
    if one had."""

    material: Material
    queries: tuple[str, ...]
    beam: tuple[Candidate, ...] = ()
    weight: float = 1.0


class _List(Struct, frozen=True):
    features: list[list[Feature]]
    target: list[float]
    """How much each candidate is what was asked; sums to the share of queries that any is."""
    known: list[float]
    """What each is worth by weights that stay."""


def learn_phrases(
    examples: Iterable[Example],
    *,
    l2: float = 1.0,
    least: int = 3,
    any_shape: bool = False,
    trained: Mapping[str, object] | None = None,
) -> Ranker:
    """Weights that tell which words of a text are what people would ask, whatever else is known.
    With `any_shape` spans of any shape are candidates, for people who ask in half sentences
    (`onebar.recommending.phrases.spans.extents`).

    The nearest to what was asked are made the likeliest (list-wise cross-entropy with an L2
    penalty, by L-BFGS); only features that `least` examples have are learned. Deterministic. Needs
    scipy. Raises `ValueError` where no example has a candidate near its queries.
    """
    texts = [_only_text(one) for one in examples]
    shape = {SHAPELESS: 0.0} if any_shape else {}
    weights: dict[str, float] = dict(shape)
    # It takes weights to tell what to compose: some of the texts, spans only, are enough for those.
    for some in (texts[::3], texts):
        taste = Taste(Ranker(weights), shipped_rules())
        lists = [found for one in some if (found := _list(one, taste, features, None)) is not None]
        weights = {COMPOSED: 0.0, ASKED: 0.0, **shape, **_fit(lists, l2=l2, least=least)}
    return Ranker(weights, {"texts": len(lists), "l2": l2, **(trained or {})})


def learn_sources(
    examples: Iterable[Example],
    phrases: Ranker,
    *,
    l2: float = 1.0,
    taste: Taste | None = None,
    trained: Mapping[str, object] | None = None,
) -> Ranker:
    """`phrases` with weights for what the beam, the anchors and the history say of a candidate.
    `taste` says which of the beam's are candidates; None: all that are grounded.

    What a phrase is worth stays, so that what is learned from one platform's (or a simulator's)
    words doesn't make all texts speak its language.
    """
    taste = Taste(phrases, shipped_rules()) if taste is None else replace(taste, ranker=phrases)
    lists = [
        found
        for one in examples
        if (found := _list(one, taste, source_features, phrases)) is not None
    ]
    weights = _fit(lists, l2=l2, least=1)
    facts = {**phrases.trained, "lists": len(lists), **(trained or {})}
    return Ranker({**phrases.weights, **weights}, facts)


def _only_text(example: Example) -> Example:
    return Example(Material(example.material.video), example.queries, (), example.weight)


def _fit(lists: Sequence[_List], *, l2: float, least: int) -> dict[str, float]:
    import numpy as np
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    if not lists:
        raise ValueError("no example has a candidate that is near what was asked")
    counts = Counter(
        name for one in lists for name in {name for row in one.features for name, _ in row}
    )
    names = sorted(name for name, count in counts.items() if count >= least)
    columns = {name: at for at, name in enumerate(names)}
    values: list[float] = []
    indices: list[int] = []
    ends = [0]
    for one in lists:
        for row in one.features:
            for name, value in row:
                if name in columns:
                    indices.append(columns[name])
                    values.append(value)
            ends.append(len(indices))
    matrix = csr_matrix((values, indices, ends), shape=(len(ends) - 1, len(columns)))
    sizes = [len(one.target) for one in lists]
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    group = np.repeat(np.arange(len(lists)), sizes)
    target = np.concatenate([one.target for one in lists])
    known = np.concatenate([one.known for one in lists])
    mass = np.add.reduceat(target, starts)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = matrix @ weights + known
        scores = scores - np.maximum.reduceat(scores, starts)[group]
        logs = scores - np.log(np.add.reduceat(np.exp(scores), starts))[group]
        gradient = matrix.T @ (np.exp(logs) * mass[group] - target) + l2 * weights
        return float(-(target @ logs) + 0.5 * l2 * weights @ weights), gradient

    found = minimize(
        loss, np.zeros(len(columns)), jac=True, method="L-BFGS-B", options={"maxiter": 150}
    )
    return {n: round(float(found.x[at]), 3) for n, at in columns.items() if abs(found.x[at]) > 5e-3}


def _list(
    example: Example,
    taste: Taste,
    describe: Callable[[Proposal], list[Feature]],
    phrases: Ranker | None,
) -> _List | None:
    candidates = proposals(example.material, example.beam, taste)
    target = _target([candidate.text for candidate in candidates], example.queries)
    if not any(target):
        return None
    known = [0.0] * len(candidates) if phrases is None else phrases.scores(candidates)
    return _List([describe(one) for one in candidates], [example.weight * x for x in target], known)


def _target(texts: Sequence[str], queries: Sequence[str]) -> list[float]:
    """Each query's share, the first's the greatest, goes to the candidates nearest to it, most of
    it to the nearest."""
    said = [pairs(text) for text in texts]
    shares = [1 / (1 + at) ** 0.5 for at in range(len(queries))]
    total = [0.0] * len(texts)
    for query, importance in zip(queries, shares, strict=True):
        wanted = pairs(query)
        near = [overlap(own, wanted) for own in said]
        best = max(near, default=0.0)
        if best < LEAST_OVERLAP:
            continue
        close = [
            1.0 if one >= best - 1e-9 else 0.5 * (one / best) ** 8 if one > 0.75 * best else 0.0
            for one in near
        ]
        scale = importance / sum(shares) / sum(close)
        total = [before + scale * one for before, one in zip(total, close, strict=True)]
    return total
