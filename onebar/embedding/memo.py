"""Vectors of texts that come again and again, such as queries: worked out once, then looked up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from onebar.embedding.encoder import Encoder, Vectors

MOST = 16_384
"""Texts remembered: about 12 MB at 128 dimensions."""


class Remembering:
    """An encoder that remembers the vectors of the texts it was asked for last. One thread's."""

    def __init__(self, encoder: Encoder, *, most: int = MOST) -> None:
        self._encoder = encoder
        self._most = most
        self._known: OrderedDict[str, Vectors] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def dim(self) -> int:
        return self._encoder.dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), dim), as `onebar.embedding.encoder.Encoder` has it."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        found = np.empty((len(texts), self.dim), dtype=np.float32)
        for at, text in enumerate(texts):
            found[at] = self._known[text]
            self._known.move_to_end(text)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found
