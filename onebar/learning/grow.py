"""Growing the trees of a click ranker, and telling on held-out impressions what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from onebar.learning.exposures import BAR, NOT_SHOWN, Rows
from onebar.ranking.trees import Trees
from onebar.recommending.features import FEATURES
from onebar.recommending.variety import varied

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLIP = 10.0
"""Largest weight of a tap at a place that is hardly looked at."""


class GrowConfig(Struct, frozen=True, kw_only=True):
    """Gradient boosting (LightGBM), and what its examples count."""

    rounds: int = 400
    """Most trees; how many is told by the held-out part."""
    patience: int = 20
    """Rounds without a better one on the held-out part, after which growing ends."""
    learning_rate: float = 0.12
    leaves: int = 16
    least_rows: int = 40
    """In a leaf."""
    l2: float = 2.0
    held_out: float = 0.25
    """The last share of the impressions, which growing is told by."""
    unshown: float = 0.1
    """What a candidate that did not stand in the bar counts as one that nobody wants: 1 as much as
    one that was looked at and passed over, 0 not at all."""
    variety: float = 0.5
    """How much less a candidate is worth in a bar that has one like it, 0 to 1
    (`onebar.recommending.variety`)."""
    seed: int = 0


class Grown(Struct, frozen=True):
    """LightGBM's model as plain data, and what was found."""

    model: dict[str, Any]
    facts: dict[str, Any]


def weights_of(
    rows: Rows, counts: Sequence[float], propensity: NDArray[np.float64], unshown: float
) -> NDArray[np.float64]:
    """What each row counts, (n,): inverse-propensity weights, times what its impression counts.

    A tap at a place that is looked at with probability e counts 1/e, so that the odds that are
    learned are those of a query that is looked at (Joachims et al. 2017); what was shown and not
    tapped counts 1. Where a place is likely not looked at that is too much, by the share of the
    taps among it, which is small.
    """
    import numpy as np

    place = np.clip(rows.position, 0, len(propensity) - 1)
    inverse = np.minimum(CLIP, 1.0 / np.maximum(propensity[place], 1e-6))
    shown = np.where(rows.tapped, inverse, 1.0)
    found = np.where(rows.position == NOT_SHOWN, unshown, shown)
    return np.asarray(found * np.asarray(counts)[rows.impression])


def grow(
    rows: Rows,
    counts: Sequence[float],
    propensity: NDArray[np.float64],
    config: GrowConfig,
    *,
    former: Trees | None = None,
) -> Grown:
    """Trees whose sum is the log-odds of a tap, where it is looked at. `counts` is what each
    impression counts; what `former` trees would make of the held-out ones is told beside (`former`
    in what is found)."""
    import lightgbm
    import numpy as np

    weight = weights_of(rows, counts, propensity, config.unshown)
    numbers = np.unique(rows.impression)
    edge = numbers[int(len(numbers) * (1 - config.held_out))]
    learnt, held = rows.impression < edge, rows.impression >= edge
    use = weight > 0
    parameters = {
        "objective": "binary",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.least_rows,
        "lambda_l2": config.l2,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "seed": config.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }

    def data(mask: NDArray[np.bool_], reference: Any = None) -> Any:
        return lightgbm.Dataset(
            rows.features[mask],
            rows.tapped[mask].astype(np.int8),
            weight=weight[mask],
            feature_name=list(FEATURES),
            reference=reference,
            free_raw_data=False,
        )

    train = data(learnt & use)
    booster = lightgbm.train(
        parameters,
        train,
        num_boost_round=config.rounds,
        valid_sets=[data(held & use, train)],
        callbacks=[lightgbm.early_stopping(config.patience, verbose=False)],
    )
    best = max(1, booster.best_iteration)
    gain = booster.feature_importance("gain")
    order = np.argsort(-gain)[:12]
    scores = np.asarray(booster.predict(rows.features[held], num_iteration=best, raw_score=True))
    found = {
        "trees": best,
        "rows": int((learnt & use).sum()),
        "loss": round(float(booster.best_score["valid_0"]["binary_logloss"]), 5),
        "gain": {FEATURES[at]: round(float(gain[at] / gain.sum()), 3) for at in order},
        "held_out": told_by(rows, held, scores, propensity, config.variety),
        **({} if former is None else {"former": of_former(former, rows, held, propensity)}),
        "settings": {name: getattr(config, name) for name in GrowConfig.__struct_fields__},
    }
    whole = lightgbm.train(
        parameters, data(use), num_boost_round=round(best / (1 - config.held_out))
    )
    return Grown(whole.dump_model(), found)


def of_former(
    trees: Trees, rows: Rows, held: NDArray[np.bool_], propensity: NDArray[np.float64]
) -> dict[str, float]:
    """What held-out impressions say of the bars of other trees."""
    variety = float(trees.settings.get("variety", 0.0))
    return told_by(rows, held, trees(rows.features[held]), propensity, variety)


def told_by(
    rows: Rows,
    held: NDArray[np.bool_],
    scores: NDArray[np.float64],
    propensity: NDArray[np.float64],
    variety: float,
) -> dict[str, float]:
    """What held-out impressions say of the ranker's bars, and (`before`) of those by what the
    checkpoint had: hits on clicks, and taps a tapped bar (IPS)."""
    import numpy as np

    impression, text, target = rows.impression[held], rows.text[held], rows.target[held]
    position, before = rows.position[held], rows.before[held]
    tapped, sourced = rows.tapped[held], rows.sourced[held]
    found = dict.fromkeys(("hr@1", "hr@8", "taps", "before hr@8", "before taps", "reached"), 0.0)
    clicks = bars = 0
    starts = np.flatnonzero(np.diff(impression, prepend=-1))
    last = len(propensity) - 1
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(impression)], strict=True):
        block = np.arange(start, end)
        tap = block[tapped[block]]
        if not len(tap):
            continue
        bars += 1
        pool = block[sourced[block]]
        clicked = bool(target[tap[0]])
        clicks += clicked
        wish = str(text[tap[0]])
        texts = [str(one) for one in text[pool]]
        bar = varied(texts, scores[pool].tolist(), BAR, variety)
        ranks = [at for at, one in enumerate(bar) if texts[one] == wish]
        for name, rank in (
            ("", ranks[0] if ranks else NOT_SHOWN),
            ("before ", int(before[tap[0]])),
        ):
            if rank == NOT_SHOWN:
                continue
            looked = propensity[min(rank, last)] / max(1e-6, propensity[position[tap[0]]])
            found[f"{name}taps"] += min(CLIP, float(looked))
            found[f"{name}hr@8"] += clicked
            if not name:
                found["hr@1"] += clicked and rank == 0
        found["reached"] += clicked and wish in texts
    many = {name: bars if name.endswith("taps") else clicks for name in found}
    return {
        "tapped bars": bars,
        "clicks": clicks,
        **{name: round(total / max(1, many[name]), 4) for name, total in found.items()},
    }
