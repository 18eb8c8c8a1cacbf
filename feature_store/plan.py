"""A batch of writes as Redis commands: one script call per entity. Pure.

All behaviour events of a video in a batch go in one call, in their order. So a call that has to be
sent again can never be overtaken by a later event of its own video, which its fence would drop.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from feature_store.buckets import CorruptStateError, asker_of, bucket_prefix
from feature_store.keys import Keys
from feature_store.reactions import members, size_of
from feature_store.redis.client import Command, load_script
from feature_store.redis.connection import Argument
from feature_store.repeats import dedupe_window, recorded_at
from feature_store.snapshot import RuleState
from feature_store.writes import (
    BehaviorAdd,
    HistoryPut,
    Position,
    ReactionPut,
    RulePut,
    UserDelete,
    VideoPut,
    Write,
)
from onebar.policy import MAX_SHOWABLE_USERS, StatePolicy
from onebar.records import NO_SEAL, HistoryEntry, Rule, VideoText

BEHAVIOR = load_script("behavior", "may", "cut", "askers")
VIDEO = load_script("video", "may", "bytes")
USER = load_script("user", "may")
REACHED = load_script("reached")
NOW = load_script("now")
RULE = load_script("rule", "may", "bytes")
PROBE = load_script("probe")

_HISTORY, _TAPPED, _SHOWN = 1, 2, 3
"""The sets of a user, as `user.lua` counts them."""
UserWrite = HistoryPut | ReactionPut | UserDelete

SEEN_WINDOWS = 2
"""Dedupe windows for which what was seen stays in Redis after its own has passed: one that the log
asks for, and one that a worker may fall behind meanwhile."""
RULE_CHANGES_KEPT = 10_000
"""Changes of rules that the history keeps, the newest."""
RULES_AT_ONCE = 500
"""Changes of rules in one script call."""


class RuleChanged(Struct, frozen=True):
    """A change of a rule, as the history has it; `rule` is None where it was taken back."""

    rule_id: str
    ts: float
    event_id: str
    rule: Rule | None = None


_ONE = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
"""One exposure, click and engagement."""
_TEXT = msgspec.json.Decoder(VideoText)
_RULE = msgspec.json.Decoder(Rule)
_CHANGE = msgspec.json.Decoder(RuleChanged)


SCORE_SCALE = 2.0**22
"""A history's score is its ts times this (see user.lua)."""


class Plan(Struct, frozen=True):
    """What a batch comes to.

    `behaviors` reply with (applied, fenced, duplicates); `others` apply all of their writes,
    `idempotent` in number. `deleted_users` have cached queries to drop, under the same `keys`.
    """

    keys: Keys

    behaviors: tuple[Command, ...]
    others: tuple[Command, ...]
    idempotent: int
    deleted_users: tuple[str, ...]


def plan(batch: Sequence[tuple[Write, Position | None]], keys: Keys, policy: StatePolicy) -> Plan:
    """The commands of a batch. Raises `BucketRangeError` before anything is sent."""
    behaviors: dict[str, list[tuple[BehaviorAdd, Position | None]]] = {}
    videos: dict[str, VideoPut] = {}
    users: dict[str, list[UserWrite]] = {}
    rules: list[RulePut] = []
    idempotent = 0
    for write, position in batch:
        match write:
            case BehaviorAdd():
                behaviors.setdefault(write.video_id, []).append((write, position))
                continue
            case VideoPut():
                newest = videos.setdefault(write.video_id, write)
                if (write.ts, write.event_id) > (newest.ts, newest.event_id):
                    videos[write.video_id] = write
            case HistoryPut() | UserDelete():
                users.setdefault(write.user_id, []).append(write)
            case ReactionPut():
                if size_of(write, policy):
                    users.setdefault(write.user_id, []).append(write)
            case RulePut():
                rules.append(write)
        idempotent += 1
    return Plan(
        keys=keys,
        behaviors=tuple(_behavior(v, adds, keys, policy) for v, adds in behaviors.items()),
        others=(
            *(_video(put, keys, policy) for put in videos.values()),
            *(_user(user_id, writes, keys, policy) for user_id, writes in users.items()),
            *(
                _rules(rules[at : at + RULES_AT_ONCE], keys)
                for at in range(0, len(rules), RULES_AT_ONCE)
            ),
        ),
        idempotent=idempotent,
        deleted_users=tuple(
            user_id
            for user_id, writes in users.items()
            if any(isinstance(write, UserDelete) for write in writes)
        ),
    )


def _behavior(
    video_id: str,
    adds: Sequence[tuple[BehaviorAdd, Position | None]],
    keys: Keys,
    policy: StatePolicy,
) -> Command:
    names, seen = keys.behavior(video_id)  # no seal: all would be told that it was renewed
    places: dict[int, int] = {}  # dedupe window -> its place among the keys
    windows: dict[int, list[int]] = {}
    events: list[list[Any]] = []
    for write, position in adds:
        taken = recorded_at(write, position)
        window = dedupe_window(taken, policy.dedupe_window_s)
        near = windows.get(window)
        if near is None:
            for each in (window - 1, window, window + 1):
                if each not in places:
                    names.append(seen(each))
                    places[each] = len(names)
            left = (window + 1 + SEEN_WINDOWS) * policy.dedupe_window_s - taken
            near = windows[window] = [
                places[window - 1],
                places[window],
                places[window + 1],
                _milliseconds(left),
            ]
        bucket = policy.bucket(write.ts)
        prefix = bucket_prefix(bucket)
        stream, offset = "", 0
        if position is not None:
            stream, offset = f"{position.topic}/{position.partition}", position.offset
        weights: list[str | int] = []
        for query, milli in write.anchors:
            asker = once = ""
            if write.user_id:
                asker = asker_of(write.user_id, video_id, query)
                once = event_digest(f"{bucket}\0{write.user_id}\0{write.kind}\0{query}")
            weights += (prefix + query, milli, asker, once)
        counts: list[str | int] = []
        for kind, queries in enumerate((write.exposures, write.clicks, write.engagements)):
            for query in queries:
                counts += (prefix + query, *_ONE[kind])
        events.append([stream, offset, near, event_digest(write.event_id), weights, counts])
    return Command(
        BEHAVIOR,
        tuple(names),
        (
            policy.max_entries,
            _milliseconds(policy.video_ttl_s),
            MAX_SHOWABLE_USERS,
            msgspec.msgpack.encode(events),
        ),
    )


def _video(put: VideoPut, keys: Keys, policy: StatePolicy) -> Command:
    names = keys.video(put.video_id)
    return Command(
        VIDEO,
        (names.text, names.anchors, names.counters, names.fence, names.neighbors, names.seal),
        (
            number(put.ts),
            put.event_id,
            encode_text(put),
            _milliseconds(policy.video_ttl_s),
            text_seal(put.text),
        ),
    )


def _user(user_id: str, writes: Sequence[UserWrite], keys: Keys, policy: StatePolicy) -> Command:
    reach = policy.deletion_reach_s
    deletions = [write.ts + reach for write in writes if isinstance(write, UserDelete)]
    newest: dict[tuple[int, str], float] = {}
    for write in writes:
        match write:
            case HistoryPut():
                put = [(_HISTORY, write.query)]
            case ReactionPut():
                into = _SHOWN if write.kind == "shown" else _TAPPED
                put = [(into, member) for member in members(write)]
            case _:
                put = []
        for entry in put:
            newest[entry] = max(write.ts, newest.get(entry, write.ts))
    args: list[Argument] = [
        policy.history_size,
        policy.tapped_size,
        policy.shown_size,
        _milliseconds(policy.user_ttl_s),
        _milliseconds(policy.deletion_ttl_s),
        number(max(deletions)) if deletions else "",
    ]
    for (into, member), ts in newest.items():
        args += (into, number(ts), member)
    names = keys.history(user_id), keys.tapped(user_id), keys.shown(user_id)
    return Command(USER, (*names, keys.deletion(user_id)), tuple(args))


def _rules(puts: Sequence[RulePut], keys: Keys) -> Command:
    args: list[Argument] = [RULE_CHANGES_KEPT]
    for put in puts:
        event_id = put.event_id.encode()
        header = f"{number(put.ts)} {len(event_id)} ".encode()
        rule = b"" if put.rule is None else msgspec.json.encode(put.rule)
        change = RuleChanged(put.rule_id, put.ts, put.event_id, put.rule)
        entry = msgspec.json.encode(change)
        args += (put.rule_id, number(put.ts), event_id, header + event_id + rule, entry)
    return Command(RULE, tuple(keys.rules), tuple(args))


def decode_rule(value: bytes) -> RuleState:
    """A rule and its version. Raises `CorruptStateError`."""
    try:
        ts, length, rest = value.split(b" ", 2)
        size = int(length)
        rule = _RULE.decode(rest[size:]) if len(rest) > size else None
        return RuleState((float(ts), rest[:size].decode()), rule)
    except (ValueError, msgspec.DecodeError) as error:
        raise CorruptStateError(f"expected a rule, got {value!r:.80}: {error}") from None


def decode_change(value: bytes) -> RuleChanged:
    """A change of a rule. Raises `CorruptStateError`."""
    try:
        return _CHANGE.decode(value)
    except msgspec.DecodeError as error:
        raise CorruptStateError(f"expected a change, got {value!r:.80}: {error}") from None


def number(ts: float) -> str:
    """A time as text that reads back as the very same double."""
    return repr(float(ts) + 0.0)


def event_digest(event_id: str) -> str:
    """A signed 64-bit integer as text: Redis keeps sets of them in 8 bytes each."""
    digest = blake2b(event_id.encode(), digest_size=8).digest()
    return str(int.from_bytes(digest, "big", signed=True))


def encode_text(put: VideoPut) -> bytes:
    """The stored value of a video's text: "ts length-of-event_id event_id JSON".

    The JSON is deflated where that makes it shorter; a zlib stream begins with "x".
    """
    event_id = put.event_id.encode()
    header = f"{number(put.ts)} {len(event_id)} ".encode()
    text = msgspec.json.encode(put.text)
    return header + event_id + min(text, zlib.compress(text), key=len)


class StoredText(Struct, frozen=True):
    """A video's text, the (ts, event_id) it came with, and its seal."""

    version: tuple[float, str]
    text: VideoText
    seal: bytes


def decode_text(value: bytes) -> StoredText:
    """What is stored of a video's text. Raises `CorruptStateError`."""
    try:
        ts, length, rest = value.split(b" ", 2)
        size = int(length)
        body = rest[size:]
        if body.startswith(b"x"):
            body = zlib.decompress(body)
        version = float(ts), rest[:size].decode()
        return StoredText(version, _TEXT.decode(body), seal_of(body))
    except (ValueError, zlib.error, msgspec.DecodeError) as error:
        raise CorruptStateError(f"expected a video's text, got {value!r:.80}: {error}") from None


def text_seal(text: VideoText | None) -> bytes:
    """What what is made of a text stands under: eight bytes, others for another text."""
    return NO_SEAL if text is None else seal_of(msgspec.json.encode(text))


def seal_of(value: bytes | None) -> bytes:
    """Eight bytes, others for another value."""
    return NO_SEAL if value is None else blake2b(value, digest_size=len(NO_SEAL)).digest()


def decode_deletion(value: bytes) -> tuple[float, float]:
    """The (ts, moment it was applied) of a stored deletion. Raises `CorruptStateError`."""
    try:
        ts, applied_at = value.split()
        return float(ts), float(applied_at)
    except ValueError:
        raise CorruptStateError(f"expected a deletion, got {value!r:.80}") from None


def decode_hash(reply: Mapping[bytes, bytes] | Sequence[bytes]) -> Mapping[bytes, bytes]:
    """An HGETALL reply as a mapping, whichever protocol it came by."""
    if isinstance(reply, Mapping):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))


def decode_scored(reply: Sequence[Any]) -> Sequence[tuple[bytes, Any]]:
    """The (member, score)s of a sorted set reply: flat in RESP2, in pairs in RESP3."""
    if reply and isinstance(reply[0], bytes):
        return list(zip(reply[::2], reply[1::2], strict=True))
    return reply


def scored_words(pairs: Sequence[tuple[bytes, Any]]) -> tuple[str | bytes, ...]:
    """What ZADD takes for these (member, score)s."""
    return tuple(word for member, score in pairs for word in (repr(float(score)), member))


def decode_history(reply: Sequence[Any]) -> Iterator[HistoryEntry]:
    """The entries of a user's queries, and of other sets that are kept so, as they come."""
    for query, score in decode_scored(reply):
        yield HistoryEntry(query.decode(), float(score) / SCORE_SCALE)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
