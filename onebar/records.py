"""The nouns every package shares: plain, frozen records that do nothing."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

AnchorSource = Literal["behavior", "neighbor", "retrieved"]
"""What people did after this video; after one near it; or anywhere: a query of the log whose own
vector is near the video's."""
RuleAction = Literal["block", "allow", "pin", "learn"]
"""`learn` holds back as `block` does, but what it matches may be trained on."""
Pair = tuple[str, str | None]
"""A video, and who watches it, if anybody in particular."""


class VideoText(Struct, frozen=True, omit_defaults=True):
    """The text of a video (paper, section on evidence: T, and M in `summary`).

    Every field is UTF-8 text, empty where unknown. `sensitive` marks a video that must not
    carry a query whatever the model says; `removed` one that is gone, of which nothing else is
    kept.
    """

    title: str = ""
    caption: str = ""
    author: str = ""
    item_title: str = ""
    ocr: str = ""
    asr: str = ""
    summary: str = ""
    category: str = ""
    sensitive: bool = False
    removed: bool = False

    @property
    def barred(self) -> bool:
        """Whether the video must not carry any query."""
        return self.sensitive or self.removed


TEXT_FIELDS: tuple[str, ...] = tuple(
    name for name in VideoText.__struct_fields__ if name not in ("sensitive", "removed")
)
"""The fields of a `VideoText` that are text, in their order."""


class Anchor(Struct, frozen=True):
    """A query that other users' behaviour ties to a video, or that is near it (A of the evidence).

    `weight` is decayed to the moment of reading, in units of one search (> 0).
    """

    query: str
    weight: float
    source: AnchorSource = "behavior"
    showable: bool = True
    """Whether enough distinct users asked it that others may be shown it."""


class HistoryEntry(Struct, frozen=True):
    """A query a user searched or clicked, with its newest time (UTC epoch seconds)."""

    query: str
    ts: float


class QueryCounts(Struct, frozen=True):
    """How often one query was exposed, clicked and engaged with under one video."""

    exposures: int = 0
    clicks: int = 0
    engagements: int = 0


MAX_COUNTED = 64
"""Queries of a video whose counters a ranker looks at: the most exposed."""

NO_SEAL = bytes(8)
"""The seal of what is not there."""


class Seals(Struct, frozen=True):
    """What evidence stood under when it was read: what is made of it is void from the moment that
    the video's text (`video`) or the user's deletion (`user`) is another.

    Eight bytes each, compared and nothing else, so that no clock is trusted. `read_at` (UTC epoch
    seconds, None where the reader does not say) orders two readings of the same.
    """

    video: bytes = NO_SEAL
    user: bytes = NO_SEAL
    read_at: float | None = None


UNSEALED = Seals()


class Reactions(Struct, frozen=True):
    """What a user had to do with what bars showed them: the queries that they are tired of, tapped,
    and ordered by."""

    tired: frozenset[str] = frozenset()
    tapped: frozenset[str] = frozenset()
    ordered: frozenset[str] = frozenset()


NO_REACTIONS = Reactions()


class Features(Struct, frozen=True):
    """All that is known of one (video, user) pair: what one round trip to the store returns.

    `text` is None for a video never seen. `anchors` are strongest first, and only those that others
    may be shown; `history` is newest first and empty where no user was named.
    """

    text: VideoText | None = None
    anchors: tuple[Anchor, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    seals: Seals = UNSEALED
    counts: tuple[tuple[str, int, int, int], ...] = ()
    """(query, exposures, clicks, engagements) under the video, the most exposed first, at most
    `MAX_COUNTED`; empty unless they were asked for."""
    tired: frozenset[str] = frozenset()
    """Queries that all are tired of under this video."""
    reactions: Reactions = NO_REACTIONS
    """The user's own; none where no user was named."""

    @property
    def known(self) -> bool:
        """Whether anybody has heard of the video: its text was seen, or a query is tied to it."""
        return self.text is not None or bool(self.anchors)

    @property
    def sensitive(self) -> bool:
        """Whether the video must not carry a query: it is marked so, or removed."""
        return self.text is not None and self.text.barred

    @property
    def removed(self) -> bool:
        """Whether the video is gone."""
        return self.text is not None and self.text.removed


class Candidate(Struct, frozen=True):
    """One query. From an engine `score` is its log probability (<= 0), over its length to the power
    of the checkpoint's length penalty (0 for the shipped one); in an answer the log of how good the
    ranker holds it to be: between how likely it is what is wanted, among all that there was, and
    how near it comes to all of that."""

    text: str
    score: float
    propensity: float | UnsetType = UNSET
    """In an answer that explored: how likely the query was to stand where it stands (0 to 1]. Not
    told where nothing was left to chance: then it is 1."""


class QueryResult(Struct, frozen=True):
    """What one generation gave for one evidence: ordered queries, or a rejection.

    `rejected` is true exactly when `queries` is empty, and `rejection` says why then: the evidence
    was judged too weak or too risky, or nothing that was found may be shown
    (`onebar.recommending.candidates.Rejection`). `model` and `evidence_digest` name what it came
    from.
    """

    video_id: str
    queries: tuple[Candidate, ...]
    rejected: bool
    model: str
    evidence_digest: str
    generated_at: float
    rejection: str | UnsetType = UNSET


class CacheEntry(Struct, frozen=True):
    """A result on its way into the query cache.

    `user_id` None: the video's own, whoever watches. `shared`: this user gets what the video has,
    so only a mark is kept. `seals` are those of the evidence. `made` is what the model gave, where
    `result` is not all of it: it is what others whose prompt is the same start from. `passed` names
    the rules that the queries of `result` have passed.
    """

    result: QueryResult
    user_id: str | None = None
    shared: bool = False
    seals: Seals = UNSEALED
    made: QueryResult | None = None
    passed: int = 0
    kept: bool = True
    """Whether the pair is served it from now on; else only what has the same digest is."""


class Rule(Struct, frozen=True, omit_defaults=True, gc=False):
    """One decision. At most one of `query`, `word` and `pattern` says what it is about; the scope
    (`video_id`, `author`, `category`, `market`) and the period say where and when it holds. Who
    decided so, when and why stays with it.
    """

    rule_id: str
    action: RuleAction
    query: str = ""
    word: str = ""
    pattern: str = ""
    languages: tuple[str, ...] = ()
    video_id: str = ""
    author: str = ""
    category: str = ""
    market: str = ""
    starts: float | None = None
    ends: float | None = None
    who: str = ""
    why: str = ""
    ts: float = 0.0

    @property
    def text(self) -> str:
        """What it is about; empty for everything."""
        return self.query or self.word or self.pattern
