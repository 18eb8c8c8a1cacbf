"""What the API answers, as a client reads it: what a newer server adds is passed over."""

from __future__ import annotations

from msgspec import Struct

from onebar.records import Candidate


class Answer(Struct, frozen=True):
    """The queries for one (video, user), best first.

    `source` is `cache`, `generated` or `fallback`; a fallback says of which kind, and the `reason`.
    `rejected` means that this video should carry no query, and `rejection` says why. What is None
    was not generated.
    """

    request_id: str
    video_id: str
    queries: tuple[Candidate, ...]
    source: str
    rejected: bool = False
    user_id: str | None = None
    model: str | None = None
    evidence_digest: str | None = None
    generated_at: float | None = None
    """UTC epoch seconds."""
    age_s: float | None = None
    fallback: str | None = None
    reason: str | None = None
    rejection: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The queries' texts: what the bar shows."""
        return tuple(query.text for query in self.queries)


class Answers(Struct, frozen=True):
    """Those of one batch, in the order of its lookups."""

    results: tuple[Answer, ...]


class Accepted(Struct, frozen=True):
    """How many events Kafka has acknowledged."""

    accepted: int


class Fault(Struct, frozen=True):
    """What is wrong, and with what: a parameter by its `name`, or an event by its `index`."""

    detail: str
    name: str | None = None
    index: int | None = None


class Problem(Struct, frozen=True):
    """An error as the server tells it (RFC 9457)."""

    status: int
    detail: str = ""
    type: str = "about:blank"
    title: str = ""
    errors: tuple[Fault, ...] = ()
    request_id: str = ""
    """By which the server's log names the request."""
