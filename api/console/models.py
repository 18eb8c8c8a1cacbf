"""The registry's checkpoints, and what another one would say of the videos of this moment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from onebar.evidence.prompt import build_prompt
from onebar.generator.registry import Registry
from onebar.recommending.candidates import Chosen, choose
from onebar.recommending.loading import load_model, prove
from onebar.recommending.recommend import Grounding
from onebar.settings import Settings

MOST_TOLD = 8
"""Videos of a comparison whose lists are told."""


class ModelEntry(Struct, frozen=True):
    """A checkpoint of the registry. `training` is what its card says of where it comes from."""

    name: str
    current: bool
    bytes: int
    created_at: str | None
    promoted_at: float | None
    problem: str | None
    training: dict[str, Any]


class ModelsAnswer(Struct, frozen=True):
    """What serves here, and what the registry holds; `registry` is null where there is none."""

    serving: str | None
    warning: str | None
    registry: str | None
    models: list[ModelEntry]
    history: list[dict[str, Any]]


class Compared(Struct, frozen=True):
    """One video, as both would have it."""

    video_id: str
    title: str
    now: list[str]
    then: list[str]


class ShadowAnswer(Struct, frozen=True):
    """What would change with another model, on the videos of this moment: shares of `videos` (0 to
    1); `overlap` is the mean share of the present queries that its lists hold. `now_ms` and
    `then_ms` are the mean time of one prompt, here and now. It says nothing of which is better:
    `onebar evaluate --shadow` does, on a log of taps."""

    name: str
    videos: int
    other_first: float
    other_list: float
    overlap: float
    now_rejected: float
    then_rejected: float
    now_ms: float
    then_ms: float
    lists: list[Compared]


def open_registry(settings: Settings) -> Registry | None:
    """The registry that the settings name; its promotions are tried first."""
    if settings.registry is None:
        return None
    return Registry(settings.registry, prove=partial(prove, engine=settings.engine, k=settings.k))


def list_models(
    registry: Registry | None, serving: str | None, warning: str | None
) -> ModelsAnswer:
    """Reads the registry. Raises `RegistryError`."""
    if registry is None:
        return ModelsAnswer(serving, warning, None, [], [])
    entries = [
        ModelEntry(
            each.name,
            each.current,
            each.bytes,
            None if each.card is None else each.card.created_at,
            each.promoted_at,
            each.problem,
            {} if each.card is None else _told(each.card.training),
        )
        for each in registry.entries()
    ]
    history = [
        {"at": change.at, "action": change.action, "name": change.name, "by": change.by}
        for change in registry.history()
    ]
    return ModelsAnswer(serving, warning, str(registry.path), entries, history[::-1])


def _told(training: dict[str, Any]) -> dict[str, Any]:
    """The figures and names of a card, without what is longer than a line."""
    return {
        name: value
        for name, value in training.items()
        if isinstance(value, (str, int, float)) and len(str(value)) <= 80
    }


def shadow(
    settings: Settings,
    registry: Registry,
    name: str,
    groundings: Sequence[Grounding],
    now: Sequence[Chosen],
    now_ms: float,
) -> ShadowAnswer:
    """What `name` would say where `now` is said; loads it beside what serves, and frees it.
    Blocking. Raises `CheckpointError`, `RegistryError`, `EngineError`."""
    path = registry.open(name).path
    loaded = load_model(settings.model_copy(update={"registry": None, "checkpoint": path}))
    try:
        prompts = [build_prompt(each.evidence, loaded.prompt_config) for each in groundings]
        wide = max(settings.k, loaded.taste.beam if loaded.taste else 0)
        loaded.engine.generate(prompts[:1], wide)  # the first one warms it
        began = time.perf_counter()
        beams = loaded.engine.generate(prompts, wide)
        then_ms = (time.perf_counter() - began) * 1000 / max(1, len(prompts))
        then = [
            choose(each.material, beam, settings.k, loaded.taste)
            for each, beam in zip(groundings, beams, strict=True)
        ]
    finally:
        loaded.engine.close()
    return compare(name, groundings, now, then, now_ms, then_ms)


def compare(
    name: str,
    groundings: Sequence[Grounding],
    now: Sequence[Chosen],
    then: Sequence[Chosen],
    now_ms: float,
    then_ms: float,
) -> ShadowAnswer:
    """The shares of a `ShadowAnswer`; pure."""
    pairs = [
        ([q.text for q in a.queries], [q.text for q in b.queries])
        for a, b in zip(now, then, strict=True)
    ]
    count = max(1, len(pairs))
    shared = [len(set(a) & set(b)) / len(a) for a, b in pairs if a]
    lists = [
        Compared(
            each.pair[0],
            (each.features.text.title or each.features.text.caption) if each.features.text else "",
            a,
            b,
        )
        for each, (a, b) in zip(groundings, pairs, strict=True)
        if a != b
    ]
    return ShadowAnswer(
        name=name,
        videos=len(pairs),
        other_first=sum(a[:1] != b[:1] for a, b in pairs) / count,
        other_list=sum(a != b for a, b in pairs) / count,
        overlap=sum(shared) / max(1, len(shared)),
        now_rejected=sum(not a for a, _ in pairs) / count,
        then_rejected=sum(not b for _, b in pairs) / count,
        now_ms=round(now_ms, 2),
        then_ms=round(then_ms, 2),
        lists=lists[:MOST_TOLD],
    )
