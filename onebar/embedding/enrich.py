"""Neighbour anchors for the triggers of a dataset, each as it would have been at its moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from msgspec import Struct, structs

from onebar.embedding.encoder import Encoder, Vectors
from onebar.embedding.index import Near, VectorIndex
from onebar.embedding.memo import Remembering
from onebar.embedding.neighbors import NeighborConfig, neighbor_anchors
from onebar.embedding.queries import KnownQueries
from onebar.evidence.evidence import MAX_HISTORY, Relevance
from onebar.records import Anchor
from onebar.triggers import DatasetError, Trigger

_BATCH = 256


class Enriched(Struct, frozen=True):
    """A trigger, what its neighbours had by then, and what had been asked anywhere that is near it.

    `near` are the neighbours by similarity, each with its anchors of that moment; `retrieved` the
    nearest queries of the log, nearest first; `likeness` says how near each query is to the
    trigger.
    """

    trigger: Trigger
    near: tuple[tuple[float, tuple[Anchor, ...]], ...]
    retrieved: tuple[str, ...]
    likeness: Mapping[str, float]

    def anchors(self, config: NeighborConfig) -> tuple[Anchor, ...]:
        """The neighbour anchors under these settings."""
        return neighbor_anchors(
            self.near[: config.nearest],
            self.retrieved[: config.queries],
            lambda queries: [self.likeness[query] for query in queries],
            config,
        )


class Past:
    """What is known of every video so far, as triggers go by in the order of their time.

    What is known of a neighbour is what its own newest earlier trigger had for evidence, and what
    is known of the log what earlier triggers' users had asked before: nothing of the future can be
    in it. Neighbours without an anchor are passed over.
    """

    def __init__(self, encoder: Encoder, nearest: int, queries: int) -> None:
        """At most `nearest` neighbours and `queries` of the log are found for a trigger."""
        self._encoder = encoder
        self._queries = Remembering(encoder)
        self._nearest = nearest
        self._most = queries
        self._asked = KnownQueries(self._queries)
        self._index = VectorIndex(encoder.name, encoder.dim)
        self._known: dict[str, tuple[Anchor, ...]] = {}

    def follow(
        self, triggers: Iterable[Trigger], wanted: Callable[[Trigger], bool] = lambda one: True
    ) -> Iterator[Enriched]:
        """The next triggers with their neighbours; those that nobody wants are only learned from,
        and have none."""
        remaining = iter(triggers)
        while batch := list(islice(remaining, _BATCH)):
            vectors = self._encoder.encode([trigger.video_text for trigger in batch])
            for at, trigger in enumerate(batch):
                own = vectors[at : at + 1]
                yield self._near(trigger, own) if wanted(trigger) else Enriched(trigger, (), (), {})
                self._asked.note((trigger.user_id, query) for query in trigger.recent)
                if trigger.anchors:
                    self._known[trigger.video_id] = ranked(trigger.anchors)
                    self._index.put([trigger.video_id], own)

    def _near(self, trigger: Trigger, own: Vectors) -> Enriched:
        [found] = self._index.nearest(own, self._nearest + 1)
        near = _with_anchors(found, self._known, trigger.video_id)[: self._nearest]
        retrieved = self._retrieved(own)
        return Enriched(trigger, near, retrieved, self._likeness(own[0], near, retrieved))

    def _retrieved(self, own: Vectors) -> tuple[str, ...]:
        if not self._most:
            return ()
        return tuple(near.name for near in self._asked.nearest(own, self._most)[0])

    def _likeness(
        self,
        own: Vectors,
        near: Iterable[tuple[float, tuple[Anchor, ...]]],
        retrieved: Iterable[str],
    ) -> dict[str, float]:
        asked = (anchor.query for _, anchors in near for anchor in anchors)
        queries = list(dict.fromkeys(chain(asked, retrieved)))
        return dict(zip(queries, (self._queries.encode(queries) @ own).tolist(), strict=True))


def _with_anchors(
    found: Sequence[Near], known: dict[str, tuple[Anchor, ...]], own: str
) -> tuple[tuple[float, tuple[Anchor, ...]], ...]:
    return tuple((near.similarity, known[near.name]) for near in found if near.name != own)


def ranked(queries: Sequence[str]) -> tuple[Anchor, ...]:
    """Queries of which only the order is known, as anchors: the n-th weighs 1/n."""
    return tuple(Anchor(query, 1 / place) for place, query in enumerate(queries, 1))


def merged(found: Enriched, config: NeighborConfig, limit: int) -> Trigger:
    """The trigger with its neighbours' anchors behind its own, `limit` in all, as serving merges
    them. Theirs weigh 0: so they are told from its own."""
    own, weights = found.trigger.anchors, found.trigger.anchor_weights
    more = [anchor.query for anchor in found.anchors(config) if anchor.query not in own]
    anchors = (*own, *more)[:limit]
    known = len(weights) == len(own)
    weighed = (*weights, *(0.0 for _ in more))[:limit] if known else weights
    return structs.replace(found.trigger, anchors=anchors, anchor_weights=weighed)


def with_history(trigger: Trigger, relevance: Relevance, limit: int = MAX_HISTORY) -> Trigger:
    """The trigger with H chosen anew from the user's newest queries. Raises `DatasetError` where
    the dataset does not say what these were."""
    if trigger.history and not trigger.recent:
        raise DatasetError(
            "this dataset was made by a version that kept no `recent` queries: make it again"
        )
    touching = relevance(trigger.recent, trigger.video_text, trigger.anchors)
    kept = [query for query, yes in zip(trigger.recent, touching, strict=True) if yes]
    return structs.replace(trigger, history=tuple(kept[:limit]))
