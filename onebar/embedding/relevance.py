"""H by similarity: which of a user's queries touch a video, told by the embedder's space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onebar.embedding.encoder import EmbedderError, Encoder, load_encoder, read_card, static_module
from onebar.embedding.memo import Remembering
from onebar.evidence.evidence import Relevance, shares_a_term


class NearEnough:
    """A query touches a video from a similarity of their vectors on
    (`onebar.evidence.evidence.Relevance`).

    Vectors are remembered, so a query costs one dot product. Where the video's text has no vector
    (nothing in it is known to the embedder), terms decide. For one thread.
    """

    def __init__(self, encoder: Encoder, threshold: float) -> None:
        """`threshold`: the least cosine, -1 to 1."""
        self._encoder = Remembering(encoder)
        self._threshold = threshold

    def __call__(self, queries: Sequence[str], text: str, anchors: Sequence[str]) -> Sequence[bool]:
        [video] = self._encoder.encode([text])
        if not video.any():
            return shares_a_term(queries, text, anchors)
        # Row by row: a matrix product may round a row differently in another company.
        near = (self._encoder.encode(queries) * video).sum(axis=1)
        found: list[bool] = (near >= self._threshold).tolist()
        return found


def relevance_of(embedder: Path) -> Relevance:
    """What an embedder tells of histories. Raises `EmbedderError`, also where it can't: it was
    never calibrated, or is too slow to be asked while a user waits."""
    card = read_card(embedder)
    if card is None or card.history_threshold is None:
        raise EmbedderError(
            f"{embedder} does not say from which similarity on a query touches a video: "
            "`onebar embed calibrate --save`"
        )
    if static_module(embedder) is None:
        raise EmbedderError(f"{embedder} is no static embedder: it can't be asked for each request")
    return NearEnough(load_encoder(embedder), card.history_threshold)
