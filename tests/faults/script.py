"""What happens in the feed while faults do: batches of events, drawn from a seed.

Some come twice; some producers' clocks are wrong, by hours or days; some of what is sent is no
event. Videos that impressions are of are never taken down, so that each impression has its answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from stream.events import (
    BEHAVIORS,
    IMPRESSIONS,
    VIDEOS,
    Click,
    Deletion,
    Engagement,
    EngagementKind,
    Event,
    Exposure,
    Impression,
    Removal,
    RuleChange,
    Search,
    ShownQuery,
    Video,
    encode,
)

QUERIES = (
    "running shoes",
    "跑步鞋",
    "trail shoes",
    "Red  Boots",
    "socks",
    "雨靴",
    "tent",
)
KINDS: tuple[EngagementKind, ...] = ("item_click", "cart", "order", "dwell")
SHOWN = 30
"""Videos that impressions are of."""
GOING = 12
"""Videos that are changed, taken down and brought back."""
USERS = 60
WRONG_CLOCKS_S = (0.0, 0.0, 0.0, 1500.0, -7200.0, -93_600.0, -180_000.0)
"""How far a producer's clock is off. A broker takes no record of more than an hour ahead."""
POISON = (b"\xff\x00no event", b"[]", b'{"type":"nobody"}', b'{"type":"click","event_id":"p"', b"")


class Batch(Struct, frozen=True):
    """What one producer sends at a time. `clock_s` is how far its clock is off, `times` how often
    it sends the batch; `poison` are messages (topic, key, value) among the events."""

    events: list[Event]
    clock_s: float = 0.0
    times: int = 1
    poison: tuple[tuple[str, bytes, bytes | None], ...] = ()


def shown_videos() -> list[str]:
    return [f"shown-{n}" for n in range(SHOWN)]


def first_batch(now: float) -> Batch:
    """The videos that impressions are of."""
    return Batch(
        [
            Video(event_id=f"first-{name}", ts=now, video_id=name, caption=f"red boots, look {n}")
            for n, name in enumerate(shown_videos())
        ]
    )


def batches(seed: str, began: float, largest: int = 40) -> Iterator[Batch]:
    """Without end. `began` is the time (UTC epoch seconds) that the events are told to be of."""
    rng = random.Random(seed)
    count = 0
    before: list[Event] = []
    while True:
        clock_s = rng.choice(WRONG_CLOCKS_S)
        events: list[Event] = []
        for _ in range(rng.randint(1, largest)):
            count += 1
            events.append(_event(rng, f"{seed}-{count}", began + clock_s + rng.uniform(-5, 0)))
        if before and rng.random() < 0.3:
            events += rng.sample(before, min(len(before), 5))
        # A late one would be a dead letter by another clock, which impressions never are.
        before = [event for event in events if not isinstance(event, Impression)]
        yield Batch(
            events=events,
            clock_s=clock_s,
            times=2 if rng.random() < 0.15 else 1,
            poison=_poison(rng, f"{seed}-{count}", began) if rng.random() < 0.2 else (),
        )


def _event(rng: random.Random, name: str, ts: float) -> Event:
    common: dict[str, Any] = {"event_id": name, "ts": ts}
    shown = f"shown-{rng.randrange(SHOWN)}"
    going = f"going-{rng.randrange(GOING)}"
    video, user = rng.choice((shown, going)), f"u{rng.randrange(USERS)}"
    pair: dict[str, Any] = {"video_id": video, "user_id": user}
    query = rng.choice(QUERIES)
    draw = rng.random()
    if draw < 0.25:
        if rng.random() < 0.2:
            return Search(**common, user_id=user, query=query)
        return Search(**common, **pair, query=query)
    if draw < 0.45:
        some = [ShownQuery(q, at) for at, q in enumerate(rng.sample(QUERIES, 3))]
        return Exposure(**common, **pair, queries=some)
    if draw < 0.65:
        return Click(**common, **pair, query=query, position=rng.randrange(3))
    if draw < 0.78:
        return Engagement(**common, **pair, query=query, kind=rng.choice(KINDS), value=2.0)
    if draw < 0.90:
        # Each user sees a video once: what is told of the pair is told for this impression.
        return Impression(**common, video_id=shown, user_id=f"viewer-{name}")
    if draw < 0.93:
        return Video(**common, video_id=shown, caption=f"green boots {name}", title="boots")
    if draw < 0.96:
        sensitive = rng.random() < 0.3
        return Video(**common, video_id=going, caption=f"a tent {name}", sensitive=sensitive)
    if draw < 0.975:
        return Removal(**common, video_id=going)
    if draw < 0.985:
        return Deletion(**common, user_id=user)
    more: dict[str, Any] = {"action": rng.choice(("block", "allow", "remove"))}
    if more["action"] != "remove":
        more["query"] = rng.choice(("socks", "map"))
    return RuleChange(**common, rule_id=f"r{rng.randrange(8)}", **more)


def _poison(
    rng: random.Random, name: str, began: float
) -> tuple[tuple[str, bytes, bytes | None], ...]:
    """What is no event, one from the future, and an empty message, which is none to set aside."""
    topic = rng.choice((BEHAVIORS, BEHAVIORS, VIDEOS, IMPRESSIONS))
    going = f"going-{rng.randrange(GOING)}".encode()
    if topic == VIDEOS and rng.random() < 0.5:
        return ((VIDEOS, going, None),)
    ahead = Search(event_id=f"{name}-ahead", ts=began + 90_000, user_id="u1", query="from ahead")
    bad = rng.choice(POISON[:-1] if topic == VIDEOS else POISON)
    return ((topic, going, bad), (BEHAVIORS, b"u1", encode(ahead)))
