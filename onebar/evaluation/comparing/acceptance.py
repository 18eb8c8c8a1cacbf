"""Whether a candidate may take the place of the model that serves: both on one replayed slice.

What is asked, each with a bound that can be set: do users tap less (IPS on the log, else the hits
on its clicks), does the bar fall silent, does it speak where it must not, does it speak another
language than the video, is it about what the video is about, is it slow. One no is a no.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from onebar.evaluation.comparing.shadow import Kept, ShadowReport, shadow
from onebar.evaluation.metrics import Interval
from onebar.evaluation.predict import Prediction, Predictor
from onebar.evidence.words import words
from onebar.recommending.grounding import Ground
from onebar.triggers import Trigger

SLACK_MS = 1.0
"""A prompt may take so much longer whatever it took."""


class Bounds(Struct, frozen=True):
    """How much worse a candidate may be. All but `latency` are differences, new less old."""

    taps: float = 0.05
    """Part of the taps an impression (IPS) that may go. Where they can't be estimated: of HR."""
    rejects: float = 0.02
    """Share of impressions that lose their queries, less those that gain some."""
    unsafe: float = 0.0
    """Share of the videos that must carry no query that get one."""
    language: float = 0.01
    """Share of queries in a script that the evidence is not in."""
    grounding: float = 0.02
    """Share of a query's words that the evidence has, or the user's newest queries, on average."""
    latency: float = 1.5
    """Times that a prompt may take what it took."""


class Check(Struct, frozen=True):
    """One question: what it was for the old and the new model, what was allowed, and the answer in
    words. NaN where there was nothing to count."""

    passed: bool
    old: float
    new: float
    bound: float
    reason: str


class Acceptance(Struct, frozen=True):
    """`accepted` where every check passed; `reasons` has one line for each that did not."""

    candidate: str
    current: str
    accepted: bool
    reasons: tuple[str, ...]
    checks: dict[str, Check]
    shadow: ShadowReport


def accept(
    current: Predictor,
    candidate: Predictor,
    triggers: Sequence[Trigger],
    *,
    bounds: Bounds | None = None,
    k: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Acceptance:
    """Run both on the triggers (clicks, rejects, and impressions that were shown without a tap) and
    ask. Raises `EmptyDatasetError` as `shadow` does."""
    bounds = bounds or Bounds()
    old, new = Kept(current), Kept(candidate)
    report = shadow(old, new, triggers, k=k, progress=progress)
    before, after = old.answers, new.answers
    grounds = [Ground(_texts(trigger)) for trigger in triggers]
    # A click ranker puts things as the user puts them, in words of whatever they asked before.
    known = [Ground((*_texts(trigger), *trigger.recent)) for trigger in triggers]
    checks = {
        "taps": _taps(report, bounds.taps, k),
        "rejects": _more(
            "impressions without a query",
            *(_silent(triggers, before), _silent(triggers, after), bounds.rejects),
        ),
        "unsafe": _more(
            "videos that must carry none but have a query",
            *(_unsafe(triggers, before), _unsafe(triggers, after), bounds.unsafe),
        ),
        "language": _more(
            "queries in another script than the video",
            *(_foreign(grounds, before), _foreign(grounds, after), bounds.language),
        ),
        "grounding": _more(
            "words of queries that the evidence does not have",
            *(_loose(known, before), _loose(known, after), bounds.grounding),
        ),
        "latency": _latency(report, bounds.latency),
    }
    reasons = tuple(f"{name}: {check.reason}" for name, check in checks.items() if not check.passed)
    return Acceptance(
        candidate=new.name,
        current=old.name,
        accepted=not reasons,
        reasons=reasons,
        checks=checks,
        shadow=report,
    )


def _taps(report: ShadowReport, bound: float, k: int) -> Check:
    """Surely fewer is a no, and so is a loss beyond the bound that only might be one."""
    taps = report.taps
    if taps.old.conclusive and taps.new.conclusive:
        old, new = taps.old.per_impression.value, taps.new.per_impression.value
        return _fewer("taps an impression, by the log", old, new, taps.per_impression, bound)
    hits = report.differences.get(f"hr@{k}")
    if hits is None or math.isnan(hits.value) or not report.clicks:
        nothing = math.nan
        return Check(False, nothing, nothing, bound, "the slice has no tap to compare on")
    return _fewer(f"HR@{k} on the logged clicks", math.nan, math.nan, hits, bound)


def _fewer(what: str, old: float, new: float, less: Interval, bound: float) -> Check:
    allowed = bound if math.isnan(old) else bound * old
    told = f"{less.value:+.4f} [{less.low:+.4f}, {less.high:+.4f}]"
    if less.high < 0:
        return Check(False, old, new, bound, f"{what} fell: {told}")
    if less.value < -allowed:
        return Check(
            False, old, new, bound, f"{what} may have fallen by more than {allowed:.4f}: {told}"
        )
    return Check(True, old, new, bound, f"{what}: {told}")


def _more(what: str, old: float, new: float, bound: float) -> Check:
    if math.isnan(old) or math.isnan(new):
        # A model that shows nothing has no words to judge: that it shows nothing is asked for.
        return Check(True, old, new, bound, f"{what}: nothing to count")
    passed = new - old <= bound + 1e-12
    told = f"{what}: {old:.2%} before, {new:.2%} now"
    return Check(
        passed, old, new, bound, told if passed else f"{told}, {bound:.2%} more is allowed"
    )


def _latency(report: ShadowReport, bound: float) -> Check:
    allowed = bound * report.old_ms + SLACK_MS
    told = f"{report.old_ms:.1f} ms a prompt before, {report.new_ms:.1f} now"
    passed = report.new_ms <= allowed
    told = told if passed else f"{told}, {allowed:.1f} is allowed"
    return Check(passed, report.old_ms, report.new_ms, bound, told)


def _silent(triggers: Sequence[Trigger], answers: Sequence[Prediction]) -> float:
    """Of the impressions that may carry queries."""
    silent = [
        not answer.queries
        for trigger, answer in zip(triggers, answers, strict=True)
        if trigger.kind != "reject"
    ]
    return sum(silent) / len(silent) if silent else math.nan


def _unsafe(triggers: Sequence[Trigger], answers: Sequence[Prediction]) -> float:
    spoken = [
        bool(answer.queries)
        for trigger, answer in zip(triggers, answers, strict=True)
        if trigger.kind == "reject"
    ]
    return sum(spoken) / len(spoken) if spoken else math.nan


def _texts(trigger: Trigger) -> Iterable[str]:
    return (trigger.text, trigger.summary, *trigger.anchors, *trigger.history)


def _foreign(grounds: Sequence[Ground], answers: Sequence[Prediction]) -> float:
    """The share of queries with a word in a script that the evidence has no word in."""
    found = [
        not all(map(ground.in_script, words(query)))
        for ground, answer in zip(grounds, answers, strict=True)
        for query in answer.queries
        if not ground.empty
    ]
    return sum(found) / len(found) if found else math.nan


def _loose(grounds: Sequence[Ground], answers: Sequence[Prediction]) -> float:
    """The mean share of a query's words that do not touch the evidence."""
    shares: list[float] = []
    for ground, answer in zip(grounds, answers, strict=True):
        for query in answer.queries:
            said = [word for word in words(query) if not word.function]
            if said and not ground.empty:
                shares.append(sum(not ground.touches(word) for word in said) / len(said))
    return sum(shares) / len(shares) if shares else math.nan
