"""Why this query: everything that a list of queries was made from, and what was left out; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Literal

from msgspec import Struct

from onebar.evidence.prompt import PART
from onebar.evidence.text import REJECT, SEP
from onebar.gating.gate import Gate, about_of
from onebar.recommending.candidates import Chosen, proposals
from onebar.recommending.grounding import presentable
from onebar.recommending.pool import LEAST_SHARE, POOL, Pool, Taste
from onebar.recommending.ranker import Proposal
from onebar.recommending.recommend import Grounding
from onebar.records import AnchorSource, Candidate, HistoryEntry, QueryCounts

Origin = Literal["model", "anchor", "neighbor", "history", "text", "known", "pinned"]
FieldName = Literal["T", "M", "A", "H"]
FIELDS: tuple[FieldName, ...] = ("T", "M", "A", "H")
MOST_SPANS = 6
"""Spans of the text that are told of though they are not shown: there are hundreds."""


class Segment(Struct, frozen=True):
    """One field of the prompt, as the model reads it; empty where nothing is known."""

    field: FieldName
    text: str


class ToldAnchor(Struct, frozen=True):
    """An anchor, whether the prompt has room for it, and what became of it when it was shown."""

    query: str
    weight: float
    source: AnchorSource
    in_prompt: bool
    exposures: int
    clicks: int
    engagements: int


class ToldHistory(Struct, frozen=True):
    """A query of the user. `used`: it bears on this video, so it is part of the evidence."""

    query: str
    ts: float
    used: bool


class ToldCandidate(Struct, frozen=True):
    """A query that might be shown.

    `position` is its place in the list, from 0; else `held` says why it has none: `rule`,
    `personal` or `harmful` by the gate (`detail`: which rule or kind), `unlikely` or `no_room` by
    the ranker, or what `onebar.recommending.grounding.Drop` names. `score` is that of the answer
    where the ranker chose it, else its log probability by the ranker, and None where it was dropped
    before; `model` is the generator's log probability, where the generator said it; `weight` the
    anchor's, in steps.
    """

    text: str
    origins: tuple[Origin, ...]
    score: float | None = None
    model: float | None = None
    weight: float | None = None
    position: int | None = None
    held: str | None = None
    detail: str = ""


class Explanation(Struct, frozen=True):
    """What a list made now would stand on. `reason`: why it would be empty. `candidates` are the
    shown first, in their order, then the others, best first."""

    prompt: str
    segments: tuple[Segment, ...]
    anchors: tuple[ToldAnchor, ...]
    history: tuple[ToldHistory, ...]
    candidates: tuple[ToldCandidate, ...]
    reason: str | None
    digest: str
    shared: bool


def explain(
    grounding: Grounding,
    beam: Sequence[Candidate],
    chosen: Chosen,
    taste: Taste,
    gate: Gate,
    k: int,
    now: float,
    counts: Mapping[str, QueryCounts],
) -> Explanation:
    """The list for `grounding`, taken apart. `beam` is what the model gives for its prompt (empty
    where nothing is generated), `chosen` what the recommender makes of it, `counts` what became of
    each query under the video."""
    about = about_of(grounding.pair[0], grounding.features)
    gated = gate.apply(chosen.queries, about, now, pins=not grounding.sensitive)
    every = [] if grounding.unfit else proposals(grounding.material, beam, taste, spans=POOL)
    scores = (taste.scorer or taste.ranker).scores(every, grounding.material) if every else []
    raw = {proposal.text: score for proposal, score in zip(every, scores, strict=True)}
    top = max(raw.values(), default=0.0)
    total = top + log(sum(exp(score - top) for score in scores) or 1.0)
    served = {query.text: query.score for query in chosen.queries}
    place = {query.text: at for at, query in enumerate(gated.queries[:k])}
    held = {why.query: why for why in gated.held}
    told: list[ToldCandidate] = []
    spans = 0
    for proposal in sorted(every, key=lambda each: -raw[each.text]):
        score = served.get(proposal.text, raw[proposal.text] - total)
        origins = _origins(proposal)
        if proposal.text not in place and proposal.text not in held and origins == ("text",):
            spans += 1
            if spans > MOST_SPANS:
                continue
        why, detail = None, ""
        if (gate_says := held.get(proposal.text.casefold()) or held.get(proposal.text)) is not None:
            why, detail = gate_says.reason, gate_says.detail
        elif proposal.text not in place:
            why = "unlikely" if raw[proposal.text] < top + log(LEAST_SHARE) else "no_room"
        told.append(
            ToldCandidate(
                text=proposal.text,
                origins=origins,
                score=round(score, 4),
                model=None if proposal.beam is None else round(proposal.log_probability, 4),
                weight=proposal.weight if proposal.anchor is not None else None,
                position=place.get(proposal.text),
                held=why,
                detail=detail,
            )
        )
    known = {candidate.text for candidate in told}
    told += [
        ToldCandidate(query.text, ("pinned",), query.score, position=place[query.text])
        for query in gated.queries[:k]
        if query.text not in known
    ]
    told += _dropped(grounding, beam, taste)
    told.sort(key=lambda each: (each.position is None, each.position or 0, -(each.score or -99.0)))
    reason = None if chosen.reason is None else str(chosen.reason)
    if reason is None and not gated.queries:
        reason = "held_back"
    return Explanation(
        prompt=grounding.prompt,
        segments=segments(grounding.prompt),
        anchors=_anchors(grounding, counts),
        history=_history(grounding.features.history, grounding.evidence.history),
        candidates=tuple(told),
        reason=reason,
        digest=grounding.digest,
        shared=grounding.shared,
    )


def segments(prompt: str) -> tuple[Segment, ...]:
    """The prompt's fields, in their order; a prompt of another form is one segment of T."""
    parts = prompt.split(SEP)
    if len(parts) != len(FIELDS):
        return (Segment("T", prompt),)
    return tuple(Segment(field, part.strip()) for field, part in zip(FIELDS, parts, strict=True))


def _origins(proposal: Proposal) -> tuple[Origin, ...]:
    found: list[Origin] = []
    if proposal.beam is not None:
        found.append("model")
    if proposal.anchor is not None:
        found.append("neighbor" if proposal.near else "anchor")
    if proposal.history is not None:
        found.append("history")
    if proposal.span is not None:
        found.append("text")
    if proposal.book is not None:
        found.append("known")
    return tuple(found)


def _anchors(grounding: Grounding, counts: Mapping[str, QueryCounts]) -> tuple[ToldAnchor, ...]:
    read = segments(grounding.prompt)
    inside = set(read[2].text.split(PART)) if len(read) == len(FIELDS) else set()
    none = QueryCounts()
    return tuple(
        ToldAnchor(
            anchor.query,
            round(anchor.weight, 3),
            anchor.source,
            anchor.query in inside,
            *(
                (count := counts.get(anchor.query, none)).exposures,
                count.clicks,
                count.engagements,
            ),
        )
        for anchor in grounding.features.anchors
    )


def _history(every: Sequence[HistoryEntry], used: Sequence[str]) -> tuple[ToldHistory, ...]:
    return tuple(ToldHistory(entry.query, entry.ts, entry.query in used) for entry in every)


def _dropped(grounding: Grounding, beam: Sequence[Candidate], taste: Taste) -> list[ToldCandidate]:
    """What the model said and nothing was made of, each with its reason."""
    found = []
    for candidate in beam:
        if candidate.text.strip() == REJECT:
            continue
        alone = Pool(grounding.material, taste)
        alone.add_beam((candidate,))
        if alone.dropped:
            [why] = alone.dropped
            told = presentable(candidate.text) or candidate.text.strip()
            score = round(candidate.score, 4)
            found.append(ToldCandidate(told, ("model",), model=score, held=str(why)))
    return found
