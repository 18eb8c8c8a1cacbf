"""Every Redis key. No key string exists anywhere else.

All keys of one entity carry its hash tag (`{v:ID}`, `{u:ID}`, `{d:DIGEST}`), so that one script or
one MGET touches one slot and the same code runs on Redis Cluster. Ids are escaped, so no id can
forge another's key or leave its own slot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from onebar.records import Pair

_UNSAFE = re.compile(r"[^!#-$&-9;-z|~\x80-\U0010ffff]")
_ESCAPED = re.compile(r"%([0-9a-f]{2})")
_ANSWERING = re.compile(r"\{u:([^{}:]*)\}:d|\{v:([^{}:]*)\}:(?:(l)|q(?::([^{}:]*))?)")

StatePart = Literal["text", "anchors", "counters", "history", "deletion", "tapped", "shown"]
_STATE: dict[str, StatePart] = {
    "v}:t": "text",
    "v}:a": "anchors",
    "v}:c": "counters",
    "u}:h": "history",
    "u}:d": "deletion",
    "u}:t": "tapped",
    "u}:x": "shown",
}
"""By the kind of the entity and the suffix."""

SEAL = ""
"""In the place of a user's id: the seal of the video. No user's id is empty."""

Slot = Pair | str
"""What one key of the query cache holds: the queries of a (video, user), those of a video whoever
watches, the seal of a video, or, as the user's id alone, whether that user was deleted."""


def escape(entity_id: str) -> str:
    """Percent-encode control characters, spaces and the characters keys are built with.

    Injective: different ids give different results; `unescape` undoes it.
    """
    if entity_id.isascii() and entity_id.isalnum():
        return entity_id
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02x}", entity_id)


def unescape(text: str) -> str:
    """The id that `escape` was given."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


class StateKey(NamedTuple):
    """What a key that holds state is of: a part of a video or of a user."""

    part: StatePart
    entity_id: str


class VideoKeys(NamedTuple):
    """The keys of one video's state, in one slot."""

    anchors: str
    counters: str
    fence: str
    text: str
    neighbors: str
    seal: str


class RuleKeys(NamedTuple):
    """The keys of the rules."""

    rules: str
    """hash: rule id -> the rule behind its (ts, event_id) version; empty where it was removed."""
    version: str
    """string: how often any of them changed."""
    changes: str
    """sorted set: rule id -> the version that it came with."""
    history: str
    """sorted set: change -> its ts, the newest kept."""


class RepertoireKeys(NamedTuple):
    """The keys of the repertoire, in the slot of the rules."""

    queries: str
    """sorted set: query -> the version that it came with."""
    gone: str
    """sorted set: query -> the version that took it out, the newest kept."""
    version: str
    """string: how often it changed, and the version that last took a query out."""


class VersionKeys(NamedTuple):
    """The keys of a namespace that are of no one version of the state, in one slot."""

    live: str
    """string: the name of the version that is read and written."""
    journal: str
    """string: which other versions there are, and how far a rebuild is, as JSON."""
    lease: str
    """string: which rebuild is at work."""
    processes: str
    """sorted set: a process and the version it is on -> when it last said so."""


def version_keys(namespace: str) -> VersionKeys:
    """Of a namespace. No version is called `{live}`."""
    stem = f"{namespace}:{{live}}:"
    return VersionKeys(f"{stem}v", f"{stem}j", f"{stem}l", f"{stem}p")


@dataclass(frozen=True)
class Keys:
    """The keys of one version of the state in one namespace.

    A rebuild fills `g2` while `g1` serves.
    """

    namespace: str = "onebar"
    state_version: str = "g1"
    prefix: str = field(init=False, repr=False, compare=False)
    """What every key begins with."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", f"{self.namespace}:{self.state_version}:")

    def _video(self, video_id: str, suffix: str) -> str:
        return f"{self.prefix}{{v:{escape(video_id)}}}:{suffix}"

    def _user(self, user_id: str, suffix: str) -> str:
        return f"{self.prefix}{{u:{escape(user_id)}}}:{suffix}"

    def text(self, video_id: str) -> str:
        """string: cleaned text behind its (ts, event_id) version."""
        return self._video(video_id, "t")

    def anchors(self, video_id: str) -> str:
        """hash: bucket + query -> weight in thousandths, a space, and a few of its users."""
        return self._video(video_id, "a")

    def neighbors(self, video_id: str) -> str:
        """string: neighbour anchors written by the embedding job."""
        return self._video(video_id, "n")

    def counters(self, video_id: str) -> str:
        """hash: bucket + query -> "exposures clicks engagements"."""
        return self._video(video_id, "c")

    def fence(self, video_id: str) -> str:
        """hash: topic/partition -> offset of the last behaviour event applied."""
        return self._video(video_id, "f")

    def video(self, video_id: str) -> VideoKeys:
        """`anchors`, `counters`, `fence`, `text`, `neighbors` and `seal` of one video."""
        stem = self._video(video_id, "")
        return VideoKeys(*(f"{stem}{suffix}" for suffix in "acftnl"))

    def neighbors_of(self, name: str) -> str | None:
        """The video that a key of neighbour anchors is of; None for any other key."""
        begin, end = self.all_neighbors
        if not name.startswith(begin) or not name.endswith(end):
            return None
        return unescape(name[len(begin) : -len(end)])

    def seal(self, video_id: str) -> str:
        """string: what queries made of the video's present text stand under (`Seals`)."""
        return self._video(video_id, "l")

    def state_key(self, name: str) -> StateKey | None:
        """What a key of ours holds of the state; None for caches, fences, and keys of others."""
        if not name.startswith(self.prefix):
            return None
        tag, _, suffix = name[len(self.prefix) :].partition("}:")
        part = _STATE.get(f"{tag[1:2]}}}:{suffix}") if tag[2:3] == ":" else None
        return None if part is None else StateKey(part, unescape(tag[3:]))

    def seen(self, video_id: str, window: int) -> str:
        """set: 64-bit digests of what the log took in this dedupe window: event ids, and what
        counts once for each user."""
        return self._video(video_id, f"s:{window}")

    def behavior(self, video_id: str) -> tuple[list[str], Callable[[int], str]]:
        """What a behaviour event touches: `anchors`, `counters`, `fence`, `text` and `neighbors`;
        and `seen` of this video by the window."""
        stem = self._video(video_id, "")
        return [f"{stem}{suffix}" for suffix in "acftn"], lambda window: f"{stem}s:{window}"

    def history(self, user_id: str) -> str:
        """sorted set: query -> newest ts, times 2**22 (see user.lua)."""
        return self._user(user_id, "h")

    def tapped(self, user_id: str) -> str:
        """sorted set: "t" or "o" (ordered by) and query -> newest ts, as `history`."""
        return self._user(user_id, "t")

    def shown(self, user_id: str) -> str:
        """sorted set: digest of the event, then query -> ts, as `history`."""
        return self._user(user_id, "x")

    def deletion(self, user_id: str) -> str:
        """string: ts up to which this user is forgotten, and when that was applied."""
        return self._user(user_id, "d")

    def personal_videos(self, user_id: str) -> str:
        """sorted set: video_id -> expiry of this user's own cached queries, for deletion."""
        return self._user(user_id, "q")

    def cached(self, video_id: str) -> str:
        """string: the queries of a video whoever watches."""
        return self._video(video_id, "q")

    def cached_for(self, video_id: str, user_id: str) -> str:
        """string: the queries of a video for one user, or the mark that they are the video's."""
        return self._video(video_id, f"q:{escape(user_id)}")

    def answering(self, pairs: Iterable[Pair]) -> list[str]:
        """What answers these pairs, in one go: `cached` and `seal` of each, and where there is a
        user `cached_for` and `deletion`."""
        prefix = self.prefix
        names: list[str] = []
        for video_id, user_id in pairs:
            stem = f"{prefix}{{v:{escape(video_id)}}}:"
            cached = f"{stem}q"
            names += (cached, f"{stem}l")
            if user_id is not None:
                user = escape(user_id)
                names += (f"{cached}:{user}", f"{prefix}{{u:{user}}}:d")
        return names

    def slot(self, name: bytes) -> Slot | None:
        """What one of the keys of `answering` holds; None for any other key."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        if not text.startswith(self.prefix):
            return None
        found = _ANSWERING.fullmatch(text, len(self.prefix))
        if found is None:
            return None
        deleted, video, seal, user = found.groups()
        if deleted is not None:
            return unescape(deleted)
        if seal is not None:
            return unescape(video), SEAL
        return unescape(video), None if user is None else unescape(user)

    @property
    def rules(self) -> RuleKeys:
        """Of all rules, in one slot."""
        stem = f"{self.prefix}{{rules}}:"
        return RuleKeys(f"{stem}r", f"{stem}v", f"{stem}c", f"{stem}h")

    @property
    def all_cached(self) -> tuple[str, str]:
        """What the names of the cached queries of all videos begin with, and have in between."""
        return f"{self.prefix}{{v:", "}:q"

    @property
    def all_neighbors(self) -> tuple[str, str]:
        """What the names of the neighbour anchors of all videos begin and end with."""
        return f"{self.prefix}{{v:", "}:n"

    @property
    def all_counters(self) -> tuple[str, str]:
        """What the names of the counters of all videos begin and end with."""
        return f"{self.prefix}{{v:", "}:c"

    @property
    def repertoire(self) -> RepertoireKeys:
        """Of the repertoire."""
        stem = f"{self.prefix}{{rules}}:"
        return RepertoireKeys(f"{stem}q", f"{stem}g", f"{stem}qv")

    @property
    def repertoire_due(self) -> str:
        """string: there while the repertoire need not be worked out anew."""
        return f"{self.prefix}{{rules}}:qd"

    def reached(self, topic: str, partition: int, tag: str = "") -> str:
        """string: the last offset of this partition whose effect is in this state; of a Redis
        Cluster one for each of `redis.client.tags`, as each server loses what it has by itself."""
        stem = f"{{{tag}}}:log" if tag else "log"
        return f"{self.prefix}{stem}:{escape(topic)}/{partition}"

    def digest(self, digest: str) -> str:
        """string: the queries generated from one prompt by one model."""
        return f"{self.prefix}{{d:{digest}}}"

    def claim(self, digest: str) -> str:
        """string: which process generates under this digest at the moment."""
        return f"{self.prefix}{{d:{digest}}}:c"

    def rate(self, caller: str) -> str:
        """string: when the token bucket of a caller will be full again, in microseconds."""
        return f"{self.prefix}rate:{escape(caller)}"

    @property
    def recent(self) -> str:
        """sorted set: video_id -> when queries were last generated for it, the newest kept."""
        return f"{self.prefix}recent"

    def probe(self, tag: str = "probe:0") -> str:
        """string: written to see that a write is possible; several, for a cluster's nodes."""
        return f"{self.prefix}{{{tag}}}:w"

    @property
    def lost(self) -> str:
        """string: what was found to be missing from this generation; none where it is whole."""
        return f"{self.prefix}{{probe:0}}:lost"
