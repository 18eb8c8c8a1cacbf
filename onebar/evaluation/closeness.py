"""BAS@k: how close queries are to their trigger in an embedding space."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onebar.evaluation.outcomes import Closeness
from onebar.training.triggers import Trigger


class EmbedderError(ValueError):
    """An embedding model that can't be loaded. The text names it."""


def embedder_closeness(name: str) -> Closeness:
    """The mean cosine of a video's text and the queries, by a sentence-transformers model: a
    directory, or a name on the hub. Needs the extra `embed`. Raises `EmbedderError`."""
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(name)
    except Exception as error:
        raise EmbedderError(
            f"{name} can't be loaded as a sentence-transformers model: {error}"
        ) from error

    def closeness(triggers: Sequence[Trigger], queries: Sequence[Sequence[str]]) -> Sequence[float]:
        texts = [f"{trigger.text} {trigger.summary}" for trigger in triggers]
        known = sorted({*texts, *(query for each in queries for query in each)})
        vectors = model.encode(known, normalize_embeddings=True, show_progress_bar=False)
        at = {text: number for number, text in enumerate(known)}
        found = []
        for text, given in zip(texts, queries, strict=True):
            cosines = [float(vectors[at[text]] @ vectors[at[query]]) for query in given]
            found.append(sum(cosines) / len(cosines) if cosines else math.nan)
        return found

    return closeness
