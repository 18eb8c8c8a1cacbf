"""The one gate that every query passes when an answer leaves, from whatever source; pure.

What is asked, in this order: is anything to be shown under this video at all (a rule may say no);
does the query tell who somebody is (never shown, whatever a rule says); what do the rules say of it
(`onebar.gating.rules`); is it about something harmful, where no rule allows it expressly.

That enough distinct users asked it is seen to before: what too few asked is no evidence
(`feature_store.buckets.showable`), so nothing is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct

from onebar.evidence.text import normalize_query
from onebar.gating.personal import PersonalPatterns, shipped_patterns
from onebar.gating.risk import RiskClassifier
from onebar.gating.rules import About, RuleBook
from onebar.records import Candidate, Features, Rule

PINNED_SCORE = 0.0
"""Of a pinned query: a person is certain, the model was not asked."""


class Held(Struct, frozen=True):
    """Why a query is not shown: `reason` is of a handful, `detail` says which kind or rule."""

    query: str
    reason: str
    detail: str = ""


class Gated(Struct, frozen=True):
    """What may be shown, best first, and what was held back."""

    queries: tuple[Candidate, ...]
    held: tuple[Held, ...] = ()


class Gate:
    """Rules, personal data and harm in one place. Its `rules` may change under it."""

    def __init__(
        self,
        rules: RuleBook | None = None,
        *,
        personal: PersonalPatterns | None = None,
        risk: RiskClassifier | None = None,
        risk_name: str = "",
    ) -> None:
        """`risk_name` names what `risk` judges by: another name, other verdicts."""
        self.rules = RuleBook() if rules is None else rules
        self.open = True
        """Whether the rules are known at all: nothing is to be shown before that."""
        self._personal = shipped_patterns() if personal is None else personal
        self._risk = risk
        named = f"{self._personal.source}\0{risk_name}\0{self.rules.market}".encode()
        self._fixed = blake2b(named, digest_size=8).digest()
        self._stamp: tuple[int, int, int] = (-1, -1, 0)

    def passed(self, now: float) -> int:
        """Names all that is asked of a query at this moment: what has passed it under the same
        name need not be asked again. 64 bits, the same in every process."""
        version, boundaries = self.rules.version, self.rules.passed_boundaries(now)
        if self._stamp[:2] != (version, boundaries):
            data = self._fixed + version.to_bytes(8, "big") + boundaries.to_bytes(8, "big")
            number = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
            self._stamp = version, boundaries, number
        return self._stamp[2]

    def barred(self, about: About, now: float) -> Held | None:
        """Why nothing is to be shown under this video, if so."""
        rule = self.rules.barred(about, now)
        return None if rule is None else Held("", "rule", rule.rule_id)

    def personal(self, query: str) -> str | None:
        """What a query holds that tells who somebody is, whatever any rule says."""
        return self._personal.kind(normalize_query(query))

    def judge(self, query: str, about: About, now: float) -> Held | None:
        """Why a query is held back; None where it may be shown. `barred` has been asked before."""
        if (kind := self._personal.kind(query)) is not None:
            return Held(query, "personal", kind)
        decision = self.rules.decide(query, about, now)
        if decision.rule is not None and decision.held:
            return Held(query, "rule", decision.rule.rule_id)
        if not decision.allowed and self._risk is not None:
            category = self._risk.risk((query,))
            if category is not None:
                return Held(query, "harmful", category)
        return None

    def apply(
        self, queries: Iterable[Candidate], about: About, now: float, *, pins: bool = True
    ) -> Gated:
        """The queries that may be shown under a video, what is pinned to it before them."""
        if (bar := self.barred(about, now)) is not None:
            return Gated((), (bar,))
        pinned = self.rules.pinned(about, now) if pins else []
        wanted = {rule.query: Candidate(rule.query, PINNED_SCORE) for rule in pinned}
        for candidate in queries:
            wanted.setdefault(candidate.text, candidate)
        shown: list[Candidate] = []
        held: list[Held] = []
        for candidate in wanted.values():
            why = self.judge(normalize_query(candidate.text), about, now)
            if why is None:
                shown.append(candidate)
            else:
                held.append(why)
        return Gated(tuple(shown), tuple(held))

    def explain(self, query: str, about: About, now: float) -> list[tuple[str, str]]:
        """What each part of the gate says of a query, in the order in which they are asked: the
        part, and what it says."""
        normal = normalize_query(query)
        steps = [("query", normal or "(nothing is left of it)")]
        bar = self.rules.barred(about, now)
        steps.append(("video", "may carry queries" if bar is None else _told(bar)))
        kind = self._personal.kind(normal)
        steps.append(("personal data", "none found" if kind is None else f"holds: {kind}"))
        decision = self.rules.decide(normal, about, now)
        steps.append(("rules", "none matches" if decision.rule is None else _told(decision.rule)))
        category = None if self._risk is None else self._risk.risk((normal,))
        harm = "none found" if category is None else f"about: {category}"
        if category is not None and decision.allowed:
            harm += " (but a rule allows it)"
        steps.append(("harm", harm if self._risk is not None else "nothing judges it"))
        held = bar is not None or not normal or self.judge(normal, about, now) is not None
        steps.append(("verdict", "held back" if held else "may be shown"))
        return steps


def _told(rule: Rule) -> str:
    scope = [
        f"{name} {value}"
        for name in ("video_id", "author", "category", "market")
        if (value := getattr(rule, name))
    ]
    about = rule.text or "everything"
    where = f" under {', '.join(scope)}" if scope else ""
    signed = f" ({rule.who}: {rule.why})" if rule.who or rule.why else ""
    return f"rule {rule.rule_id}: {rule.action} {about!r}{where}{signed}"


def about_of(video_id: str, known: Features) -> About:
    """What rules care about of a video."""
    text = known.text
    return About(video_id) if text is None else About(video_id, text.author, text.category)
