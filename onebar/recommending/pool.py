"""The candidates of one list, by what they say: put together from all sources, then chosen from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from math import exp, log
from typing import Any

from msgspec import Struct

from onebar.evidence.text import REJECT, normalize_query
from onebar.evidence.words import Word, words
from onebar.gating.risk import RiskClassifier, shipped_rules
from onebar.ranking.book import Book
from onebar.ranking.habits import PLAIN, Style
from onebar.recommending.features import known
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
from onebar.recommending.phrases.spans import Span, signature
from onebar.recommending.ranker import (
    Proposal,
    Ranker,
    Scorer,
    nearness,
    shipped_ranker,
    spread,
    worth,
)
from onebar.recommending.variety import varied
from onebar.records import Candidate, VideoText

LEAST_SHARE = 0.04
"""Candidates less likely than this part of the likeliest are better not shown at all."""
LEAST = 1e-12
"""No candidate's merit is less, so that it has a logarithm."""
POOL = 20
"""Best candidates that the list is spread over."""


KNOWN = 40
"""Bases of known queries that are candidates to a `Taste.scorer`."""
SPANS = 8
"""Spans of the text that are."""
STYLES = 2
"""Ways in which each base is put: those that the user most likely takes."""
LEAST_STYLE = 0.05
"""How likely a way must be."""


class Taste(Struct, frozen=True):
    """How candidates are judged: what a checkpoint brings, or the shipped parts."""

    ranker: Ranker
    """Finds the spans."""
    risk: RiskClassifier
    scorer: Scorer | None = None
    """Orders the candidates of all sources; None: the ranker does."""
    book: Book | None = None
    """Known queries, candidates to a `scorer`."""
    lexicon: Lexicon | None = None
    floor: float | None = None
    """Least `token_log_probability` of a generated candidate."""
    from_text: bool = True
    """Whether spans of the text are candidates."""

    @property
    def beam(self) -> int:
        """Candidates of the generator that are to be chosen from; 0: as many as there are."""
        return 0 if self.scorer is None else self.scorer.beam

    @property
    def digest(self) -> bytes:
        """Names what orders the candidates."""
        scorer = self.ranker if self.scorer is None else self.scorer
        book = "" if self.book is None else f" {self.book.digest}"
        return f"{self.ranker.digest} {scorer.digest}{book}".encode()


@lru_cache(maxsize=1)
def shipped_taste() -> Taste:
    """For checkpoints that bring nothing of their own."""
    return Taste(shipped_ranker(), shipped_rules())


class Bounds(Struct, frozen=True):
    """What candidates of every source are held to where generation is constrained: `inside` says
    whether a query is of the repertoire; with `prefer` what isn't stands behind."""

    inside: Callable[[str], bool]
    prefer: bool = False


class Pool:
    """Proposals by what they say."""

    def __init__(
        self,
        material: Material,
        taste: Taste,
        bounds: Bounds | None = None,
        *,
        exact: bool = False,
    ) -> None:
        """Empty. Sources are added one after another. `exact`: candidates of the same words in
        another order are two; so are they to a `Taste.scorer`."""
        self._material = material
        self._taste = taste
        self._bounds = bounds
        # A ranker that has learned from clicks tells orders of words apart, as those who tap do.
        self._exact = exact or taste.scorer is not None
        habits = taste.book.habits if taste.book is not None else None
        self._habits = habits if self._exact else None
        self._styles: tuple[Style, ...] = ()
        if self._habits is not None:
            chances = self._habits.chances(material.recent)
            likely = sorted((-chance, style) for style, chance in chances.items())[:STYLES]
            self._styles = tuple(style for below, style in likely if -below >= LEAST_STYLE)
        self._found: dict[str, Proposal] = {}
        self._harmful: dict[str, Proposal] = {}
        """By themselves: only a rule can have them shown."""
        self.dropped: Counter[str] = Counter()

    @cached_property
    def _text(self) -> Ground:
        return _ground(self._material.texts())

    def _put(self, text: str, **facts: Any) -> None:
        """One more source of a query: what is known of it is added to what was."""
        read = _read(text, self._taste.risk.risk)
        if read is None:
            self.dropped[Drop.BROKEN] += 1
            return
        query, found, risky = read
        if self._bounds is not None and self._outside(query):
            self.dropped[Drop.REPERTOIRE] += 1
            return
        key = query if self._exact else signature(found)
        shelf = self._harmful if key in self._harmful else self._found
        known = shelf.get(key)
        if known is not None:
            first = {name: value for name, value in facts.items() if _missing(known, name)}
            if query != known.text:
                self.dropped[Drop.DUPLICATE] += 1
            if first:
                shelf[key] = known._replace(**first)
            return
        if risky:
            self.dropped[Drop.RISKY] += 1
            shelf = self._harmful
        if self._exact:
            shelf[key] = Proposal(query, found, **facts)
            return
        said = _said(found)
        touches = self._text.touches
        strange = tuple(at for at in said if not touches(found[at]))
        covered = 1 - len(strange) / len(said)
        shelf[key] = Proposal(query, found, covered=covered, strange=strange, **facts)

    def _same(self, query: str, found: tuple[Word, ...]) -> str:
        """What two candidates share that are one."""
        return query if self._exact else signature(found)

    def _outside(self, query: str) -> bool:
        bounds = self._bounds
        return bounds is not None and not bounds.prefer and not bounds.inside(query)

    def _inside(self, query: str) -> bool:
        return self._bounds is not None and self._bounds.inside(query)

    def add_anchors(self) -> None:
        own = [a for a in self._material.anchors if a.source == "behavior"]
        near = [a for a in self._material.anchors if a.source != "behavior"]
        for rank, anchor in enumerate(own):
            self._put(anchor.query, anchor=rank, weight=anchor.weight)
        for rank, anchor in enumerate(near):
            self._put(anchor.query, anchor=rank, weight=anchor.weight, near=True)

    def keep_anchors_of_the_text(self) -> None:
        self._found, self._harmful = (
            {
                key: proposal
                for key, proposal in shelf.items()
                if not proposal.near and self._touches(proposal)
            }
            for shelf in (self._found, self._harmful)
        )

    def _touches(self, proposal: Proposal) -> bool:
        found = proposal.words
        return any(self._text.touches(found[at]) for at in _said(found))

    def add_history(self) -> None:
        for rank, query in enumerate(self._material.history):
            self._put(query, history=rank)

    def add_known(self, most: int = KNOWN) -> None:
        """What stood under the video before, and known queries that share a word with the evidence,
        if the checkpoint brings any: each base put as the user puts things."""
        book = self._taste.book
        if book is None or self._habits is None:
            return
        for rank, one in enumerate(self._material.counts):
            self._put(one.query, counted=rank)
        for rank, (base, match) in enumerate(known(book, self._material, most)):
            for first, last in self._styles:
                self._put(f"{first}{base}{last}", book=rank, match=match)

    def add_styled(self) -> None:
        """What there is, put as the user puts things."""
        if self._habits is None or self._styles in ((), (PLAIN,)):
            return
        apart = self._habits.apart
        bases = dict.fromkeys([apart(text)[0] for text in self._found])
        for base in bases:
            for first, last in self._styles:
                text = f"{first}{base}{last}"
                if text not in self._found:
                    self._put(text, styled=True)

    def add_beam(self, beam: Sequence[Candidate]) -> None:
        taste = self._taste
        queries = self._material.queries()
        ground = _ground((*self._material.texts(), *queries)) if queries else self._text
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
            said = words(query)
            why = ground.drop(said, taste.lexicon)
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
                loose=0 if self._exact else ground.loose(said, taste.lexicon),
            )

    def add_spans(self, most: int | None) -> None:
        """The `most` best spans; of those that say the same, the one that the ranker likes best.

        They are part of a text that was found harmless as a whole, and are judged again only where
        they are shown.
        """
        # All of them are needed only to tell which are of the repertoire.
        wanted = None if self._bounds else most
        if self._exact:
            spans = _best_spans(self._taste.ranker, self._material.video, wanted)
        else:
            also = frozenset(self._found)
            spans = self._taste.ranker.best_spans(self._material.video, wanted, also)
        for rank, span in enumerate(spans):
            text = normalize_query(span.text)
            key = self._same(text, span.words)
            known = self._found.get(key)
            if known is not None:
                self._found[key] = known._replace(span=span, words=span.words)
            elif self._outside(text):
                self.dropped[Drop.REPERTOIRE] += 1
            elif most is None or rank < most or self._inside(text):
                self._found[key] = Proposal(text, span.words, span)

    def add(self, query: str) -> None:
        """A query that need not have a source."""
        self._put(query)

    def proposals(self) -> list[Proposal]:
        return list(self._found.values())

    def best(self, k: int, *, harmful: bool = False) -> tuple[Candidate, ...]:
        """The `k` best; with `harmful` also those that a rule alone could have shown and that would
        be among them, in their places."""
        chosen = self._preferred(self.proposals(), k)
        if not harmful or not self._harmful:
            return chosen
        texts = {proposal.text for proposal in self._harmful.values()}
        among = self._best([*self.proposals(), *self._harmful.values()], k)
        beside = [candidate for candidate in among if candidate.text in texts]
        return tuple(sorted((*chosen, *beside), key=lambda each: (-each.score, each.text)))

    def _preferred(self, proposals: Sequence[Proposal], k: int) -> tuple[Candidate, ...]:
        bounds = self._bounds
        if bounds is None or not bounds.prefer:
            return self._best(proposals, k)
        first = self._best([each for each in proposals if bounds.inside(each.text)], k)
        rest = [each for each in proposals if not bounds.inside(each.text)]
        return (*first, *self._best(rest, k - len(first)))

    def _best(self, proposals: Sequence[Proposal], k: int) -> tuple[Candidate, ...]:
        if not proposals or k < 1:
            return ()
        if self._taste.scorer is not None:
            return self._tapped_most(proposals, self._taste.scorer, k)
        scores = self._taste.ranker.scores(proposals)
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

    def _tapped_most(
        self, proposals: Sequence[Proposal], scorer: Scorer, k: int
    ) -> tuple[Candidate, ...]:
        """By a scorer that has seen what is tapped: it has weighed the anchors, too."""
        scores = scorer.scores(proposals, self._material)
        order = sorted((-score, one.text) for score, one in zip(scores, proposals, strict=True))
        texts = [text for _, text in order]
        ranked = [-below for below, _ in order]
        top = ranked[0]
        total = sum([exp(score - top) for score in ranked])
        return tuple(
            Candidate(texts[at], round(ranked[at] - ranked[0] - log(total), 5) + 0.0)
            for at in varied(texts, ranked, k, scorer.variety)
        )


def _must(proposal: Proposal) -> bool:
    return proposal.anchor is not None and not proposal.near and proposal.weight >= VOICE


def _missing(known: Proposal, name: str) -> bool:
    return bool(getattr(known, name) == Proposal._field_defaults[name])


@lru_cache(maxsize=256)
def _ground(texts: tuple[str, ...]) -> Ground:
    """What some texts say; to be read only."""
    return Ground(texts)


@lru_cache(maxsize=2048)
def _best_spans(ranker: Ranker, video: VideoText, most: int | None) -> list[Span]:
    """The spans of a video, whoever asks."""
    return ranker.best_spans(video, most)


@lru_cache(maxsize=65536)
def _read(
    text: str, risk: Callable[[Sequence[str]], str | None]
) -> tuple[str, tuple[Word, ...], bool] | None:
    """A query as it may be shown, its words, and whether it is risky; None where it must not be
    shown."""
    query = presentable(text)
    found = words(query) if query else ()
    return (query, found, risk((query,)) is not None) if found else None


def _said(found: Sequence[Word]) -> list[int]:
    """Where the words stand that say something; all where none does."""
    return [at for at, word in enumerate(found) if not word.function] or [*range(len(found))]
