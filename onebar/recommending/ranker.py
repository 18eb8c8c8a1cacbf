"""What orders the candidates of all sources: a sum of learned weights over cheap features."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import log2, sqrt
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from onebar.errors import OneBarError
from onebar.evidence.words import Word
from onebar.ranking.overlap import pair_matrix
from onebar.recommending.material import Material
from onebar.recommending.phrases.composed import (
    COMPOSED,
    Join,
    Pair,
    apart,
    compose,
    first_features,
    join,
    join_features,
    pair_words,
    pieces,
    then_features,
)
from onebar.recommending.phrases.names import go_together, joint_feature, joint_features, script
from onebar.recommending.phrases.spans import (
    ASKED,
    SHAPELESS,
    Extent,
    Field,
    Span,
    composed,
    end_features,
    extents,
    fields,
    head_features,
    lead_features,
    phrase_script,
    said,
    says_which,
    shape_features,
    signature,
    span,
    start_features,
    variants,
    word_features,
)
from onebar.records import VideoText

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHIPPED = Path(__file__).parent / "data" / "ranker.json"
"""For checkpoints that bring none of their own."""
FORMAT = 1
MOST_ASKED = 3
"""Spans of a video, the best, with what people ask for in the place of what a thing is called."""
PIECES = 6
"""Pieces of a field that are composed, of each kind."""
_LOOSE = 2
"""Loose words beyond are as bad as these."""
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
    counted: int | None = None
    """Its rank among the queries that were exposed under the video, the most exposed first."""
    styled: bool = False
    """Whether it is another candidate, put as the user puts things."""
    covered: float = 1.0
    """Share of its words that the video's text has."""
    strange: tuple[int, ...] = ()
    """Where those stand that the text has not, among `words`."""
    loose: int = 0
    """Of the generator's, how many words stand beside one that they stand beside nowhere else
    (`Ground.loose`)."""

    @property
    def sourced(self) -> bool:
        """Whether anything names it."""
        found = (self.span, self.beam, self.anchor, self.history, self.book, self.counted)
        return self.styled or any(one is not None for one in found)


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
    joints = joint_features(proposal.words)
    if proposal.span is not None:
        return [*proposal.span.context, *joints]
    lang = phrase_script(proposal.words)
    shape = shape_features(lang, len(proposal.words), len(proposal.text))
    return [*shape, "F:none", f"LN:{lang}:^", f"RN:{lang}:$", *joints]


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
        if phrase_script(proposal.words) == "z":
            # A generator may know one language better than another.
            found += (
                ("beam:z", 1.0),
                (f"beam:z:{min(proposal.beam, 3)}", 1.0),
                ("beam:z:span" if proposal.span is not None else "beam:z:none", 1.0),
                ("beam:z:log", max(_FLOOR, proposal.log_probability) / 4),
            )
        if proposal.loose and proposal.span is None:
            found.append(("loose", float(min(proposal.loose, _LOOSE))))
        if proposal.strange:
            found.append(("strange:log", max(_FLOOR, proposal.log_probability) / 4))
            found += ((_strange(proposal.words, at), 1.0) for at in proposal.strange)
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


def _strange(found: Sequence[Word], at: int) -> str:
    """Where a word of the model's own stands, and whether it goes with its neighbours."""
    place = "first" if at == 0 else "last" if at == len(found) - 1 else "inner"
    beside = [
        pair for pair in ((at - 1, at), (at, at + 1)) if pair[0] >= 0 and pair[1] < len(found)
    ]
    known = all(go_together(found[a], found[b]) for a, b in beside)
    return f"strange:{place if beside else 'only'}:{known:d}"


def features(proposal: Proposal) -> list[Feature]:
    """Everything the weights are summed over, by name."""
    found = [(name, 1.0) for name in phrase_features(proposal)] + source_features(proposal)
    for role, at in _roles(len(proposal.words)):
        found += ((role + name, 1.0) for name in word_features(proposal.words[at]))
        if proposal.span is not None:
            found.append((role + proposal.span.seen[at], 1.0))
    found += ((name, 1.0) for name in _head(proposal.words[-1]))
    return found


def _head(word: Word) -> tuple[str, ...]:
    return head_features(word.text, word.tag) if script(word) == "z" else ()


_ROLES = ("O:", "S:", "I:", "E:")


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


class _Worth(NamedTuple):
    """What the words of a field are worth by their role; `before` sums those within."""

    only: list[float]
    start: list[float]
    before: list[float]
    end: list[float]
    depth: list[float]


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
        self._word = lru_cache(maxsize=16384)(self._word_scores)
        self._length = lru_cache(maxsize=4096)(self._length_score)
        self._join = lru_cache(maxsize=16384)(self._join_score)
        self._composes = COMPOSED in self.weights
        self._asks = ASKED in self.weights
        self._any_shape = SHAPELESS in self.weights

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
        total = sum(get(name, 0.0) * value for name, value in source_features(proposal))
        span = proposal.span
        if span is not None and span.scored[0] == self.digest:
            return total + span.scored[1]
        return total + self._phrase_score(proposal)

    def _phrase_score(self, proposal: Proposal) -> float:
        get = self.weights.get
        total = self._sum(phrase_features(proposal))
        seen = None if proposal.span is None else proposal.span.seen
        for role, at in _roles(len(proposal.words)):
            word = proposal.words[at]
            total += self._word(*word[:2], *word[4:])[_ROLES.index(role)]
            if seen is not None:
                total += get(role + seen[at], 0.0)
        return total + self._sum(_head(proposal.words[-1]))

    def best_spans(
        self, video: VideoText, most: int | None = None, also: Container[str] = ()
    ) -> list[Span]:
        """The best spans of a video's text, best first, at most `most`; of those that say the same
        only one. Behind them, those of the signatures in `also` that are not among them.

        By the same sum as `scores` has for proposals that are nothing but spans, without writing
        down the features of each: there are a hundred of them in a text. Of the best, what they
        are also called stands among them; and Chinese queries of two pieces, where the weights know
        of any.
        """
        read = fields(video)
        found: list[tuple[float, int, bool, Extent | Pair]] = []
        for number, field in enumerate(read):
            worth = self._worth(field)
            found += ((-x, number, False, at) for x, at in self._field_spans(field, worth))
            if self._composes:
                found += ((-x, number, True, at) for x, at in self._pairs(field, worth))
        found.sort()
        keys: set[str] = set()
        kept: list[tuple[float, Span]] = []
        names: list[Span] = []
        behind: list[Span] = []
        for below, number, _, extent in found:
            field = read[number]
            full = len(kept) == most
            if full and not also:
                break
            key = signature(_said(field, extent))
            if key in keys or (full and key not in also):
                continue
            keys.add(key)
            one = _span(field, extent)._replace(scored=(self.digest, -below))
            if full:
                behind.append(one)
            else:
                kept.append((below, one))
                if not says_which(field, _last(extent)):
                    names.append(one)
        text = frozenset(word.key for field in read for word in field.words)
        kept += self._variants(names, text, keys)
        kept.sort(key=lambda one: one[0])
        dropped = [] if most is None else kept[most:]
        behind += [one for _, one in dropped if signature(one.words) in also]
        return [*(one for _, one in kept[:most]), *behind]

    def _variants(
        self, found: Sequence[Span], text: frozenset[str], keys: set[str]
    ) -> list[tuple[float, Span]]:
        """What spans are also called, with how bad each is; `keys` are signatures that there are
        already."""
        made: list[tuple[float, Span]] = []
        asked: list[tuple[float, Span]] = []
        for variant in variants(found, text, asked=self._asks):
            key = signature(variant.words)
            if key in keys:
                continue
            keys.add(key)
            score = self._phrase_score(Proposal(variant.text, variant.words, variant))
            kind = asked if ASKED in variant.context else made
            kind.append((-score, variant._replace(scored=(self.digest, score))))
        asked.sort(key=lambda one: one[0])
        return [*made, *asked[:MOST_ASKED]]

    def _worth(self, field: Field) -> _Worth:
        get = self.weights.get
        seen_as = {seen: [get(role + seen, 0.0) for role in _ROLES] for seen in {*field.seen}}
        rows = [
            list(map(add, self._word(*word[:2], *word[4:]), seen_as[seen]))
            for word, seen in zip(field.words, field.seen, strict=True)
        ]
        only, start, inner, end = map(list, zip(*rows, strict=True))
        for at, word in enumerate(field.words):
            if field.scripts[at] == "z":
                head = self._sum(head_features(word.text, word.tag))
                only[at] += head
                end[at] += head
        depth = [get(f"D:{count}:{field.among}", 0.0) for count in range(4)]
        return _Worth(only, start, list(accumulate(inner, initial=0.0)), end, depth)

    def _sum(self, names: Iterable[str]) -> float:
        get = self.weights.get
        return sum(get(name, 0.0) for name in names)

    def _field_spans(self, field: Field, worth: _Worth) -> list[tuple[float, Extent]]:
        only, start, before, end, depth = worth
        joints = list(accumulate(self._joints(field), initial=0.0))
        starts: dict[tuple[int, str], float] = {}
        ends: dict[tuple[int, str], float] = {}
        found = list(extents(field, any_shape=self._any_shape))
        shapeless_weight = self.weights.get(SHAPELESS, 0.0)
        scored = []
        for extent in (*found, *composed(field, found)):
            first, last, chars, lang, lead, shapeless = extent
            begin = first if lead < 0 else lead
            if (begin, lang) not in starts:
                starts[begin, lang] = self._sum(start_features(field, begin, lang))
            if (last, lang) not in ends:
                ends[last, lang] = self._sum(end_features(field, last, lang))
            total = starts[begin, lang] + ends[last, lang]
            total += self._length(lang, last - first + 1 + (lead >= 0), chars)
            total += depth[min(field.counts[first : last + 1])]
            total += joints[last + 1] - joints[first + 1]
            if shapeless:
                total += shapeless_weight
            if lead >= 0:
                total += self._sum(lead_features(field, extent))
                total += self._joint(
                    field.roles[lead],
                    field.roles[first],
                    go_together(field.words[lead], field.words[first]),
                )
                total += start[lead] + end[last] + before[last] - before[first]
            elif first == last:
                total += only[first]
            else:
                total += start[first] + end[last] + before[last] - before[first + 1]
            scored.append((round(total, 6), extent))
        return scored

    def _joints(self, field: Field) -> list[float]:
        """What each word's standing behind the one before it is worth."""
        roles = field.roles
        return [
            self._joint(roles[at - 1], roles[at], field.known[at]) if at else 0.0
            for at in range(len(roles))
        ]

    def _joint(self, before: str, after: str, known: bool) -> float:
        if not (before and after):
            return 0.0
        return self.weights.get(joint_feature(before, after, known), 0.0)

    def _pairs(self, field: Field, worth: _Worth) -> list[tuple[float, Pair]]:
        """Of the pieces that are the likeliest to begin, or to end, a composed query."""
        _, start, before, end, depth = worth
        counts = field.counts
        found = pieces(field)
        begin = sorted(
            (
                -self._sum(first_features(field, piece))
                - start[piece.first]
                - (before[piece.last + 1] - before[piece.first + 1]),
                piece,
            )
            for piece in found
        )[:PIECES]
        finish = sorted(
            (
                -self._sum(then_features(field, piece))
                - end[piece.last]
                - (before[piece.last] - before[piece.first]),
                piece,
            )
            for piece in found
        )[:PIECES]
        scored = []
        for less, first in begin:
            for less_still, then in finish:
                if not apart(field, first, then):
                    continue
                pair = Pair(first, then)
                count = first.last - first.first + then.last - then.first + 2
                total = -less - less_still
                total += depth[
                    min(counts[first.first : first.last + 1] + counts[then.first : then.last + 1])
                ]
                total += self._length("z", count, first.chars + then.chars)
                total += self._join(join(field, pair))
                if "l" in field.scripts:
                    total += self._sum(joint_features(pair_words(field, pair)))
                scored.append((round(total, 6), pair))
        return scored

    def _join_score(self, how: Join) -> float:
        return self._sum(join_features(how))

    def _length_score(self, lang: str, count: int, chars: int) -> float:
        return self._sum(shape_features(lang, count, chars))

    def _word_scores(self, text: str, key: str, tag: str, function: bool) -> tuple[float, ...]:
        """What a word is worth in each of `_ROLES`."""
        named = word_features(Word(text, key, 0, 0, tag, function))
        get = self.weights.get
        return tuple(sum(get(role + name, 0.0) for name in named) for role in _ROLES)


def _said(field: Field, at: Extent | Pair) -> tuple[Word, ...]:
    return said(field, at) if isinstance(at, Extent) else pair_words(field, at)


def _last(at: Extent | Pair) -> int:
    return at.last if isinstance(at, Extent) else at.then.last


def _span(field: Field, at: Extent | Pair) -> Span:
    return span(field, at) if isinstance(at, Extent) else compose(field, at)


@lru_cache(maxsize=1)
def shipped_ranker() -> Ranker:
    """The one for checkpoints without a ranker of their own."""
    return Ranker.load(SHIPPED)


def nearness(texts: Sequence[str], weights: Sequence[float]) -> NDArray[np.float64]:
    """For each text, how near it comes to each that may be wanted, (texts, wanted): their overlap
    (F1 of character pairs) times the probability that it is the one. What has less than a hundredth
    of the greatest weight doesn't count as wanted.
    """
    import numpy as np

    has = pair_matrix(texts)
    likely = np.asarray(weights, dtype=np.float64)
    wanted = likely >= likely.max(initial=0.0) / 100
    sizes = has.sum(axis=1)
    both = np.maximum(1.0, sizes[:, None] + sizes[wanted])
    found: NDArray[np.float64] = 2.0 * (has @ has[wanted].T) / both * likely[wanted]
    return found


def spread(near: NDArray[np.float64], k: int, kept: int = 0) -> list[int]:
    """Which `k` of some texts to show, given their `nearness`: those that together come nearest to
    what is wanted.

    The first `kept` are in whatever the others are worth; then, one by one, the text that adds
    most, the earlier where it makes no difference.
    """
    import numpy as np

    many = len(near)
    chosen = list(range(min(kept, k, many)))
    nearest = near[: len(chosen)].max(axis=0, initial=0.0)
    while len(chosen) < min(k, many):
        gains = np.maximum(near, nearest).sum(axis=1)
        gains[chosen] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        nearest = np.maximum(nearest, near[best])
    return chosen


def worth(near: NDArray[np.float64], weights: Sequence[float]) -> list[float]:
    """How good each text is as the one query that is read: the geometric mean of how likely it is
    and how near it comes to all that may be wanted.

    Of two that are as likely the nearer goes first: where it is wrong, it is less so.
    """
    sums = near.sum(axis=1).tolist()
    return [sqrt(to_all * weight) for to_all, weight in zip(sums, weights, strict=True)]
