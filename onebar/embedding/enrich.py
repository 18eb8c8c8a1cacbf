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


def look_around(triggers: Iterable[Trigger], encoder: Encoder, nearest: int) -> Iterator[Enriched]:
    """The triggers, in the order of their time, with their neighbours.

    What is known of a neighbour is what its own newest earlier trigger had for evidence: nothing of
    the future can be in it. Neighbours without an anchor are passed over.
    """
    index = VectorIndex(encoder.name, encoder.dim)
    known: dict[str, tuple[Anchor, ...]] = {}
    remaining = iter(triggers)
    while batch := list(islice(remaining, _BATCH)):
        vectors = encoder.encode([text_of_trigger(trigger) for trigger in batch])
        for at, trigger in enumerate(batch):
            own = vectors[at : at + 1]
            [found] = index.nearest(own, nearest + 1)
            yield Enriched(trigger, _with_anchors(found, known, trigger.video_id)[:nearest])
            if trigger.anchors:
                known[trigger.video_id] = ranked(trigger.anchors)
                index.put([trigger.video_id], own)


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
