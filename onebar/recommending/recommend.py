"""From (video, user) pairs to queries: evidence, prompt, digest, cache, model, cache.

Knows its store and cache only by the protocols below, which `feature_store.store.FeatureStore`
and `feature_store.cache.query_cache.QueryCache` satisfy.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog
from msgspec import UNSET, Struct

from onebar.errors import OneBarError
from onebar.evidence.evidence import Evidence, Relevance, assemble, shares_a_term
from onebar.evidence.prompt import PromptConfig, build_prompt, evidence_digest
from onebar.evidence.text import normalize_query
from onebar.gating.gate import Gate, about_of, own_anchors
from onebar.gating.held import count_held
from onebar.gating.repertoire import Constrain, stricter
from onebar.generator.batching import DeadlineExceededError, QueueFullError
from onebar.generator.engine import EngineError
from onebar.generator.within import Within
from onebar.process.tracing import span
from onebar.process.turns import turns
from onebar.recommending.candidates import BARRED, Chosen, Rejection, choose, unfit
from onebar.recommending.material import Material, material
from onebar.recommending.pool import Bounds, Taste, shipped_taste
from onebar.recommending.settling import LeaveOut, settle
from onebar.records import CacheEntry, Candidate, Features, Pair, QueryResult

log = structlog.get_logger(__name__)


class UnknownVideoError(OneBarError, LookupError):
    """Nothing is known of a video: no text was seen and no behaviour names it."""

    def __init__(self, video_id: str) -> None:
        super().__init__(f"video {video_id!r} is unknown: no video event and no behaviour named it")
        self.video_id = video_id


class EvidenceChangedError(OneBarError):
    """The video's text changed, or the user was forgotten, each time while queries were made of
    what had been read: what was made is served to nobody."""

    def __init__(self, video_id: str) -> None:
        super().__init__(
            f"what is known of video {video_id!r} changes faster than queries are made"
        )
        self.video_id = video_id


NEAR = 32
"""Queries of the repertoire that a constrained generation is told of beside its prompt."""
BEAMS = 1024
"""Prompts whose candidates are remembered, where each user may get them in another order."""
ATTEMPTS = 3
"""Times that queries are made anew because their evidence changed meanwhile."""


class FeatureReader(Protocol):
    """Where evidence comes from."""

    async def features(self, pairs: Sequence[Pair], *, counted: bool = False) -> list[Features]:
        """What is known of each pair, in one round trip; with `counted` the videos' counters."""
        ...


class CachedResult(Protocol):
    """A cached body that can be read back."""

    def result(self) -> QueryResult: ...


class ResultCache(Protocol):
    """Where results are kept."""

    async def by_digest(self, digests: Sequence[str]) -> Sequence[CachedResult | None]: ...

    async def put(self, entries: Sequence[CacheEntry]) -> Sequence[bool]:
        """Whether each still stands on what is known at this moment."""
        ...


class PromptRunner(Protocol):
    """What computes candidates: `onebar.generator.batching.Batcher`."""

    @property
    def model(self) -> str: ...

    def begin(
        self, prompt: str, *, within: Within | None = None, deadline: float | None = None
    ) -> asyncio.Future[list[Candidate]]: ...


class Grounding(Struct, frozen=True):
    """A pair with all that its generation stands on.

    `video_prompt`, `video_material` and `video_digest` are those of the video whoever watches;
    equal to `prompt`, `material` and `digest` where the user's history adds nothing. `unfit` says
    why nothing is generated from it, whoever watches. `read_at` is when the features were read, at
    the latest (UTC epoch seconds). `constrain` says how strictly its queries are of the repertoire.
    """

    pair: Pair
    features: Features
    evidence: Evidence
    prompt: str
    material: Material
    digest: str
    video_prompt: str
    video_material: Material
    video_digest: str
    read_at: float
    unfit: Rejection | None = None
    constrain: Constrain = "open"

    @property
    def known(self) -> bool:
        """Whether the video has any evidence at all."""
        return self.features.known

    @property
    def sensitive(self) -> bool:
        return self.features.sensitive

    @property
    def shared(self) -> bool:
        """Whether the user gets what everyone gets."""
        return self.digest == self.video_digest


class Remembered:
    """What was generated for the latest prompts. A ranker that has learned from clicks puts the
    same candidates in another order for each user; the generation is made once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._beams: OrderedDict[str, list[Candidate]] = OrderedDict()

    def get(self, prompt: str) -> list[Candidate] | None:
        """The candidates of a prompt; None where they are not remembered."""
        found = self._beams.get(prompt)
        if found is not None:
            self._beams.move_to_end(prompt)
        return found

    def put(self, prompt: str, beam: list[Candidate]) -> None:
        """Remember it; the one that was not asked for the longest goes."""
        if self._most:
            self._beams[prompt] = beam
            self._beams.move_to_end(prompt)
            if len(self._beams) > self._most:
                self._beams.popitem(last=False)


class Recommender:
    """Answers pairs. One instance serves many concurrent calls on one event loop."""

    def __init__(
        self,
        store: FeatureReader,
        cache: ResultCache,
        batcher: PromptRunner,
        *,
        prompt_config: PromptConfig | None = None,
        relevance: Relevance = shares_a_term,
        taste: Taste | None = None,
        gate: Gate | None = None,
        k: int = 8,
        leave_out: LeaveOut = "nothing",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._cache = cache
        self._runner = batcher
        self._config = prompt_config or PromptConfig()
        self._relevance = relevance
        self._taste = taste or shipped_taste()
        self.counted = self._taste.scorer is not None
        self._beams = Remembered(BEAMS if self.counted else 0)
        self.gate = Gate() if gate is None else gate
        self._k = k
        self._leave_out = leave_out
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def model(self) -> str:
        """The name of the checkpoint that answers."""
        return self._runner.model

    def ground(
        self,
        pair: Pair,
        features: Features,
        now: float | None = None,
        constrain: Constrain | None = None,
    ) -> Grounding:
        """Evidence, prompt and digest of one pair. `now` is when the features were read, where they
        don't say so themselves; `constrain` holds where it is stricter than the gate's."""
        mode = stricter(self.gate.constrain, constrain)
        read_at = features.seals.read_at
        if read_at is None:
            read_at = self._clock() if now is None else now
        evidence = assemble(
            features,
            max_anchors=self._config.max_anchors,
            max_history=self._config.max_history,
            neighbors=self._config.neighbors,
            relevance=self._relevance,
        )
        prompt = build_prompt(evidence, self._config)
        made_from = material(features, evidence.history, clicks=self.counted)
        reason = unfit(made_from, self._taste.risk)
        digest = self._digest(prompt, made_from, reason, mode)
        whoever = prompt, made_from, digest
        if (evidence.history or made_from.recent) and reason is None:
            alone = msgspec.structs.replace(evidence, history=())
            video_prompt = build_prompt(alone, self._config)
            video_material = msgspec.structs.replace(made_from, history=(), recent=())
            video_digest = self._digest(video_prompt, video_material, None, mode)
            whoever = video_prompt, video_material, video_digest
        return Grounding(
            pair, features, evidence, prompt, made_from, digest, *whoever, read_at, reason, mode
        )

    def _digest(
        self, prompt: str, made_from: Material, reason: Rejection | None, mode: Constrain
    ) -> str:
        # A verdict on the evidence is part of the digest: a harmless video may read the same.
        parts = (made_from.encoded(), self._taste.digest, (reason or "").encode())
        constrained = () if mode == "open" else (mode.encode(),)
        return evidence_digest(prompt, self.model, *parts, *constrained)

    async def evidence(
        self, pairs: Sequence[Pair], constrain: Constrain | None = None
    ) -> list[Grounding]:
        """What each pair's generation would stand on: one round trip to the store."""
        if not pairs:
            return []
        now = self._clock()
        with span("evidence", pairs=len(pairs)):
            features = await self._store.features(pairs, counted=self.counted)
            known = list(zip(pairs, features, strict=True))
            return await turns().over(known, lambda one: self.ground(*one, now, constrain))

    @property
    def taste(self) -> Taste:
        """What orders the candidates."""
        return self._taste

    async def beam(
        self, grounding: Grounding, *, deadline: float | None = None
    ) -> Sequence[Candidate]:
        """What the model gives for a prompt, as it comes and before anything is chosen of it; empty
        where nothing is generated. For explanations: it is written nowhere.

        Raises `DeadlineExceededError`, `QueueFullError`, `EngineError`.
        """
        if grounding.unfit is not None:
            return ()
        within = self._within(grounding)
        return await self._runner.begin(grounding.prompt, within=within, deadline=deadline)

    def chosen(self, grounding: Grounding, beam: Sequence[Candidate]) -> Chosen:
        """What is shown of a beam and all else of the evidence, before the gate; pure."""
        return self._choose(beam, grounding.material, grounding)

    async def recommend(
        self,
        pairs: Sequence[Pair],
        *,
        deadline: float | None = None,
        constrain: Constrain | None = None,
    ) -> list[QueryResult | Exception]:
        """A result, or the reason there is none, for each pair in order.

        Reads the evidence (one round trip), takes from the cache what one generation already gave
        for the same digest, has the model run what is missing, and writes each pair's and each
        video's result back; a result is returned once it is written. An error of the store or the
        cache is raised; per pair come `UnknownVideoError`, `DeadlineExceededError`,
        `QueueFullError`, `EngineError`, `EvidenceChangedError`. A result is made anew where the
        video's text changed or the user was forgotten since its evidence was read.

        At `deadline` (loop time) the pairs not ready get `DeadlineExceededError`, while what the
        engine had begun for them still goes to the cache, for the next one who asks; `drain` waits
        for that. Duplicate pairs cost nothing extra. Where `constrain` is stricter than the gate's,
        nothing is written back for the pairs: others are served what the gate's allows.
        """
        return await self._answers(pairs, None, deadline, constrain)

    async def answer(
        self,
        groundings: Sequence[Grounding],
        *,
        deadline: float | None = None,
        constrain: Constrain | None = None,
        answers: dict[Pair, QueryResult | Exception] | None = None,
    ) -> list[QueryResult | Exception]:
        """`recommend` for pairs whose evidence this recommender has read already, under the same
        `constrain`. What becomes of each is put into `answers` as soon as it is known."""
        pairs = [grounding.pair for grounding in groundings]
        return await self._answers(pairs, groundings, deadline, constrain, answers)

    async def _answers(
        self,
        pairs: Sequence[Pair],
        groundings: Sequence[Grounding] | None,
        deadline: float | None,
        constrain: Constrain | None,
        answers: dict[Pair, QueryResult | Exception] | None = None,
    ) -> list[QueryResult | Exception]:
        run = _Run(dict.fromkeys(pairs), deadline, constrain, {} if answers is None else answers)
        task = asyncio.create_task(self._recommend(run, groundings))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        if deadline is None:
            await asyncio.shield(task)
        else:
            answered = asyncio.ensure_future(run.answered.wait())
            try:
                timeout = max(0.0, deadline - asyncio.get_running_loop().time())
                await asyncio.wait(
                    (task, answered), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                answered.cancel()
            if task.done():
                task.result()
        late = DeadlineExceededError("the queries were not ready by the deadline")
        return [run.answers.get(pair, late) for pair in pairs]

    async def drain(self) -> None:
        """Wait for everything begun, cache writes included. For shutdown and tests."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("recommend_failed", error=repr(error))

    async def _recommend(self, run: _Run, read: Sequence[Grounding] | None) -> None:
        if read is None:
            read = await self.evidence(run.pairs, run.constrain)
        for _ in range(ATTEMPTS):
            changed = await self._attempt(run, read)
            if not changed:
                return
            read = await self.evidence(list(changed), run.constrain)
        for pair in changed:
            run.answer(pair, EvidenceChangedError(pair[0]))

    async def _attempt(self, run: _Run, read: Sequence[Grounding]) -> set[Pair]:
        """Answer these; the pairs whose evidence changed meanwhile."""
        groundings: list[Grounding] = []
        for grounding in {grounding.pair: grounding for grounding in read}.values():
            if grounding.known:
                groundings.append(grounding)
            else:
                run.answer(grounding.pair, UnknownVideoError(grounding.pair[0]))
        changed = await self._settle(run, groundings, self._without_model(groundings))
        # What was asked for goes first; the videos' own is for whoever comes next.
        fit = [grounding for grounding in groundings if grounding.unfit is None]
        wanted = {one.digest: (one.prompt, one.material, one) for one in fit}
        for one in fit:
            wanted.setdefault(one.video_digest, (one.video_prompt, one.video_material, one))
        if not wanted:
            return changed
        cached = await self._cache.by_digest(list(wanted))
        outcomes: dict[str, Chosen | Exception] = {}
        pending: dict[asyncio.Future[list[Candidate]], list[str]] = {}

        def begin(one: tuple[str, CachedResult | None]) -> None:
            digest, body = one
            prompt, made_from, grounding = wanted[digest]
            if body is not None:
                outcomes[digest] = _chosen(body.result())
                return
            beam = self._beams.get(prompt) if grounding.constrain == "open" else None
            if beam is not None:
                outcomes[digest] = self._choose(beam, made_from, grounding)
                return
            try:
                within = self._within(grounding)
                future = self._runner.begin(prompt, within=within, deadline=run.deadline)
            except (QueueFullError, EngineError) as error:
                outcomes[digest] = error
            else:
                pending.setdefault(future, []).append(digest)

        await turns().over(list(zip(wanted, cached, strict=True)), begin)
        changed |= await self._settle(run, groundings, outcomes)
        while pending:
            with span("generate", prompts=len(pending), model=self.model):
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            ended = [(digest, future) for future in done for digest in pending.pop(future)]
            chosen = await turns().over(ended, lambda one: self._outcome(one[1], *wanted[one[0]]))
            outcomes = {digest: own for (digest, _), own in zip(ended, chosen, strict=True)}
            changed |= await self._settle(run, groundings, outcomes)
        return changed

    def _without_model(self, groundings: Sequence[Grounding]) -> dict[str, Chosen | Exception]:
        return {
            grounding.digest: Chosen(reason=grounding.unfit)
            for grounding in groundings
            if grounding.unfit is not None
        }

    def _within(self, grounding: Grounding) -> Within | None:
        """What a generation is held within: the repertoire and the video's own anchors."""
        if grounding.constrain == "open":
            return None
        texts = (*grounding.material.texts(), *grounding.material.queries())
        return Within(
            self.gate.repertoire,
            tuple(sorted(own_anchors(grounding.features.anchors))),
            self.gate.repertoire.near(texts, NEAR),
            grounding.constrain == "prefer",
        )

    def _bounds(self, grounding: Grounding) -> Bounds | None:
        """The same for candidates of every source."""
        if grounding.constrain == "open":
            return None
        about = about_of(grounding.pair[0], grounding.features)
        anchors, now = own_anchors(grounding.features.anchors), self._clock()

        def inside(text: str) -> bool:
            return self.gate.of_repertoire(normalize_query(text), about, now, anchors)

        return Bounds(inside, grounding.constrain == "prefer")

    def _outcome(
        self,
        future: asyncio.Future[list[Candidate]],
        prompt: str,
        made_from: Material,
        grounding: Grounding,
    ) -> Chosen | Exception:
        error = future.exception()
        if isinstance(error, Exception):
            return error
        if grounding.constrain == "open":
            self._beams.put(prompt, future.result())
        return self._choose(future.result(), made_from, grounding)

    def _choose(
        self, beam: Sequence[Candidate], made_from: Material, grounding: Grounding
    ) -> Chosen:
        bounds = self._bounds(grounding)
        return choose(made_from, beam, self._k, self._taste, harmful=True, bounds=bounds)

    async def _settle(
        self,
        run: _Run,
        groundings: Sequence[Grounding],
        outcomes: Mapping[str, Chosen | Exception],
    ) -> set[Pair]:
        """Write what these digests gave to the cache (one round trip), then answer, but for the
        pairs whose evidence changed meanwhile: these are returned."""
        entries: dict[Pair, CacheEntry] = {}
        answers: dict[Pair, QueryResult | Exception] = {}

        def settle(grounding: Grounding) -> None:
            video_id, user_id = grounding.pair
            video = outcomes.get(grounding.video_digest)
            if video is not None and not isinstance(video, Exception):
                entry = self._entry(grounding, grounding.video_digest, video, None)
                entries[video_id, None] = entry
            own = outcomes.get(grounding.digest)
            if own is None:
                return
            if isinstance(own, Exception):
                answers[grounding.pair] = own
                return
            entry = self._entry(grounding, grounding.digest, own, user_id)
            answers[grounding.pair] = entry.result
            if user_id is not None:
                entries[video_id, user_id] = entry

        await turns().over(
            [one for one in groundings if one.digest in outcomes or one.video_digest in outcomes],
            settle,
        )
        changed: set[Pair] = set()
        if entries:
            with span("cache write", entries=len(entries)):
                current = await self._cache.put(list(entries.values()))
            changed = {pair for pair, yes in zip(entries, current, strict=True) if not yes}
        for pair, answer in answers.items():
            if pair not in changed:
                run.answer(pair, answer)
        return changed & answers.keys()

    def _entry(
        self, grounding: Grounding, digest: str, chosen: Chosen, user_id: str | None
    ) -> CacheEntry:
        """What was chosen, as it may be shown under the video at this moment, to this user."""
        known = grounding.features
        anybody = settle(chosen.queries, known, leave_out=self._leave_out, personal=False)
        mine = anybody
        if user_id is not None:
            mine = settle(chosen.queries, known, leave_out=self._leave_out, personal=True)
        video_id, why = grounding.pair[0], UNSET if chosen.reason is None else str(chosen.reason)
        made = QueryResult(
            video_id,
            chosen.queries,
            chosen.rejected,
            self.model,
            digest,
            grounding.read_at,
            rejection=why,
        )
        now = self._clock()
        shown, passed = made, self.gate.passed(now)
        if grounding.unfit not in BARRED:
            gated = self.gate.apply(
                mine,
                about_of(video_id, known),
                now,
                anchors=own_anchors(known.anchors),
                constrain=grounding.constrain,
            )
            count_held(gated.held)
            kept = gated.queries[: self._k]
            if kept:
                why = UNSET
            elif mine:
                why = str(Rejection.HELD_BACK)
            elif chosen.queries:
                why = str(Rejection.NOTHING_LEFT)
            shown = msgspec.structs.replace(made, queries=kept, rejected=not kept, rejection=why)
        return CacheEntry(
            shown,
            user_id,
            user_id is not None and grounding.shared and mine == anybody,
            known.seals,
            made,
            passed,
            kept=grounding.constrain == self.gate.constrain,
        )


def _chosen(result: QueryResult) -> Chosen:
    reason = None if result.rejection is UNSET else Rejection(result.rejection)
    return Chosen(result.queries, reason)


class _Run:
    """One call of `recommend`: the distinct pairs, and the answers so far."""

    def __init__(
        self,
        pairs: Iterable[Pair],
        deadline: float | None,
        constrain: Constrain | None,
        answers: dict[Pair, QueryResult | Exception],
    ) -> None:
        self.pairs = tuple(pairs)
        self.deadline = deadline
        self.constrain = constrain
        self.answers = answers
        self.answered = asyncio.Event()

    def answer(self, pair: Pair, answer: QueryResult | Exception) -> None:
        self.answers[pair] = answer
        if len(self.answers) == len(self.pairs):
            self.answered.set()
