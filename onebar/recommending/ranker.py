"""What orders the candidates of all sources: a sum of learned weights over cheap features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import log2
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from onebar.errors import OneBarError
from onebar.evidence.words import Word
from onebar.ranking.overlap import masks
from onebar.recommending.material import Material
from onebar.recommending.spans import (
    Extent,
    Field,
    Span,
    end_features,
    extents,
    fields,
    phrase_script,
    shape_features,
    signature,
    span,
    start_features,
    word_features,
)
from onebar.records import VideoText

SHIPPED = Path(__file__).parent / "data" / "ranker.json"
"""For checkpoints that bring none of their own."""
FORMAT = 1
_FLOOR = -12.0
"""Log probabilities below are as good as this one."""


class RankerError(OneBarError, ValueError):
    """A file of weights that can't be used."""


class Proposal(NamedTuple):
    """A candidate with all that is known of it, whatever it came from: one that several sources
    name has the facts of all."""

    text: str
    words: tuple[Word, ...]
    span: Span | None = None
    beam: int | None = None
    """Its rank in the beam, from 0."""
    log_probability: float = 0.0
    """What the model gave it, where it is in the beam."""
    behind: float = 0.0
    """How much less that is than the best of the beam."""
    anchor: int | None = None
    """Its rank among the anchors."""
    weight: float = 0.0
    """The anchor's."""
    near: bool = False
    """Whether it is only a near video's or a near query of the log."""
    history: int | None = None
    """Its rank in the relevant history, newest first."""
    book: int | None = None
    """Its rank among the known queries that are found by the evidence's words."""
    match: float = 0.0
    """How well these words find it."""
    covered: float = 1.0
    """Share of its words that the video's text has."""

    @property
    def sourced(self) -> bool:
        """Whether anything names it."""
        found = (self.span, self.beam, self.anchor, self.history, self.book)
        return any(one is not None for one in found)


Feature = tuple[str, float]


class Scorer(Protocol):
    """What orders proposals of all sources in the place of a `Ranker`: learned from clicks."""

    @property
    def variety(self) -> float:
        """How much less a query is worth in a bar that has one like it, 0 to 1."""
        ...

    @property
    def beam(self) -> int:
        """Candidates of the generator that it wants to choose from; 0: as many as there are."""
        ...

    @property
    def digest(self) -> str:
        """Names it: part of the digest of every answer that it ordered."""
        ...

    def scores(self, proposals: Sequence[Proposal], material: Material) -> list[float]:
        """A number for each, higher is better; exp of it is proportional to a probability. Pure:
        what one gets depends on the proposals of its list, and on what they were made from."""
        ...


def phrase_features(proposal: Proposal) -> list[str]:
    """Names of what its shape and its place in the text say of it."""
    if proposal.span is not None:
        return list(proposal.span.context)
    lang = phrase_script(proposal.words)
    shape = shape_features(lang, len(proposal.words), len(proposal.text))
    return [*shape, "F:none", f"LN:{lang}:^", f"RN:{lang}:$"]


def source_features(proposal: Proposal) -> list[Feature]:
    """What those say of it who named it. None for what is only a span."""
    found: list[Feature] = []
    if proposal.span is None:
        found.append((f"cover:{int(3 * proposal.covered)}", 1.0))
    if proposal.beam is not None:
        found += (
            ("beam", 1.0),
            (f"beam:{min(proposal.beam, 7)}", 1.0),
            ("beam:log", max(_FLOOR, proposal.log_probability) / 4),
            ("beam:behind", max(_FLOOR, proposal.behind) / 4),
            ("beam:span" if proposal.span is not None else "beam:none", 1.0),
        )
    if proposal.anchor is not None:
        kind = "near" if proposal.near else "anchor"
        found += (
            (kind, 1.0),
            (f"{kind}:{min(proposal.anchor, 3)}", 1.0),
            ("anchor:weight", min(log2(1 + proposal.weight), 8.0) / 4),
        )
    if proposal.history is not None:
        found += (("history", 1.0), (f"history:{min(proposal.history, 2)}", 1.0))
    return found


def features(proposal: Proposal) -> list[Feature]:
    """Everything the weights are summed over, by name."""
    found = [(name, 1.0) for name in phrase_features(proposal)] + source_features(proposal)
    for role, at in _roles(len(proposal.words)):
        found += ((role + name, 1.0) for name in word_features(proposal.words[at]))
        if proposal.span is not None:
            found.append((role + proposal.span.seen[at], 1.0))
    return found


@lru_cache(maxsize=64)
def _roles(count: int) -> tuple[tuple[str, int], ...]:
    """`O` the only word, `S` the first, `E` the last, `I` one between."""
    if count == 1:
        return (("O:", 0),)
    return ("S:", 0), ("E:", count - 1), *(("I:", at) for at in range(1, count - 1))


class _File(msgspec.Struct, omit_defaults=True):
    format: int
    weights: dict[str, float]
    trained: dict[str, object] = {}


class Ranker:
    """A `Scorer` by weights: those of a checkpoint, or the shipped ones."""

    def __init__(
        self, weights: Mapping[str, float], trained: Mapping[str, object] | None = None
    ) -> None:
        """`trained` says on what, for whoever reads the file."""
        self.weights = dict(weights)
        self.trained = dict(trained or {})
        content = msgspec.json.encode(self.weights, order="sorted")
        self.digest = hashlib.sha256(content).hexdigest()[:8]
        self._word = lru_cache(maxsize=32768)(self._word_score)
        self._length = lru_cache(maxsize=4096)(self._length_score)

    @classmethod
    def load(cls, path: Path) -> Ranker:
        """Raises `RankerError`."""
        try:
            read = msgspec.json.decode(path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError) as error:
            raise RankerError(f"{path} holds no weights of a ranker: {error}") from error
        if read.format != FORMAT:
            raise RankerError(f"{path} has format {read.format}, this program reads {FORMAT}")
        return cls(read.weights, read.trained)

    def save(self, path: Path) -> None:
        file = _File(
            FORMAT, {k: round(v, 4) for k, v in sorted(self.weights.items())}, self.trained
        )
        path.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=0) + b"\n")

    def scores(
        self, proposals: Sequence[Proposal], material: Material | None = None
    ) -> list[float]:
        return [self._score(proposal) for proposal in proposals]

    def _score(self, proposal: Proposal) -> float:
        get = self.weights.get
        total = 0.0
        for name in phrase_features(proposal):
            total += get(name, 0.0)
        for name, value in source_features(proposal):
            total += get(name, 0.0) * value
        seen = None if proposal.span is None else proposal.span.seen
        for role, at in _roles(len(proposal.words)):
            word = proposal.words[at]
            total += self._word(role, word.text, word.key, word.tag, word.function)
            if seen is not None:
                total += get(role + seen[at], 0.0)
        return total

    def best_spans(self, video: VideoText, most: int | None = None) -> list[Span]:
        """The best spans of a video's text, best first; of those that say the same only one.

        By the same sum as `scores` has for proposals that are nothing but spans, without writing
        down the features of each: there are a hundred of them in a text.
        """
        found = [
            (-score, number, extent, field)
            for number, field in enumerate(fields(video))
            for score, extent in self._field_spans(field)
        ]
        found.sort(key=lambda one: one[:3])
        kept: dict[str, Span] = {}
        for _, _, extent, field in found:
            key = signature(field.words[extent.first : extent.last + 1])
            if key not in kept:
                kept[key] = span(field, extent)
                if len(kept) == most:
                    break
        return list(kept.values())

    def _field_spans(self, field: Field) -> list[tuple[float, Extent]]:
        get = self.weights.get
        only, start, inner, end = (
            [
                self._word(role, word.text, word.key, word.tag, word.function)
                + get(role + seen, 0.0)
                for word, seen in zip(field.words, field.seen, strict=True)
            ]
            for role in ("O:", "S:", "I:", "E:")
        )
        before = list(accumulate(inner, initial=0.0))
        starts: dict[tuple[int, str], float] = {}
        ends: dict[tuple[int, str], float] = {}
        depth = [get(f"D:{count}:{field.among}", 0.0) for count in range(4)]
        scored = []
        for extent in extents(field):
            first, last, chars, lang = extent
            if (first, lang) not in starts:
                starts[first, lang] = sum(get(f, 0.0) for f in start_features(field, first, lang))
            if (last, lang) not in ends:
                ends[last, lang] = sum(get(f, 0.0) for f in end_features(field, last, lang))
            total = starts[first, lang] + ends[last, lang]
            total += self._length(lang, last - first + 1, chars)
            total += depth[min(field.counts[first : last + 1])]
            if first == last:
                total += only[first]
            else:
                total += start[first] + end[last] + before[last] - before[first + 1]
            scored.append((round(total, 6), extent))
        return scored

    def _length_score(self, lang: str, count: int, chars: int) -> float:
        return sum(self.weights.get(name, 0.0) for name in shape_features(lang, count, chars))

    def _word_score(self, role: str, text: str, key: str, tag: str, function: bool) -> float:
        word = Word(text, key, 0, 0, tag, function)
        return sum(self.weights.get(role + name, 0.0) for name in word_features(word))


@lru_cache(maxsize=1)
def shipped_ranker() -> Ranker:
    """The one for checkpoints without a ranker of their own."""
    return Ranker.load(SHIPPED)


def spread(texts: Sequence[str], weights: Sequence[float], k: int, kept: int = 0) -> list[int]:
    """Which `k` of some texts to show: those that together come nearest to what is wanted.

    A text's weight is the probability that it is what is wanted (less than a hundredth of the
    greatest doesn't count), and what is shown is worth its greatest overlap (F1 of character pairs)
    with that. The first `kept` texts are in whatever the
    others are worth; then, one by one, the text that adds most, the earlier where it makes no
    difference.
    """
    bits = masks(texts)
    sizes = [mask.bit_count() for mask in bits]
    least = max(weights, default=0.0) / 100
    wanted = [at for at, weight in enumerate(weights) if weight >= least]
    near = [
        [
            weights[at] * 2 * (mask & bits[at]).bit_count() / max(1, size + sizes[at])
            for at in wanted
        ]
        for mask, size in zip(bits, sizes, strict=True)
    ]
    chosen = list(range(min(kept, k, len(texts))))
    nearest = [0.0] * len(wanted)
    for one in chosen:
        nearest = list(map(max, nearest, near[one]))
    left = list(range(len(chosen), len(texts)))
    while left and len(chosen) < k:
        best, most = left[0], -1.0
        for one in left:
            gain = sum(map(max, nearest, near[one]))
            if gain > most:
                best, most = one, gain
        chosen.append(best)
        left.remove(best)
        nearest = list(map(max, nearest, near[best]))
    return chosen
