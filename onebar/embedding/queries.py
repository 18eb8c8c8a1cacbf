"""Queries of the log by vector: what can be retrieved for a video nobody near it was asked after.

The paper's second source of anchors are history queries found in the logs by retrieval; here the
retriever is the behaviour-aligned space itself, so that a new video costs one look-up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from onebar.embedding.encoder import Encoder, Vectors
from onebar.embedding.index import Near, VectorIndex

MOST = 200_000
"""Queries kept: about 1 KB each."""


class KnownQueries:
    """The queries that enough users asked, in an index that grows with the log.

    What only one ever asked stays with that one: it may be a slip, or say who they are. Of the
    others, and of those that wait for further users, the `most` asked last are kept. One thread's.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex | None = None,
        *,
        most: int = MOST,
        users: int = 2,
    ) -> None:
        """`index`: what is known already, such as that of a snapshot. `users`: how many have to ask
        a query, two at least."""
        self._encoder = encoder
        self._most = most
        self.index = VectorIndex(encoder.name, encoder.dim) if index is None else index
        # Asked last at the end. Of a user only a number is kept, which names nobody.
        self._known: OrderedDict[str, None] = OrderedDict.fromkeys(self.index)
        self._waiting: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._users = max(2, users)

    def __len__(self) -> int:
        return len(self.index)

    def note(self, asked: Iterable[tuple[str, str]]) -> None:
        """Users and the normalised queries they searched or tapped, in the order of the log."""
        new: dict[str, None] = {}
        for user_id, query in asked:
            if query in self._known:
                self._known.move_to_end(query)
            elif query not in new:
                users = self._waiting.get(query, ())
                if (user := hash(user_id)) not in users:
                    self._waiting[query] = users = (*users, user)
                if len(users) >= self._users:
                    del self._waiting[query]
                    new[query] = None
        while len(self._waiting) > self._most:
            self._waiting.popitem(last=False)
        if not new:
            return
        queries = list(new)
        self.index.put(queries, self._encoder.encode(queries))
        self._known.update((query, None) for query in queries if query in self.index)
        while len(self._known) > self._most:
            oldest, _ = self._known.popitem(last=False)
            self.index.remove(oldest)

    def nearest(self, vectors: Vectors, k: int) -> list[list[Near]]:
        """For each of the vectors (n, dim) the `k` nearest queries, nearest first."""
        return self.index.nearest(vectors, k)
