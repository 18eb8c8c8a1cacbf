"""Neighbour anchors for the triggers of a dataset, each as it would have been at its moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from msgspec import Struct, structs

from feature_store.records import Anchor
from onebar.embedding.encoder import Encoder
from onebar.embedding.index import Near, VectorIndex
from onebar.embedding.neighbors import NeighborConfig, neighbor_anchors
from onebar.embedding.texts import text_of_trigger
from onebar.training.triggers import Trigger

_BATCH = 256


class Enriched(Struct, frozen=True):
    """A trigger, and what its neighbours had by then. `near` are the neighbours, whatever the
    threshold, each with its anchors of that moment."""

    trigger: Trigger
    near: tuple[tuple[float, tuple[Anchor, ...]], ...]

    def anchors(self, config: NeighborConfig) -> tuple[Anchor, ...]:
        """The neighbour anchors under these settings."""
        kept = [pair for pair in self.near[: config.nearest] if pair[0] >= config.threshold]
        return neighbor_anchors(kept, config)


class Past:
    """What is known of every video so far, as triggers go by in the order of their time.

    What is known of a neighbour is what its own newest earlier trigger had for evidence: nothing of
    the future can be in it. Neighbours without an anchor are passed over.
    """

    def __init__(self, encoder: Encoder, nearest: int) -> None:
        self._encoder = encoder
        self._nearest = nearest
        self._index = VectorIndex(encoder.name, encoder.dim)
        self._known: dict[str, tuple[Anchor, ...]] = {}

    def follow(self, triggers: Iterable[Trigger]) -> Iterator[Enriched]:
        """The next triggers with their neighbours."""
        remaining = iter(triggers)
        while batch := list(islice(remaining, _BATCH)):
            vectors = self._encoder.encode([text_of_trigger(trigger) for trigger in batch])
            for at, trigger in enumerate(batch):
                own = vectors[at : at + 1]
                [found] = self._index.nearest(own, self._nearest + 1)
                near = _with_anchors(found, self._known, trigger.video_id)
                yield Enriched(trigger, near[: self._nearest])
                if trigger.anchors:
                    self._known[trigger.video_id] = ranked(trigger.anchors)
                    self._index.put([trigger.video_id], own)


def _with_anchors(
    found: Sequence[Near], known: dict[str, tuple[Anchor, ...]], own: str
) -> tuple[tuple[float, tuple[Anchor, ...]], ...]:
    return tuple((near.similarity, known[near.name]) for near in found if near.name != own)


def ranked(queries: Sequence[str]) -> tuple[Anchor, ...]:
    """Queries of which only the order is known, as anchors: the n-th weighs 1/n."""
    return tuple(Anchor(query, 1 / place) for place, query in enumerate(queries, 1))


def merged(found: Enriched, config: NeighborConfig, limit: int) -> Trigger:
    """The trigger with its neighbours' anchors behind its own, `limit` in all, as serving merges
    them."""
    own = found.trigger.anchors
    more = [anchor.query for anchor in found.anchors(config) if anchor.query not in own]
    return structs.replace(found.trigger, anchors=(*own, *more)[:limit])
