"""The one gate that every query passes when an answer leaves, from whatever source; pure.

What is asked, in this order: is anything to be shown under this video at all (a rule may say no);
does the query tell who somebody is (never shown, whatever a rule says); what do the rules say of it
(`onebar.gating.rules`); is it about something harmful, where no rule allows it expressly; and,
where generation is constrained to `only`, is it of the repertoire, the video's own anchors, or
allowed by a rule about it.

That enough distinct users asked it is seen to before: what too few asked is no evidence
(`feature_store.buckets.showable`), so nothing is made of it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

from onebar.evidence.text import normalize_query
from onebar.gating.personal import PersonalPatterns, shipped_patterns
from onebar.gating.repertoire import Constrain, Repertoire, stricter
from onebar.gating.risk import RiskClassifier, shipped_rules
from onebar.gating.rules import About, Decision, RuleBook
from onebar.gating.skeleton import skeleton, words_of
from onebar.records import Anchor, Candidate, Features, Rule

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


NOTHING: frozenset[str] = frozenset()


class Gate:
    """Rules, personal data, harm and the repertoire in one place. Its `rules` and its `repertoire`
    may change under it; `take` changes a rule in both."""

    def __init__(
        self,
        rules: RuleBook | None = None,
        *,
        personal: PersonalPatterns | None = None,
        risk: RiskClassifier | None = None,
        risk_name: str = "",
        constrain: Constrain = "open",
    ) -> None:
        """`risk_name` names what `risk` judges by: another name, other verdicts."""
        self.rules = RuleBook() if rules is None else rules
        self.repertoire = Repertoire()
        self.constrain = constrain
        self.open = True
        """Whether the rules are known at all: nothing is to be shown before that."""
        self._personal = shipped_patterns() if personal is None else personal
        self._risk = risk
        named = f"{self._personal.source}\0{risk_name}\0{self.rules.market}"
        if constrain == "only":
            named += f"\0{constrain}"
        self._fixed = blake2b(named.encode(), digest_size=8).digest()
        self._stamp: tuple[int, int, int, int] = (-1, -1, -1, 0)
        for rule in self.rules:
            if rule.query:
                self.repertoire.decide(rule.query, self.rules.generated(rule.query))

    def passed(self, now: float) -> int:
        """Names all that is asked of a query at this moment: what has passed it under the same
        name need not be asked again. 64 bits, the same in every process."""
        version, boundaries = self.rules.version, self.rules.passed_boundaries(now)
        cut = self.repertoire.cut if self.constrain == "only" else 0
        if self._stamp[:3] != (version, boundaries, cut):
            parts = (number.to_bytes(8, "big") for number in (version, boundaries, cut))
            data = self._fixed + b"".join(parts)
            name = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
            self._stamp = version, boundaries, cut, name
        return self._stamp[3]

    def take(self, rule_id: str, rule: Rule | None) -> None:
        """A rule that `check_rule` gave holds from now on; None: it does no more."""
        before = self.rules.get(rule_id)
        if rule is None:
            self.rules.remove(rule_id)
        else:
            self.rules.put(rule)
        for query in {each.query for each in (before, rule) if each is not None and each.query}:
            self.repertoire.decide(query, self.rules.generated(query))

    @property
    def asks_about(self) -> bool:
        """Whether what is known of a video must be read to tell what may be shown under it."""
        return self.rules.asks_about or self.constrain != "open"

    def barred(self, about: About, now: float) -> Held | None:
        """Why nothing is to be shown under this video, if so."""
        rule = self.rules.barred(about, now)
        return None if rule is None else Held("", "rule", rule.rule_id)

    def personal(self, query: str) -> str | None:
        """What a query holds that tells who somebody is, whatever any rule says."""
        return self._tells(normalize_query(query))

    def _tells(self, query: str) -> str | None:
        reads = skeleton(query)
        kind = self._personal.kind(query)
        return self._personal.kind(reads) if kind is None and reads != query else kind

    def _harm(self, query: str) -> str | None:
        """The category of what is wrong with a query, as it is written or as it reads."""
        if self._risk is None:
            return None
        reads = words_of(skeleton(query))
        category = self._risk.risk((query,))
        return self._risk.risk((reads,)) if category is None and reads != query else category

    def judge(
        self,
        query: str,
        about: About,
        now: float,
        *,
        anchors: Container[str] = NOTHING,
        constrain: Constrain | None = None,
    ) -> Held | None:
        """Why a normalised query is held back; None where it may be shown. `barred` has been asked
        before. `anchors` are the video's own; `constrain` holds where it is stricter than the
        gate's."""
        if (kind := self._tells(query)) is not None:
            return Held(query, "personal", kind)
        decision = self.rules.decide(query, about, now)
        if decision.rule is not None and decision.held:
            return Held(query, "rule", decision.rule.rule_id)
        if not decision.allowed and self._risk is not None:
            category = self._harm(query)
            if category is not None:
                return Held(query, "harmful", category)
        if stricter(self.constrain, constrain) == "only" and not self._of_repertoire(
            query, decision, anchors
        ):
            return Held(query, "repertoire")
        return None

    def of_repertoire(
        self, query: str, about: About, now: float, anchors: Container[str] = NOTHING
    ) -> bool:
        """Whether a normalised query may be shown where generation is constrained to `only`: it did
        well, is one of the video's own `anchors`, or a rule about it allows it."""
        return self._of_repertoire(query, self.rules.decide(query, about, now), anchors)

    def _of_repertoire(self, query: str, decision: Decision, anchors: Container[str]) -> bool:
        if self.repertoire.known(query) or query in anchors:
            return True
        return decision.allowed and decision.rule is not None and bool(decision.rule.query)

    def apply(
        self,
        queries: Iterable[Candidate],
        about: About,
        now: float,
        *,
        pins: bool = True,
        anchors: Container[str] = NOTHING,
        constrain: Constrain | None = None,
    ) -> Gated:
        """The queries that may be shown under a video, what is pinned to it before them. Beyond
        what `judge` holds back, `prefer` puts those of the repertoire before the others."""
        if (bar := self.barred(about, now)) is not None:
            return Gated((), (bar,))
        pinned = self.rules.pinned(about, now) if pins else []
        wanted = {rule.query: Candidate(rule.query, PINNED_SCORE) for rule in pinned}
        for candidate in queries:
            wanted.setdefault(candidate.text, candidate)
        shown: list[Candidate] = []
        held: list[Held] = []
        for candidate in wanted.values():
            normal = normalize_query(candidate.text)
            why = self.judge(normal, about, now, anchors=anchors, constrain=constrain)
            if why is None:
                shown.append(candidate)
            else:
                held.append(why)
        if stricter(self.constrain, constrain) == "prefer":
            shown.sort(
                key=lambda candidate: (
                    not self.of_repertoire(normalize_query(candidate.text), about, now, anchors)
                )
            )
        return Gated(tuple(shown), tuple(held))

    def explain(
        self, query: str, about: About, now: float, anchors: Container[str] = NOTHING
    ) -> list[tuple[str, str]]:
        """What each part of the gate says of a query, in the order in which they are asked: the
        part, and what it says."""
        normal = normalize_query(query)
        steps = [("query", normal or "(nothing is left of it)")]
        bar = self.rules.barred(about, now)
        steps.append(("video", "may carry queries" if bar is None else _told(bar)))
        kind = self._tells(normal)
        steps.append(("personal data", "none found" if kind is None else f"holds: {kind}"))
        decision = self.rules.decide(normal, about, now)
        steps.append(("rules", "none matches" if decision.rule is None else _told(decision.rule)))
        category = self._harm(normal)
        harm = "none found" if category is None else f"about: {category}"
        if category is not None and decision.allowed:
            harm += " (but a rule allows it)"
        steps.append(("harm", harm if self._risk is not None else "nothing judges it"))
        if self.constrain != "open":
            known = self.of_repertoire(normal, about, now, anchors)
            listed = "of it" if known else "not of it"
            steps.append(("repertoire", f"{listed} (generation: {self.constrain})"))
        judged = self.judge(normal, about, now, anchors=anchors)
        held = bar is not None or not normal or judged is not None
        steps.append(("verdict", "held back" if held else "may be shown"))
        return steps


@lru_cache(maxsize=1)
def shipped_gate() -> Gate:
    """The gate without any rule: what it holds back is never shown, and so never learnt from."""
    return Gate(risk=shipped_rules())


def never_shown(query: str) -> Held | None:
    """Why a normalised query is held back unless a rule allows it, wherever it came from."""
    return shipped_gate().judge(query, About(), 0.0)


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


def own_anchors(anchors: Iterable[Anchor]) -> frozenset[str]:
    """The queries that people's behaviour ties to the video itself."""
    return frozenset(anchor.query for anchor in anchors if anchor.source == "behavior")


def about_of(video_id: str, known: Features) -> About:
    """What rules care about of a video."""
    text = known.text
    return About(video_id) if text is None else About(video_id, text.author, text.category)
