"""A served answer, explained back: the events of it, what it was made from, and by which model.

The evidence is made anew by folding what the log had taken of the video and of the user by the
moment at which the queries were made. Where its digest is that of the answer, the model read
exactly this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import floor
from typing import Literal

import msgspec
from msgspec import UNSET, Struct

from api.watching.explain import Explanation, explain
from feature_store.cache.query_cache import QueryCache
from feature_store.memory import MemoryStore
from feature_store.opening import cache_beside, open_live_store
from feature_store.store import FeatureStore
from feature_store.writes import InvalidWriteError
from onebar.errors import OneBarError
from onebar.evidence.text import clean_video, normalize_query
from onebar.gating.follow import RuleFollower
from onebar.generator.registry import Registry
from onebar.policy import StatePolicy
from onebar.recommending.live import LiveModel
from onebar.recommending.loading import LoadedModel, load_model, open_gate
from onebar.records import Features, QueryCounts
from onebar.settings import Settings
from stream.answers.placed import Made, Placed, user_of, video_of
from stream.answers.topics import Told, made_for
from stream.events import Click, Engagement, Event, Exposure, Removal, Search, Video
from stream.events.fold import fold

GENERATE_WITHIN_S = 10.0
APART_S = 5.0
"""How far the clocks of a feed and of ours may be apart."""

OfPair = Callable[[str, str | None, float], Awaitable[Sequence[Placed]]]
"""What the log had taken of a video and a user before a moment."""


class NotKeptError(OneBarError, LookupError):
    """Nothing that is kept names this answer; the text says what to keep."""


class Behind(Struct, frozen=True):
    """What people had done with a query under the video before the answer was made: how often, how
    many of them, and when last (UTC epoch seconds)."""

    searches: int = 0
    exposures: int = 0
    clicks: int = 0
    engagements: int = 0
    users: int = 0
    last: float | None = None


class Shown(Struct, frozen=True):
    """A query that the bar showed. `score` is that of the answer; `became` what came of it."""

    query: str
    position: int
    behind: Behind
    propensity: float | None = None
    score: float | None = None
    became: tuple[str, ...] = ()


class Served(Struct, frozen=True):
    """The list of queries that the answer was taken from, `age_s` before it was shown."""

    model: str
    evidence_digest: str
    generated_at: float
    age_s: float
    where: str


class OfAnswer(Struct, frozen=True):
    """An event that names the answer."""

    type: str
    ts: float
    where: str
    event_id: str


class Answered(Struct, frozen=True):
    """An answer. `rebuilt` says whether the evidence is what the model read: its digest is the
    answer's (`exact`), another (`near`), or there is none to compare with (`unknown`). `missing`
    says what could not be found, and what to keep so that it can be."""

    request_id: str
    video_id: str
    user_id: str | None
    at: float
    events: tuple[OfAnswer, ...]
    shown: tuple[Shown, ...]
    served: Served | None
    rebuilt: Literal["exact", "near", "unknown"]
    evidence: Explanation | None
    model: str | None
    missing: tuple[str, ...]


async def answered(
    settings: Settings,
    request_id: str,
    events: Sequence[Placed],
    of_pair: OfPair,
    told: Told,
) -> Answered:
    """All that can be said of an answer, from the events that name it, by time. Raises
    `NotKeptError`, and where Kafka or Redis is away."""
    missing: list[str] = []
    exposure = next((one.event for one in events if isinstance(one.event, Exposure)), None)
    first = exposure or next((one.event for one in events if video_of(one.event)), None)
    video_id = None if first is None else video_of(first)
    if first is None or video_id is None:
        raise NotKeptError(f"no event of a video names the request {request_id!r}")
    user_id = user_of(first)
    if exposure is None:
        missing.append(
            "what was shown: no exposure names this request. Have the feed send one with the "
            "answer's request_id (docs/connect-your-feed.md)"
        )
    store = await open_live_store(settings)
    try:
        cache = cache_beside(store, settings)
        served = await _served(settings, cache, video_id, user_id, first.ts, exposure, told)
        if served is None:
            missing.append(
                "the list that was served: onebar.queries keeps what generators made for a day, "
                "the cache for ONEBAR_CACHE_HARD_TTL_S, and neither has one from before that "
                "moment with these queries. Raise retention.ms of onebar.queries to look further "
                "back. An answer that fell back to anchors, or was made by the API itself, is on "
                "no topic"
            )
        moment = first.ts if served is None else served.generated_at
        # Kafka's times are whole milliseconds, and what it took in the same one came too late.
        log = await of_pair(video_id, user_id, floor(moment * 1000) / 1000)
        evidence, model = None, None
        rebuilt: Literal["exact", "near", "unknown"] = "unknown"
        try:
            evidence, model, same = await _evidence(
                settings, store, cache, log, (video_id, user_id), moment, served, missing
            )
        except OneBarError as error:
            missing.append(f"the evidence: {error}")
        else:
            if served is not None:
                rebuilt = "exact" if same else "near"
            if rebuilt == "near":
                missing.append(
                    "exactly what the model read: the evidence made anew from the log has another "
                    "digest. The log looked at may begin too late (--days), a neighbour's anchors "
                    "are those of now, and so are the rules"
                )
    finally:
        await store.close()
    return Answered(
        request_id=request_id,
        video_id=video_id,
        user_id=user_id,
        at=first.ts,
        events=tuple(
            OfAnswer(one.event.type, one.event.ts, one.where, one.event.event_id) for one in events
        ),
        shown=() if exposure is None else _shown(exposure, events, log, served),
        served=None
        if served is None
        else Served(
            served.model,
            served.evidence_digest,
            served.generated_at,
            round(max(0.0, first.ts - served.generated_at), 3),
            served.where,
        ),
        rebuilt=rebuilt,
        evidence=evidence,
        model=model,
        missing=tuple(missing),
    )


async def _served(
    settings: Settings,
    cache: QueryCache,
    video_id: str,
    user_id: str | None,
    at: float,
    exposure: Exposure | None,
    told: Told,
) -> Made | None:
    since = at - settings.cache_hard_ttl_s - APART_S
    made = [
        one
        for whose, one in await made_for(settings, video_id, since, told)
        if whose in (None, user_id)
    ]
    [lookup] = await cache.lookup([(video_id, user_id)])
    for body, whose in ((lookup.personal, "the user"), (lookup.video, "the video")):
        if body is not None:
            result = body.result()
            made.append(
                Made(
                    result.queries,
                    result.model,
                    result.evidence_digest,
                    result.generated_at,
                    f"the cache of {whose}",
                )
            )
    return newest_with(made, at, exposure)


def newest_with(made: Sequence[Made], at: float, exposure: Exposure | None) -> Made | None:
    """The newest list from before a moment that has all that was shown; pure."""
    wanted = set() if exposure is None else {_same(shown.query) for shown in exposure.queries}
    fit = [
        one
        for one in made
        if one.generated_at <= at + APART_S
        and wanted <= {_same(query.text) for query in one.queries}
    ]
    return max(fit, key=lambda one: one.generated_at, default=None)


def _same(query: str) -> str:
    return normalize_query(query)


async def _evidence(
    settings: Settings,
    store: FeatureStore,
    cache: QueryCache,
    log: Sequence[Placed],
    pair: tuple[str, str | None],
    moment: float,
    served: Made | None,
    missing: list[str],
) -> tuple[Explanation, str, bool]:
    """The evidence of that moment taken apart, by which model, and whether it is what the answer
    stood on."""
    gate = open_gate(settings)
    await RuleFollower(store, gate).look()
    [now] = await store.features([pair], counted=True)
    features, counts = as_of(log, pair, moment, now, settings.policy)
    loaded = await asyncio.to_thread(_model, settings, None if served is None else served.model)
    if served is not None and loaded.name != served.model:
        missing.append(
            f"the model {served.model}, which served: the settings name {loaded.name}, and the "
            "candidates are its. Name the other by ONEBAR_CHECKPOINT, or keep it in the registry"
        )
    live = LiveModel(settings, store, cache, gate=gate)
    await live.open(loaded)
    try:
        with live.use() as recommender:
            grounding = recommender.ground(pair, features, moment)
            if not grounding.known:
                raise NotKeptError("neither the log nor Redis knows of the video at that moment")
            deadline = asyncio.get_running_loop().time() + GENERATE_WITHIN_S
            beam = await recommender.beam(grounding, deadline=deadline)
            explanation = explain(
                grounding,
                beam,
                recommender.chosen(grounding, beam),
                recommender.taste,
                gate,
                settings.k,
                moment,
                counts,
            )
            digests = {grounding.digest, grounding.video_digest}
            same = served is not None and served.evidence_digest in digests
            return explanation, recommender.model, same
    finally:
        await live.close()


def _model(settings: Settings, name: str | None) -> LoadedModel:
    """The model of that name where the registry has it, else the one that the settings name."""
    if name is not None and settings.registry is not None:
        registry = Registry(settings.registry)
        if name in {entry.name for entry in registry.entries()}:
            path = registry.checkpoint_path(name)
            return load_model(settings.model_copy(update={"registry": None, "checkpoint": path}))
    return load_model(settings)


def as_of(
    log: Sequence[Placed],
    pair: tuple[str, str | None],
    moment: float,
    now: Features,
    policy: StatePolicy,
) -> tuple[Features, dict[str, QueryCounts]]:
    """What was known of a pair at a moment, and the counters of its video. What the log does not
    tell is as it is `now`: the text of a video that it has no event of, neighbours' anchors, older
    history. Pure."""
    store = MemoryStore(policy)
    video_id, user_id = pair
    told = False
    for placed in sorted(log, key=lambda one: one.taken_at):
        told |= isinstance(placed.event, (Video, Removal)) and placed.event.video_id == video_id
        try:
            for write in fold(placed.event, clean_video):
                store.apply(write, None)
        except InvalidWriteError:
            continue
    store.put_neighbors(video_id, [one for one in now.anchors if one.source != "behavior"])
    [then] = store.features([pair], now=moment, counted=True)
    if not told:
        then = msgspec.structs.replace(then, text=now.text)
    known = {entry.query for entry in then.history}
    began = min((placed.taken_at for placed in log), default=moment)
    older = [one for one in now.history if one.ts < began and one.query not in known]
    if older and user_id is not None:
        history = (*then.history, *older)[: policy.history_size]
        then = msgspec.structs.replace(then, history=history)
    return then, dict(store.counts(video_id))


def _shown(
    exposure: Exposure, events: Sequence[Placed], log: Sequence[Placed], served: Made | None
) -> tuple[Shown, ...]:
    scores = {} if served is None else {_same(one.text): one.score for one in served.queries}
    return tuple(
        Shown(
            query=shown.query,
            position=shown.position,
            behind=behind(log, exposure.video_id, shown.query),
            propensity=None if shown.propensity is UNSET else shown.propensity,
            score=scores.get(_same(shown.query)),
            became=tuple(
                _became(one.event, shown.query) for one in events if _of(one, shown.query)
            ),
        )
        for shown in sorted(exposure.queries, key=lambda one: one.position)
    )


def _of(placed: Placed, query: str) -> bool:
    event = placed.event
    return isinstance(event, (Click, Engagement)) and _same(event.query) == _same(query)


def _became(event: Event, query: str) -> str:
    return event.kind if isinstance(event, Engagement) else "click"


def behind(log: Sequence[Placed], video_id: str, query: str) -> Behind:
    """What people had done with a query under a video; each event once. Pure."""
    wanted = _same(query)
    counts = {Search: 0, Exposure: 0, Click: 0, Engagement: 0}
    users: set[str] = set()
    last: float | None = None
    seen: set[str] = set()
    for event in (placed.event for placed in log):
        if not isinstance(event, (Search, Exposure, Click, Engagement)):
            continue
        if event.video_id != video_id or event.event_id in seen:
            continue
        queries = (
            [one.query for one in event.queries] if isinstance(event, Exposure) else [event.query]
        )
        if wanted not in map(_same, queries):
            continue
        seen.add(event.event_id)
        counts[type(event)] += 1
        if not isinstance(event, Exposure):
            users.add(event.user_id)
            last = event.ts if last is None else max(last, event.ts)
    return Behind(
        counts[Search], counts[Exposure], counts[Click], counts[Engagement], len(users), last
    )
