"""What a generator would be asked for the impressions of a log, with no server about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from feature_store.memory import MemoryStore
from onebar.evidence.evidence import Relevance, assemble, shares_a_term
from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.text import clean_video
from onebar.policy import StatePolicy
from stream.events import Event, Impression
from stream.events.fold import fold


def prompts_of(
    events: Iterable[Event],
    config: PromptConfig,
    *,
    policy: StatePolicy,
    relevance: Relevance = shares_a_term,
) -> Iterator[str]:
    """The prompt of each impression in the events before which something was known of its video,
    on what was known then. The events come by time."""
    store = MemoryStore(policy)
    for event in events:
        for write in fold(event, clean_video):
            store.apply(write, None)
        if not isinstance(event, Impression):
            continue
        user_id = event.user_id if isinstance(event.user_id, str) else None
        [features] = store.features([(event.video_id, user_id)], now=event.ts)
        if not features.known:
            continue
        yield build_prompt(
            assemble(
                features,
                max_anchors=config.max_anchors,
                max_history=config.max_history,
                neighbors=config.neighbors,
                relevance=relevance,
            ),
            config,
        )
