"""What goes over the wire: the records of requests and answers, and the OpenAPI made from them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from api.http.examples import EXAMPLES, problem_example
from api.http.problems import title_of
from onebar.records import Anchor, Candidate, HistoryEntry, Rule, RuleAction
from stream.events import MAX_QUERY_CHARS, Event

MAX_PAIRS = 256
"""Pairs in one batch request."""
MAX_K = 64
"""Queries of one answer, whatever the settings say."""
MAX_EVENTS = 1000
"""Events in one request."""

Language = Literal["ja", "zh", "ko", "th", "ar", "he", "hi", "bn", "ru", "el", "en"]
"""`onebar.gating.rules.LANGUAGES`."""
Constrain = Literal["open", "prefer", "only"]
"""`onebar.gating.repertoire.Constrain`."""
Source = Literal["cache", "generated", "fallback"]
Fallback = Literal["video", "anchors", "last_known", "empty"]
Reason = Literal[
    "deadline",
    "overload",
    "store_unavailable",
    "store_failed",
    "not_generating",
    "model_unavailable",
    "engine_failed",
    "sensitive",
    "risky",
    "unknown_video",
    "removed",
    "evidence_changed",
]

_ID = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}")
ID_RULE = "expected 1 to 256 characters, none of them a control character"


_NOT_IN_IDS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def are_in_ids(text: str) -> bool:
    """Whether all characters of `text` may stand in an id."""
    return text.isprintable() or _NOT_IN_IDS.search(text) is None


def is_id(text: str) -> bool:
    """Whether `text` can be the id of anything."""
    return _ID.fullmatch(text) is not None


class Answer(Struct, frozen=True):
    """The queries for one (video, user), best first.

    `source` says where they came from. A fallback says which: `video` is what the video has for
    everyone, `anchors` are what other people searched (`score` is the anchor's weight then, else
    a log probability), `empty` is nothing; and `reason` says why it was needed. `rejected` means
    that this video should carry no query, and `rejection` why: `sensitive` (it is marked), `risky`
    (its text), `no_evidence` (no word is known of it), `rejected` (by the model) or `nothing_left`
    (no candidate may be shown). `model` to `age_s` are null where nothing was generated.
    """

    request_id: str
    video_id: str
    user_id: str | None
    queries: tuple[Candidate, ...]
    source: Source
    rejected: bool
    model: str | None = None
    evidence_digest: str | None = None
    generated_at: float | None = None
    age_s: float | None = None
    fallback: Fallback | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    rejection: str | UnsetType = UNSET


_PATTERN = {"pattern": r"^[^\u0000-\u001f\u007f]*(?![\s\S])"}
"""What `api.routes.queries` checks, for the document. In a `Meta` it would cost as much as all
else that is done for a pair."""


def id_schema(least: int = 1) -> dict[str, Any]:
    """What an id looks like, for the document."""
    return {"type": "string", "minLength": least, "maxLength": 256, **_PATTERN}


class PairRequest(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A video, and who watches it."""

    video_id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            extra_json_schema=_PATTERN,
            description="An identifier: 1 to 256 characters, none of them a control character.",
        ),
    ]
    user_id: (
        Annotated[
            str,
            Meta(
                max_length=256,
                extra_json_schema=_PATTERN,
                description="Who watches; empty: nobody in particular.",
            ),
        ]
        | None
    ) = None


class BatchRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 256 pairs; they share one deadline, and every one is answered by it."""

    requests: Annotated[list[PairRequest], Meta(min_length=1, max_length=MAX_PAIRS)]
    k: Annotated[int, Meta(ge=1, le=MAX_K)] | None = None
    budget_ms: Annotated[float, Meta(ge=0)] | None = None
    exclude: Annotated[
        list[Annotated[str, Meta(max_length=MAX_QUERY_CHARS)]],
        Meta(max_length=1000, description="Queries that are not wanted: tapped already, ordered."),
    ] = []
    languages: Annotated[
        list[Language],
        Meta(description="Only queries in these, by their script; none: in any."),
    ] = []
    max_length: Annotated[int, Meta(ge=1, le=10_000, description="In characters.")] | None = None
    diversity: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="A query that shares more than 1 less this of its words with one before it "
            "is left out.",
        ),
    ] = 0.0
    constrain: (
        Annotated[
            Constrain,
            Meta(
                description="How strictly queries are of the repertoire: not at all, those of it "
                "first, or no others. Never less than the server is set to."
            ),
        ]
        | None
    ) = None


class BatchAnswer(Struct, frozen=True):
    """The answers, in the order of the requests."""

    results: list[Answer]


class Accepted(Struct, frozen=True, omit_defaults=True):
    """How many events Kafka has acknowledged."""

    accepted: int
    left_out: Annotated[
        int, Meta(ge=0, description="Objects that the mapping makes no event of; without it none.")
    ] = 0


class EvidenceAnswer(Struct, frozen=True):
    """What a generation for this pair would stand on: the prompt, and its parts T, M, A, H."""

    video_id: str
    user_id: str | None
    text: str
    summary: str
    anchors: tuple[str, ...]
    history: tuple[str, ...]
    prompt: str
    digest: str | None
    model: str | None
    sensitive: bool
    shared: bool


class VideoAnswer(Struct, frozen=True):
    """What is known of a video: its text, cleaned; `updated_at`, the `ts` of the event that it came
    with (UTC epoch seconds, null where none came yet); how many `queries` were counted under it,
    and how often they were shown, tapped and engaged with, all together.
    """

    video_id: str
    title: str
    caption: str
    author: str
    item_title: str
    ocr: str
    asr: str
    summary: str
    category: str
    sensitive: bool
    removed: bool
    updated_at: float | None
    queries: int
    exposures: int
    clicks: int
    engagements: int


class ShownAnchor(Struct, frozen=True):
    """A query that behaviour ties to a video, with what became of it when it was shown."""

    query: str
    weight: float
    source: Literal["behavior", "neighbor", "retrieved"]
    exposures: int
    clicks: int
    engagements: int


class AnchorsAnswer(Struct, frozen=True):
    """All anchors of a video, strongest first."""

    video_id: str
    anchors: list[ShownAnchor]


class HistoryAnswer(Struct, frozen=True):
    """The newest queries of a user, newest first."""

    user_id: str
    history: tuple[HistoryEntry, ...]


class FeedVideo(Struct, frozen=True):
    """A video of the feed. `seen_at`: when queries were generated for it last (UTC epoch seconds),
    null where it was asked for by its id."""

    video_id: str
    seen_at: float | None
    title: str
    caption: str
    author: str
    category: str
    summary: str
    item_title: str
    ocr: str
    asr: str
    sensitive: bool
    anchors: tuple[Anchor, ...]
    answer: Answer


class FeedAnswer(Struct, frozen=True):
    """The latest videos, newest first."""

    videos: list[FeedVideo]


class RuleRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A decision about what may be shown. At most one of `query`, `word` and `pattern` (of RE2's
    syntax) says what it is about; the rest says where, and from when until when (UTC epoch
    seconds), it holds, who decided so and why.
    """

    action: RuleAction
    query: str = ""
    word: str = ""
    pattern: str = ""
    languages: list[str] = []
    video_id: str = ""
    author: str = ""
    category: str = ""
    market: str = ""
    starts: float | UnsetType = UNSET
    ends: float | UnsetType = UNSET
    who: str = ""
    why: str = ""


class RulesAnswer(Struct, frozen=True):
    """Rules, by their ids; `total` is how many there are."""

    total: int
    rules: list[Rule]


class RuleAnswer(Struct, frozen=True):
    """A rule, null where it was taken back, and its changes, newest first."""

    rule: Rule | None
    history: list[dict[str, Any]]


class Deleted(Struct, frozen=True):
    """`log`: the deletion is in the log; `store`: and done."""

    log: bool
    store: bool


class Alive(Struct, frozen=True):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Struct, frozen=True):
    """`ok`, or why not, of everything an answer needs.

    `checkpoint` is the one that answers; `warning` says why the registry's current one does not.
    """

    ready: bool
    kafka: str
    redis: str
    model: str
    checkpoint: str | None = None
    warning: str | None = None


class Fault(Struct, frozen=True):
    """What is wrong, and with what: a parameter by its `name`, or an event of a list by its
    `index`, from 0.
    """

    detail: str
    name: str | UnsetType = UNSET
    index: int | UnsetType = UNSET


class Problem(Struct, frozen=True):
    """An error (RFC 9457). `errors` names each fault where there can be several; `request_id` is
    the request's own, as in the header X-Request-ID."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] | UnsetType = UNSET


_TYPES: tuple[Any, ...] = (
    Answer,
    BatchRequest,
    BatchAnswer,
    Accepted,
    EvidenceAnswer,
    VideoAnswer,
    AnchorsAnswer,
    HistoryAnswer,
    FeedAnswer,
    Rule,
    RuleRequest,
    RulesAnswer,
    RuleAnswer,
    Deleted,
    Alive,
    Readiness,
    Problem,
    Event,
)


def components(
    more: tuple[Any, ...] = (), *, k: int = MAX_K, budget_ms: float | None = None
) -> dict[str, Any]:
    """The JSON Schemas of all of them, for `#/components/schemas`; `more` are those of routes that
    have records of their own. `k` and `budget_ms` are the most that this server grants."""
    found, schemas = msgspec.json.schema_components(
        _TYPES + more, ref_template="#/components/schemas/{name}"
    )
    schemas["Event"] = found[_TYPES.index(Event)]  # a union has no name of its own
    batch = schemas["BatchRequest"]["properties"]
    for name, most in (("k", k), ("budget_ms", budget_ms)):
        for kind in batch[name]["anyOf"]:
            if kind["type"] != "null" and most is not None:
                kind["maximum"] = most
    return schemas


def reference(name: str) -> dict[str, Any]:
    """A reference to one of `components()`."""
    return {"$ref": f"#/components/schemas/{name}"}


def content(name: str) -> dict[str, Any]:
    """The `content` of an OpenAPI request or response."""
    return {"application/json": {"schema": reference(name)}}


_NAMED = {
    "description": "What the request is called: yours, where you sent an X-Request-ID fit to be "
    "repeated, else one made for it.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~:/+=@-]{1,128}$"},
    "example": "5f2d1c0b9a8e7d6c5b4a3928",
}


def complete(document: dict[str, Any]) -> None:
    """Put each record's example where the record is sent, and into every answer the header that
    names its request. Not by way of the framework, which leaves out of examples what is null."""
    document["components"]["headers"] = {"RequestId": _NAMED}
    named = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    for operations in document["paths"].values():
        for described in operations.values():
            for answer in described["responses"].values():
                answer["headers"] = named
            for holder in (described.get("requestBody", {}), *described["responses"].values()):
                for body in holder.get("content", {}).values():
                    name = body["schema"].get("$ref", "").rpartition("/")[2]
                    if name in EXAMPLES and not body.keys() & {"example", "examples"}:
                        body["example"] = EXAMPLES[name]


def responses(status: int, name: str, description: str) -> dict[int | str, Any]:
    """One OpenAPI response, with the problems that every route may give."""
    return {
        status: {"description": description, "content": content(name)},
        **problems(401, 403, 422, 429, 503),
    }


_PROBLEMS = {
    401: "No API key, or one that is not known.",
    403: "The API key lacks the scope.",
    404: "There is no such thing.",
    408: "The body was not there in time.",
    409: "It can't be done as things stand; `detail` says why.",
    413: "The body is too long.",
    415: "The body is not sent as application/json, as it is.",
    422: "A parameter or a part of the body is missing or wrong; `errors` names each.",
    429: "Too many requests; `Retry-After` says when to go on.",
    503: "Something behind the API is away, or there is too much to do; `Retry-After` says when to "
    "try again.",
}


def problems(*statuses: int) -> dict[int | str, Any]:
    """OpenAPI responses for these errors."""
    return {
        status: {
            "description": _PROBLEMS[status],
            "content": {
                "application/problem+json": {
                    "schema": reference("Problem"),
                    "example": problem_example(status, title_of(status)),
                }
            },
        }
        for status in statuses
    }
