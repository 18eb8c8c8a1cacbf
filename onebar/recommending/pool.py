"""The candidates of one list, by what they say: put together from all sources, then chosen from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import exp, log
from typing import Any

from msgspec import Struct

from onebar.evidence.text import REJECT, normalize_query
from onebar.evidence.words import words
from onebar.gating.risk import RiskClassifier, shipped_rules
from onebar.recommending.grounding import (
    Drop,
    Ground,
    Lexicon,
    is_fragment,
    presentable,
    token_log_probability,
    trimmed,
)
from onebar.recommending.material import VOICE, Material
from onebar.recommending.ranker import (
    Proposal,
    Ranker,
    Scorer,
    nearness,
    shipped_ranker,
    spread,
    worth,
)
from onebar.recommending.spans import signature
from onebar.records import Candidate

LEAST_SHARE = 0.04
"""Candidates less likely than this part of the likeliest are better not shown at all."""
LEAST = 1e-12
"""No candidate's merit is less, so that it has a logarithm."""
POOL = 20
"""Best candidates that the list is spread over."""


class Taste(Struct, frozen=True):
    """How candidates are judged: what a checkpoint brings, or the shipped parts."""

    ranker: Ranker
    """Finds the spans."""
    risk: RiskClassifier
    scorer: Scorer | None = None
    """Orders the candidates of all sources; None: the ranker does."""
    lexicon: Lexicon | None = None
    floor: float | None = None
    """Least `token_log_probability` of a generated candidate."""
    from_text: bool = True
    """Whether spans of the text are candidates."""

    @property
    def digest(self) -> bytes:
        """Names what orders the candidates."""
        scorer = self.ranker if self.scorer is None else self.scorer
        return f"{self.ranker.digest} {scorer.digest}".encode()


@lru_cache(maxsize=1)
def shipped_taste() -> Taste:
    """For checkpoints that bring nothing of their own."""
    return Taste(shipped_ranker(), shipped_rules())


class Pool:
    """Proposals by what they say."""

    def __init__(self, material: Material, taste: Taste) -> None:
        """Empty. Sources are added one after another."""
        self._material = material
        self._taste = taste
        self._text = Ground(material.texts())
        self._found: dict[str, Proposal] = {}
        self.dropped: Counter[str] = Counter()

    def _put(self, text: str, **facts: Any) -> None:
        """One more source of a query: what is known of it is added to what was."""
        query = presentable(text)
        if not query:
            self.dropped[Drop.BROKEN] += 1
            return
        found = words(query)
        if not found:
            self.dropped[Drop.BROKEN] += 1
            return
        key = signature(found)
        known = self._found.get(key)
        if known is not None:
            first = {name: value for name, value in facts.items() if _missing(known, name)}
            self.dropped[Drop.DUPLICATE] += query != known.text
            self._found[key] = known._replace(**first)
        elif self._taste.risk.risk((query,)) is not None:
            self.dropped[Drop.RISKY] += 1
        else:
            said = [at for at, word in enumerate(found) if not word.function] or [
                *range(len(found))
            ]
            strange = tuple(at for at in said if not self._text.touches(found[at]))
            covered = 1 - len(strange) / len(said)
            self._found[key] = Proposal(query, found, covered=covered, strange=strange, **facts)

    def add_anchors(self) -> None:
        own = [a for a in self._material.anchors if a.source == "behavior"]
        near = [a for a in self._material.anchors if a.source != "behavior"]
        for rank, anchor in enumerate(own):
            self._put(anchor.query, anchor=rank, weight=anchor.weight)
        for rank, anchor in enumerate(near):
            self._put(anchor.query, anchor=rank, weight=anchor.weight, near=True)

    def keep_anchors_of_the_text(self) -> None:
        self._found = {
            key: proposal
            for key, proposal in self._found.items()
            if not proposal.near and proposal.covered > 0
        }

    def add_history(self) -> None:
        for rank, query in enumerate(self._material.history):
            self._put(query, history=rank)

    def add_beam(self, beam: Sequence[Candidate]) -> None:
        taste = self._taste
        ground = Ground((*self._material.texts(), *self._material.queries()))
        best = beam[0].score if beam else 0.0
        for rank, candidate in enumerate(beam):
            query = presentable(trimmed(candidate.text))
            if candidate.text.strip() == REJECT:
                continue
            if not query:
                self.dropped[Drop.BROKEN] += 1
                continue
            if taste.floor is not None and token_log_probability(candidate) < taste.floor:
                self.dropped[Drop.IMPROBABLE] += 1
                continue
            why = ground.drop(words(query), taste.lexicon)
            if is_fragment(query):
                why = Drop.FRAGMENT
            if why is not None:
                self.dropped[why] += 1
                continue
            self._put(
                query,
                beam=rank,
                log_probability=candidate.score,
                behind=candidate.score - best,
            )

    def add_spans(self, most: int | None) -> None:
        """The `most` best spans; of those that say the same, the one that the ranker likes best.

        They are part of a text that was found harmless as a whole, and are judged again only where
        they are shown.
        """
        spans = self._taste.ranker.best_spans(self._material.video, most, frozenset(self._found))
        for rank, span in enumerate(spans):
            key = signature(span.words)
            known = self._found.get(key)
            if known is not None:
                self._found[key] = known._replace(span=span, words=span.words)
            elif most is None or rank < most:
                self._found[key] = Proposal(normalize_query(span.text), span.words, span)

    def proposals(self) -> list[Proposal]:
        return list(self._found.values())

    def best(self, k: int) -> tuple[Candidate, ...]:
        proposals = self.proposals()
        if not proposals:
            return ()
        scores = (self._taste.scorer or self._taste.ranker).scores(proposals)
        order = sorted(range(len(proposals)), key=lambda at: (-scores[at], proposals[at].text))
        sure = [at for at in order if _must(proposals[at])]
        if len(sure) > k:
            sure.sort(key=lambda at: proposals[at].anchor or 0)
            sure = sure[:k]
        top = scores[order[0]]
        least = top + log(LEAST_SHARE)
        rest = [at for at in order if at not in sure and scores[at] >= least]
        pool = sure + rest[: max(POOL, 2 * k)]
        total = sum(exp(score - top) for score in scores)
        weights = [exp(scores[at] - top) / total for at in pool]
        near = nearness([proposals[at].text for at in pool], weights)
        merit = worth(near, weights)
        shown = sorted(spread(near, k, len(sure)), key=lambda one: (-merit[one], one))
        return tuple(
            Candidate(proposals[pool[one]].text, round(log(max(merit[one], LEAST)), 5) + 0.0)
            for one in shown
        )


def _must(proposal: Proposal) -> bool:
    return proposal.anchor is not None and not proposal.near and proposal.weight >= VOICE


def _missing(known: Proposal, name: str) -> bool:
    return bool(getattr(known, name) == Proposal._field_defaults[name])
