"""All of the state as plain values, to compare what a store holds with what it should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from feature_store.buckets import Askers, BucketedQuery
from onebar.records import QueryCounts, Rule, VideoText


class VideoState(Struct):
    """What is kept of a video. `version` is the (ts, event_id) that its text came with.

    `anchors` (in thousandths), their `askers` and `counts` are keyed by (bucket, query), cut to the
    newest.
    """

    text: VideoText | None = None
    version: tuple[float, str] | None = None
    anchors: dict[BucketedQuery, int] = {}
    askers: dict[BucketedQuery, Askers] = {}
    counts: dict[BucketedQuery, QueryCounts] = {}


class UserState(Struct):
    """What is kept of a user: query -> newest ts, the ts up to which all is forgotten, and what
    they had to do with what was shown to them, by `feature_store.reactions.members`."""

    history: dict[str, float] = {}
    deleted_before: float | None = None
    tapped: dict[str, float] = {}
    shown: dict[str, float] = {}


class RuleState(Struct):
    """A rule and the (ts, event_id) that it came with; `rule` is None where it was taken back."""

    version: tuple[float, str]
    rule: Rule | None = None


class StateSnapshot(Struct):
    """One version of the state, without caches, fences and neighbours.

    An entity of which nothing is kept is not in it.
    """

    videos: dict[str, VideoState] = {}
    users: dict[str, UserState] = {}
    rules: dict[str, RuleState] = {}


def diff(expected: StateSnapshot, actual: StateSnapshot, limit: int = 20) -> list[str]:
    """Where two states differ, a line each, `limit` lines at most; empty if they are equal."""
    lines: list[str] = []
    differences = 0
    for line in _differences(expected, actual):
        differences += 1
        if len(lines) < limit:
            lines.append(line)
    if differences > limit:
        lines[-1] = f"... and {differences - limit + 1:,} more differences"
    return lines


def _differences(expected: StateSnapshot, actual: StateSnapshot) -> Iterator[str]:
    for kind in ("video", "user", "rule"):
        wanted: dict[str, Any] = getattr(expected, f"{kind}s")
        found: dict[str, Any] = getattr(actual, f"{kind}s")
        for name in sorted(wanted.keys() | found.keys()):
            label = f"{kind} {name!r}"
            if name not in found:
                yield f"{label}: expected, but missing"
            elif name not in wanted:
                yield f"{label}: found, but not expected"
            elif wanted[name] != found[name]:
                for field in wanted[name].__struct_fields__:
                    before, after = getattr(wanted[name], field), getattr(found[name], field)
                    if before != after:
                        yield from _field_differences(f"{label} {field}", before, after)


def _field_differences(label: str, expected: Any, actual: Any) -> Iterator[str]:
    if not isinstance(expected, Mapping):
        yield f"{label}: expected {_shown(expected)}, found {_shown(actual)}"
        return
    for key in sorted(expected.keys() | actual.keys()):
        if expected.get(key) != actual.get(key):
            wanted, found = _shown(expected.get(key)), _shown(actual.get(key))
            yield f"{label} {key!r}: expected {wanted}, found {found}"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(msgspec.to_builtins(value))
    return text if len(text) <= 120 else text[:117] + "..."
