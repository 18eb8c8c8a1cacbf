"""BAS@k: how close queries are to their trigger in an embedding space."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onebar.embedding.encoder import load_encoder
from onebar.evaluation.outcomes import Closeness
from onebar.triggers import Trigger


def embedder_closeness(name: str) -> Closeness:
    """The mean cosine of a video's text and the queries, by an embedder of `onebar embed train` or
    any sentence-transformers model: a directory, or a name on the hub. Raises `EmbedderError`."""
    encoder = load_encoder(name)

    def closeness(triggers: Sequence[Trigger], queries: Sequence[Sequence[str]]) -> Sequence[float]:
        texts = [trigger.video_text for trigger in triggers]
        known = sorted({*texts, *(query for each in queries for query in each)})
        vectors = encoder.encode(known)
        at = {text: number for number, text in enumerate(known)}
        found = []
        for text, given in zip(texts, queries, strict=True):
            cosines = [float(vectors[at[text]] @ vectors[at[query]]) for query in given]
            found.append(sum(cosines) / len(cosines) if cosines else math.nan)
        return found

    return closeness
