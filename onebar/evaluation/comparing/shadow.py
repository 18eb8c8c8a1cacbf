"""Two models on the same replayed slice, before one replaces the other: what would change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from onebar.evaluation.metrics import Interval, compare
from onebar.evaluation.offpolicy import OffPolicy, off_policy
from onebar.evaluation.outcomes import Outcomes, measure
from onebar.evaluation.predict import Prediction, Predictor
from onebar.triggers import EmptyDatasetError, Trigger

COMPARED = (
    *("hr@1", "hr@{k}", "mrr@{k}", "ed_hr@{k}", "bleu@{k}"),
    *("reject_precision", "reject_recall"),
)
FELL_SILENT = 0.05
"""Share of impressions, newly rejected less no longer rejected, from which a verdict says so."""


class ShadowReport(Struct, frozen=True, kw_only=True):
    """What the new model would change. Shares are of all triggers, 0 to 1."""

    old: str
    new: str
    triggers: int
    clicks: int
    differences: dict[str, Interval]
    """New less old, paired, on the logged clicks and rejects."""
    other_first: float
    """Triggers whose first query is another one."""
    other_list: float
    overlap: float
    """Mean share of the old queries that the new list holds, where the old one had any."""
    now_rejected: float
    no_longer_rejected: float
    old_ms: float
    """Mean time of one prompt."""
    new_ms: float
    taps: OffPolicy
    """What the log says of the taps that both would get."""
    verdict: str


class Kept:
    """A predictor that keeps its answers, and its time."""

    def __init__(self, inner: Predictor) -> None:
        self._inner = inner
        self.answers: list[Prediction] = []
        self.seconds = 0.0

    @property
    def name(self) -> str:
        return self._inner.name

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        started = time.perf_counter()
        found = self._inner.predict(triggers, k)
        self.seconds += time.perf_counter() - started
        self.answers += found
        return found


def shadow(
    old: Predictor,
    new: Predictor,
    triggers: Sequence[Trigger],
    *,
    k: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> ShadowReport:
    """Run both on the triggers (clicks, rejects, and impressions that were shown without a tap).

    Raises `EmptyDatasetError` where none of them showed anything, or none of those without a tap.
    """
    seen = [at for at, trigger in enumerate(triggers) if trigger.shown]
    if not seen:
        raise EmptyDatasetError(
            "no impression of the slice shows what stood in the bar: a shadow evaluation needs the "
            "test part of a log with exposures"
        )
    if all(any(item.clicked for item in triggers[at].shown) for at in seen):
        raise EmptyDatasetError(
            "every impression of the slice was tapped, so how often one is can't be told: a shadow "
            "evaluation needs those without a tap, which only the test part of a dataset keeps"
        )
    kept = Kept(old), Kept(new)
    outcomes: list[Outcomes] = []
    for at, predictor in enumerate(kept):

        def told(done: int, total: int, at: int = at) -> None:
            if progress is not None:
                progress(at * total + done, 2 * total)

        outcomes.append(measure(predictor, triggers, k, progress=told))
    before, after = (predictor.answers for predictor in kept)
    pairs = list(zip(before, after, strict=True))
    many = len(pairs)
    had = [(a.queries, set(b.queries)) for a, b in pairs if a.queries]
    differences = compare(outcomes[0], outcomes[1])
    taps = off_policy(
        [triggers[at] for at in seen],
        [before[at].queries for at in seen],
        [after[at].queries for at in seen],
    )
    hits = differences.get(f"hr@{k}", Interval(0.0, 0.0, 0.0))
    now_rejected = sum(b.rejected and not a.rejected for a, b in pairs) / many
    no_longer_rejected = sum(a.rejected and not b.rejected for a, b in pairs) / many
    return ShadowReport(
        old=old.name,
        new=new.name,
        triggers=many,
        clicks=sum(trigger.kind == "click" for trigger in triggers),
        differences={
            name: differences[name]
            for name in (label.format(k=k) for label in COMPARED)
            if name in differences
        },
        other_first=sum(a.queries[:1] != b.queries[:1] for a, b in pairs) / many,
        other_list=sum(a.queries != b.queries for a, b in pairs) / many,
        overlap=sum(len(b.intersection(a)) / len(a) for a, b in had) / max(1, len(had)),
        now_rejected=now_rejected,
        no_longer_rejected=no_longer_rejected,
        old_ms=1e3 * kept[0].seconds / many,
        new_ms=1e3 * kept[1].seconds / many,
        taps=taps,
        verdict=verdict(hits, taps, now_rejected - no_longer_rejected),
    )


def verdict(hits: Interval, taps: OffPolicy, silenced: float = 0.0) -> str:
    """One line in plain words, never more than the intervals allow.

    `silenced` is the share of impressions that lose their queries, less those that gain some:
    where it is large it is said first, for a silent bar is never tapped.
    """
    said = [f"answers {silenced:.0%} fewer impressions"] if silenced >= FELL_SILENT else []
    said.append(_told("hits on logged clicks", hits))
    if taps.old.conclusive and taps.new.conclusive:
        said.append(_told("estimated taps per impression", taps.per_impression))
        said.append(_told("per looked-at slot", taps.per_look))
    else:
        least = min(taps.old.supported, taps.new.supported)
        said.append(
            f"taps can't be estimated: only {least} of {taps.old.clicks} logged taps were on "
            "queries that both models list often enough"
        )
    return "; ".join(said)


def _told(what: str, difference: Interval) -> str:
    low, high = difference.low, difference.high
    if low > 0:
        return f"{what}: the new model is better"
    if high < 0:
        return f"{what}: the new model is worse"
    return f"{what}: no difference can be told"
