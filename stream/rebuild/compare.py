"""Whether two versions of the state, both kept at the log's end, hold the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct, structs

from feature_store.snapshot import StateSnapshot, UserState, VideoState, diff
from feature_store.store import FeatureStore

SAMPLE = 1000
AT_ONCE = 200
"""Videos and users read in one round trip."""
TRIES = 12
PAUSE_S = 0.25
"""What changes while it is read is read again, so often and after such pauses."""


class Comparison(Struct, frozen=True):
    """Of how many videos and users it can be said whether both versions hold the same. `moving` are
    those that changed each time that they were looked at. `differences` are told a line each."""

    videos: int = 0
    users: int = 0
    rules: int = 0
    moving: int = 0
    differing: int = 0
    differences: tuple[str, ...] = ()


async def compare(
    live: FeatureStore, target: FeatureStore, *, whole: bool, sample: int = SAMPLE
) -> Comparison:
    """Compare a sample of what the live version knows, and all rules. Unless the log is `whole`,
    only what is read from its beginning in any case: texts and rules.

    Both are written while they are read. A video is compared only where both versions have taken
    in the same of the log for it, before and after; a user, and rules, by looking again.
    """
    videos, users = await live.entities(sample)
    if not whole:
        users = []
    unlike: dict[str, list[str]] = {}
    moving: set[str] = set()
    left = [f"v{name}" for name in videos] + [f"u{name}" for name in users]
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        again: list[str] = []
        for at in range(0, len(left), AT_ONCE):
            some = left[at : at + AT_ONCE]
            found, still = await _look(live, target, some, whole)
            unlike |= found
            moving |= still
            moving -= set(some) - still
            for name in set(some) - found.keys():
                unlike.pop(name, None)
            again += [name for name in some if name in found or name in still]
        rules = [await live.rules(), await target.rules()]
        left = again
        if not left and rules[0] == rules[1]:
            break
    lines = [line for found in unlike.values() for line in found]
    lines += diff(StateSnapshot(rules=rules[0]), StateSnapshot(rules=rules[1]))
    return Comparison(
        videos=len(videos) - sum(name[0] == "v" for name in moving),
        users=len(users),
        rules=len(rules[0]),
        moving=len(moving),
        differing=len(unlike) + (rules[0] != rules[1]),
        differences=tuple(lines[:20]),
    )


async def _look(
    live: FeatureStore, target: FeatureStore, names: Sequence[str], whole: bool
) -> tuple[dict[str, list[str]], set[str]]:
    """Of these: how those differ that do, and which are changing."""
    videos = [name[1:] for name in names if name[0] == "v"]
    users = [name[1:] for name in names if name[0] == "u"]
    before = await asyncio.gather(live.fences(videos), target.fences(videos))
    ours, theirs = await asyncio.gather(live.read(videos, users), target.read(videos, users))
    after = await asyncio.gather(live.fences(videos), target.fences(videos))
    moving = set()
    if whole:
        fences = zip(videos, *before, *after, strict=True)
        moving = {video for video, *four in fences if any(each != four[0] for each in four)}
    unlike: dict[str, list[str]] = {}
    for video in videos:
        if video not in moving and (lines := _video(ours, theirs, video, whole)):
            unlike[f"v{video}"] = lines
    for user in users:
        pair = ours.users.get(user, UserState()), theirs.users.get(user, UserState())
        if pair[0] != pair[1]:
            wanted, found = (StateSnapshot(users={user: each}) for each in pair)
            unlike[f"u{user}"] = diff(wanted, found, 3)
    return unlike, {f"v{video}" for video in moving}


def _video(ours: StateSnapshot, theirs: StateSnapshot, video: str, whole: bool) -> list[str]:
    mine, other = (each.videos.get(video, VideoState()) for each in (ours, theirs))
    if not whole:
        mine, other = (
            structs.replace(each, anchors={}, askers={}, counts={}) for each in (mine, other)
        )
    if mine == other:
        return []
    return diff(StateSnapshot(videos={video: mine}), StateSnapshot(videos={video: other}), 3)
