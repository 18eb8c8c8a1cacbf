"""Training examples from an event log, with the evidence as it was when the user saw the video."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator

from msgspec import UNSET

from feature_store.memory import MemoryStore
from feature_store.policy import StatePolicy
from feature_store.records import Features
from onebar.evidence import assemble, terms
from onebar.prompt import PromptConfig, build_prompt
from onebar.text import REJECT, clean_video, normalize_query
from onebar.training.dataset import Example
from stream.events import Click, Event, Impression, Search
from stream.fold import fold

REMEMBERED = 100_000
"""Impressions whose prompt waits for a click; the oldest go first."""


class ExampleMaker:
    """Folds a log event by event and gives the examples as they come up.

    A click, and with `searches` a query typed after a video that shares a term with its prompt
    (others have nothing to do with it), gives (prompt of the impression it followed, query): the
    evidence is that of the impression, before anything the user then did. Where the log has no
    impression it is what was known just before the click. An impression of a video flagged
    `sensitive` gives (prompt, `[REJECT]`), at most `rejects_per_video` times: the flag itself is
    not in the prompt, so the model learns what such videos read like.

    Nothing but events is read: the simulator's hidden truth plays no part.
    """

    def __init__(
        self,
        *,
        prompt: PromptConfig | None = None,
        policy: StatePolicy | None = None,
        searches: bool = False,
        rejects_per_video: int = 2,
    ) -> None:
        self._prompt = prompt or PromptConfig()
        self._store = MemoryStore(policy or StatePolicy())
        self._searches = searches
        self._rejects_per_video = rejects_per_video
        self._shown: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._rejects: defaultdict[str, int] = defaultdict(int)

    def add(self, event: Event) -> Iterator[Example]:
        """Take the next event in; the examples it gives."""
        match event:
            case Impression():
                yield from self._impression(event)
            case Click():
                yield from self._wanted(event.video_id, event.user_id, event.query, event.ts)
            case Search() if self._searches and event.video_id is not UNSET:
                found = self._wanted(event.video_id, event.user_id, event.query, event.ts)
                yield from (
                    example
                    for example in found
                    if not terms(example.target).isdisjoint(terms(example.prompt))
                )
            case _:
                pass
        for write in fold(event, clean_video):
            self._store.apply(write, None)

    def _features(self, video_id: str, user_id: str | None, now: float) -> Features:
        return self._store.features([(video_id, user_id)], now=now)[0]

    def _build(self, features: Features) -> str:
        evidence = assemble(
            features, max_anchors=self._prompt.max_anchors, max_history=self._prompt.max_history
        )
        return build_prompt(evidence, self._prompt)

    def _impression(self, event: Impression) -> Iterator[Example]:
        user_id = None if event.user_id is UNSET else event.user_id
        features = self._features(event.video_id, user_id, event.ts)
        prompt = self._build(features)
        if features.text is not None and features.text.sensitive:
            if self._rejects[event.video_id] < self._rejects_per_video:
                self._rejects[event.video_id] += 1
                yield Example(prompt, REJECT)
        elif user_id is not None:
            key = (event.video_id, user_id)
            self._shown[key] = prompt
            self._shown.move_to_end(key)
            if len(self._shown) > REMEMBERED:
                self._shown.popitem(last=False)

    def _wanted(self, video_id: str, user_id: str, query: str, ts: float) -> Iterator[Example]:
        target = normalize_query(query)
        if not target:
            return
        prompt = self._shown.get((video_id, user_id))
        if prompt is None:
            features = self._features(video_id, user_id, ts)
            if features.text is not None and features.text.sensitive:
                return
            prompt = self._build(features)
        yield Example(prompt, target)


def examples(
    events: Iterable[Event],
    *,
    prompt: PromptConfig | None = None,
    policy: StatePolicy | None = None,
    searches: bool = False,
    rejects_per_video: int = 2,
) -> Iterator[Example]:
    """The training examples of a log, in its order. See `ExampleMaker`."""
    maker = ExampleMaker(
        prompt=prompt, policy=policy, searches=searches, rejects_per_video=rejects_per_video
    )
    for event in events:
        yield from maker.add(event)
