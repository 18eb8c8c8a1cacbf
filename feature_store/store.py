"""The state in Redis: batches of writes in, features out, a round trip each."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from feature_store.buckets import (
    MAX_ANCHORS,
    CorruptStateError,
    decode_anchors,
    decode_counts,
    merge_neighbors,
    most_exposed,
    rank_anchors,
    showable,
    shown_anchors,
    total_counts,
)
from feature_store.keys import Keys, StateKey, StatePart
from feature_store.plan import (
    NOW,
    PROBE,
    REACHED,
    RULE_CHANGES_KEPT,
    Plan,
    RuleChanged,
    decode_change,
    decode_deletion,
    decode_hash,
    decode_history,
    decode_rule,
    decode_text,
    plan,
    seal_of,
)
from feature_store.reactions import reactions, tired_of
from feature_store.redis import client as redis_client
from feature_store.redis.client import (
    Client,
    Command,
    StoreCommandError,
    pipelined,
    strings,
)
from feature_store.redis.fitness import Fitness, Vitals, examine, vitals
from feature_store.snapshot import RuleState, StateSnapshot, UserState, VideoState
from feature_store.writes import Position, UserDelete, Write
from onebar.policy import StatePolicy
from onebar.records import (
    NO_REACTIONS,
    NO_SEAL,
    Anchor,
    Features,
    HistoryEntry,
    Pair,
    QueryCounts,
    Reactions,
    Rule,
    Seals,
    VideoText,
)

PROBE_TTL_MS = 60_000
_DUMP_BATCH = 500
RULES_READ = 1000
"""Rules read at once."""
_ANCHORS = msgspec.json.Decoder(tuple[Anchor, ...])


class ApplyStats(Struct, frozen=True):
    """What became of a batch: applied + fenced + duplicates = its length.

    `fenced` behaviour events stood at an offset already passed; `duplicates` carried an event_id
    already counted. Every other write counts as applied, also where a newer one made it moot.
    """

    applied: int = 0
    fenced: int = 0
    duplicates: int = 0


class KnownVideo(Struct, frozen=True):
    """What is kept of a video itself. `updated_at` is the `ts` of the event that its text came with
    (UTC epoch seconds); None where none came yet. `counts` are per query."""

    text: VideoText
    updated_at: float | None
    counts: dict[str, QueryCounts]


class FeatureStore:
    """One version of the state in Redis.

    Every method raises `StoreUnavailableError` where Redis is away, `StoreCommandError` where it
    refuses a command, and `CorruptStateError` for a value that something else wrote.
    """

    def __init__(self, client: Client, keys: Keys, policy: StatePolicy) -> None:
        self.client = client
        self.keys = keys
        self.policy = policy

    def bind(self, keys: Keys) -> None:
        """Read and write another version from the next call on; a call under way ends on the one
        that it began with."""
        self.keys = keys

    def of(self, state_version: str) -> FeatureStore:
        """Another version of the state, by the same connection: closed with this one."""
        return FeatureStore(self.client, Keys(self.keys.namespace, state_version), self.policy)

    async def apply(self, batch: Sequence[tuple[Write, Position | None]]) -> ApplyStats:
        """Take a batch in: one round trip, and up to three more where it deletes users.

        Each entity's writes are applied in one atomic script, in their order. After an error
        any part of the entities may have been applied: apply the same batch again, fences and
        de-duplication see to it that nothing counts twice. Batches of one partition must come
        one after another. Raises `BucketRangeError`, before anything is sent, for a time that
        no bucket covers. `position` None means not fenced.
        """
        return await self.carry_out(self.plan(batch))

    def plan(self, batch: Sequence[tuple[Write, Position | None]]) -> Plan:
        """What `apply` would send, for `carry_out`. Raises `BucketRangeError`."""
        return plan(batch, self.keys, self.policy)

    async def carry_out(self, planned: Plan) -> ApplyStats:
        """Take a planned batch in, as `apply` does."""
        try:
            replies = await pipelined(self.client, [*planned.behaviors, *planned.others])
        except StoreCommandError:
            await self._forget_cached(planned.deleted_users, planned.keys)
            raise
        await self._forget_cached(planned.deleted_users, planned.keys)
        applied, fenced, duplicates = planned.idempotent, 0, 0
        for reply in replies[: len(planned.behaviors)]:
            applied += int(reply[0])
            fenced += int(reply[1])
            duplicates += int(reply[2])
        return ApplyStats(applied, fenced, duplicates)

    async def features(
        self,
        pairs: Sequence[Pair],
        *,
        now: float | None = None,
        max_anchors: int = MAX_ANCHORS,
        counted: bool = False,
    ) -> list[Features]:
        """What is known of each (video, user), in their order, in one round trip.

        Weights are decayed to `now` (UTC epoch seconds; default: the present), but the order of
        anchors does not depend on it. Neighbour anchors follow the behaviour anchors. With
        `counted` the videos' counters are read, too.
        """
        now = time.time() if now is None else now
        videos = list(dict.fromkeys(video_id for video_id, _ in pairs))
        users = list(dict.fromkeys(user_id for _, user_id in pairs if user_id is not None))
        if not videos:
            return []
        # In this order: what is read may be newer than its time and its seals say, never older.
        # By its source, not by its digest: it must not be sent again behind the others.
        commands = [Command("EVAL", (), (NOW.source, 1, self.keys.text(videos[0])))]
        totalled = counted or self.policy.tired_shows > 0
        for video_id in videos:
            commands += self._video_commands(video_id)
            if totalled:
                commands.append(self._counts_command(video_id))
        commands += [command for user_id in users for command in self._user_commands(user_id)]
        read_at, *found = await pipelined(self.client, commands)
        seconds = int(read_at) / 1e6
        replies = iter(found)
        known = {}
        for video_id in videos:
            (text, neighbors), anchors = next(replies), next(replies)
            totals = self._totals(next(replies)) if totalled else {}
            stored = None if text is None else decode_text(text)
            own = shown_anchors(self._ranked(anchors, now))
            known[video_id] = (
                None if stored is None else stored.text,
                merge_neighbors(own, _neighbors(neighbors), max_anchors),
                NO_SEAL if stored is None else stored.seal,
                most_exposed(totals) if counted else (),
                tired_of(totals, self.policy),
            )
        histories: dict[str | None, tuple[bytes, tuple[HistoryEntry, ...], Reactions]] = {
            None: (NO_SEAL, (), NO_REACTIONS)
        }
        for user in users:
            user_seal, history = seal_of(next(replies)), tuple(decode_history(next(replies)))
            tapped = self._scored(next(replies)) if self.policy.tapped_size else {}
            shown = self._scored(next(replies)) if self.policy.shown_size else {}
            histories[user] = user_seal, history, reactions(tapped, shown, self.policy)
        features = []
        for video_id, user_id in pairs:
            text, anchors, seal, counts, tired = known[video_id]
            user_seal, history, mine = histories[user_id]
            seals = Seals(seal, user_seal, seconds)
            features.append(Features(text, anchors, history, seals, counts, tired, mine))
        return features

    async def anchors(self, video_id: str, *, now: float | None = None) -> tuple[Anchor, ...]:
        """All anchors of a video, behaviour's first, as `features` orders them; those that may not
        be shown to others among them."""
        moment = time.time() if now is None else now
        replies = await pipelined(self.client, self._video_commands(video_id))
        (_, neighbors), anchors = replies
        return merge_neighbors(self._ranked(anchors, moment), _neighbors(neighbors), limit=2**31)

    async def video(self, video_id: str) -> KnownVideo | None:
        """What is kept of a video itself; None where nobody has heard of it."""
        commands = [*self._video_commands(video_id), self._counts_command(video_id)]
        (text, neighbors), anchors, counts = await pipelined(self.client, commands)
        if not any((text, neighbors, anchors, counts)):
            return None
        stored = None if text is None else decode_text(text)
        return KnownVideo(
            VideoText() if stored is None else stored.text,
            None if stored is None else stored.version[0],
            self._totals(counts),
        )

    async def counts(self, video_id: str) -> dict[str, QueryCounts]:
        """Counts per query of a video."""
        [reply] = await pipelined(self.client, [self._counts_command(video_id)])
        return self._totals(reply)

    def _counts_command(self, video_id: str) -> Command:
        return Command("HGETALL", (self.keys.counters(video_id),))

    def _totals(self, reply: Any) -> dict[str, QueryCounts]:
        return total_counts(decode_counts(decode_hash(reply), self.policy.max_entries))

    @staticmethod
    def _scored(reply: Any) -> dict[str, float]:
        return {entry.query: entry.ts for entry in decode_history(reply)}

    async def history(self, user_id: str) -> tuple[HistoryEntry, ...]:
        """The user's queries, newest first."""
        [reply] = await pipelined(self.client, [self._history_command(user_id)])
        return tuple(decode_history(reply))

    async def recent_videos(self, limit: int) -> list[tuple[str, float]]:
        """The videos that queries were generated for last, newest first, each with when (UTC
        epoch seconds). `QueryCache.put` notes them.
        """
        newest = Command("ZREVRANGE", (self.keys.recent,), (0, limit - 1, "WITHSCORES"))
        [reply] = await pipelined(self.client, [newest])
        return [(entry.query, entry.ts) for entry in decode_history(reply)]

    async def delete_user(self, user_id: str, ts: float) -> None:
        """Forget everything of a user up to and including `ts`, cached queries too, now."""
        await self.apply([(UserDelete(user_id, ts), None)])

    async def put_neighbors(self, anchors: Mapping[str, Sequence[Anchor]]) -> None:
        """Replace the neighbour anchors of these videos, strongest first, in one round trip; they
        live as long as a video does."""
        ttl = max(1, round(self.policy.video_ttl_s * 1000))
        await pipelined(
            self.client,
            [
                Command(
                    "SET",
                    (self.keys.neighbors(video_id),),
                    (msgspec.json.encode(tuple(found)), "PX", ttl),
                )
                for video_id, found in anchors.items()
            ],
        )

    async def rules_version(self) -> int:
        """How often any rule has changed: where it is another than before, `rules_since` says what
        did."""
        [version] = await strings(self.client, [self.keys.rules.version])
        return int(version or 0)

    async def rules_since(self, version: int) -> dict[str, Rule | None]:
        """The rules that changed after this version; None for those that were taken back."""
        keys = self.keys.rules
        changed = Command("ZRANGEBYSCORE", (keys.changes,), (f"({version}", "+inf"))
        [names] = await pipelined(self.client, [changed])
        found: dict[str, Rule | None] = {}
        for at in range(0, len(names), RULES_READ):
            some = names[at : at + RULES_READ]
            [values] = await pipelined(self.client, [Command("HMGET", (keys.rules,), tuple(some))])
            for name, value in zip(some, values, strict=True):
                found[name.decode()] = None if value is None else decode_rule(value).rule
        return found

    async def rule_history(self, limit: int, rule_id: str | None = None) -> list[RuleChanged]:
        """The newest changes of rules (of one of them), newest first."""
        everything = 0, (limit if rule_id is None else RULE_CHANGES_KEPT) - 1
        [entries] = await pipelined(
            self.client, [Command("ZREVRANGE", (self.keys.rules.history,), everything)]
        )
        changes = (decode_change(entry) for entry in entries)
        wanted = (change for change in changes if rule_id in (None, change.rule_id))
        return list(islice(wanted, limit))

    async def note_reached(
        self,
        offsets: Mapping[tuple[str, int], int],
        known: Mapping[tuple[str, int], int] | None = None,
    ) -> dict[tuple[str, int], int]:
        """Note the last offset applied of each (topic, partition): what `reached` answers. What it
        answered before, -1 for nothing.

        A lower one than was noted changes nothing. Nor does any where less was noted than is
        `known` to have been: Redis lost it, and that stays to be seen. Of a cluster, the server
        that knows of least is what counts.
        """
        known = known or {}
        places = [(pair, tag) for pair in offsets for tag in self._tags]
        replies = await pipelined(
            self.client,
            [
                Command(
                    REACHED, (self.keys.reached(*pair, tag),), (offsets[pair], known.get(pair, -1))
                )
                for pair, tag in places
            ],
        )
        return _least(places, replies)

    async def reached(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The last offset applied of each (topic, partition); none where nothing was, by one
        server of a cluster at least."""
        if not partitions:
            return {}
        replies = await pipelined(
            self.client,
            [
                Command("MGET", tuple(self.keys.reached(*pair, tag) for pair in partitions))
                for tag in self._tags
            ],
        )
        found = {
            pair: min(-1 if offset is None else int(offset) for offset in offsets)
            for pair, *offsets in zip(partitions, *replies, strict=True)
        }
        return {pair: offset for pair, offset in found.items() if offset >= 0}

    @property
    def _tags(self) -> tuple[str, ...]:
        return redis_client.tags(redis_client.is_cluster(self.client))

    async def ping(self) -> None:
        """Raises `StoreUnavailableError` unless Redis answers."""
        await strings(self.client, [self.keys.probe()])

    async def probe(self) -> str | None:
        """Raises `StoreUnavailableError` unless Redis answers and a write is possible now. What
        was noted of a loss (`note_lost`); None where the state is whole.
        """
        lifetime = (PROBE_TTL_MS,)
        first = Command(PROBE, (self.keys.probe(), self.keys.lost), lifetime)
        others = [Command(PROBE, (self.keys.probe(tag),), lifetime) for tag in self._tags if tag]
        replies = await pipelined(self.client, [first, *others])
        return None if replies[0] is None else replies[0].decode(errors="replace")

    async def fitness(self) -> Fitness:
        """Whether this Redis is fit to hold the state."""
        return await examine(self.client, self.keys.probe())

    async def vitals(self) -> Vitals | None:
        """How Redis is doing; None where it may not be asked."""
        return await vitals(self.client)

    async def clock(self) -> float:
        """The time that Redis has, in UTC epoch seconds."""
        [now] = await pipelined(self.client, [Command(NOW, (self.keys.probe(),))])
        return int(now) / 1e6

    async def note_lost(self, what: str | None) -> None:
        """Note that this generation lacks something it had taken in, for everyone who reads it;
        None: it is whole."""
        name = (self.keys.lost,)
        command = Command("DEL", name) if what is None else Command("SET", name, (what,))
        await pipelined(self.client, [command])

    async def close(self) -> None:
        """Close the client."""
        await redis_client.close(self.client)

    async def dump(self) -> StateSnapshot:
        """The whole of it, for checks: reads every key, and is not one moment's picture."""
        found = StateSnapshot()
        async for batch in self._state_keys():
            await self._fill(found, batch)
        found.rules.update(await self.rules())
        return found

    async def rules(self) -> dict[str, RuleState]:
        """Every rule with what it came with, those that were taken back among them."""
        [rules] = await pipelined(self.client, [Command("HGETALL", (self.keys.rules.rules,))])
        return {name.decode(): decode_rule(value) for name, value in decode_hash(rules).items()}

    async def _fill(self, found: StateSnapshot, batch: Sequence[tuple[str, StateKey]]) -> None:
        """Read these keys into a snapshot."""
        replies = await pipelined(self.client, [_READS[key.part](name) for name, key in batch])
        for (_, (part, entity)), reply in zip(batch, replies, strict=True):
            if not reply:  # there is none, or it expired since it was listed
                continue
            if part in _OF_USERS:
                _fill_user(found.users.setdefault(entity, UserState()), part, reply)
            else:
                self._fill_video(found.videos.setdefault(entity, VideoState()), part, reply)

    async def entities(self, most: int) -> tuple[list[str], list[str]]:
        """Some videos and some users that the state knows, `most` in all: those that Redis lists
        first, which is as good as any."""
        videos: dict[str, None] = {}
        users: dict[str, None] = {}
        async for batch in self._state_keys():
            for _, (part, entity) in batch:
                (users if part in _OF_USERS else videos)[entity] = None
            if len(videos) + len(users) >= most:
                break
        return list(videos), list(users)

    async def read(self, videos: Sequence[str], users: Sequence[str]) -> StateSnapshot:
        """The state of these videos and users, in one round trip; who is not known is not in it."""
        keys, wanted = self.keys, list[tuple[str, StateKey]]()
        for video_id in videos:
            of = keys.video(video_id)
            wanted.append((of.text, StateKey("text", video_id)))
            wanted.append((of.anchors, StateKey("anchors", video_id)))
            wanted.append((of.counters, StateKey("counters", video_id)))
        for user_id in users:
            wanted.append((keys.history(user_id), StateKey("history", user_id)))
            wanted.append((keys.deletion(user_id), StateKey("deletion", user_id)))
            wanted.append((keys.tapped(user_id), StateKey("tapped", user_id)))
            wanted.append((keys.shown(user_id), StateKey("shown", user_id)))
        found = StateSnapshot()
        await self._fill(found, wanted)
        return found

    async def fences(self, videos: Sequence[str]) -> list[dict[str, int]]:
        """Of each of these videos how far its state has taken in the log: "topic/partition" ->
        offset."""
        replies = await pipelined(
            self.client, [Command("HGETALL", (self.keys.fence(video_id),)) for video_id in videos]
        )
        return [
            {name.decode(): int(offset) for name, offset in decode_hash(reply).items()}
            for reply in replies
        ]

    async def neighbors(self) -> AsyncIterator[dict[str, bytes]]:
        """The neighbour anchors of all videos, as they are kept, some at a time."""
        keys = self.keys
        begin, end = keys.all_neighbors
        batch: list[str] = []
        async for name in redis_client.scan(self.client, begin, end):
            batch.append(name)
            if len(batch) == _DUMP_BATCH:
                yield await self._kept(batch, keys)
                batch = []
        yield await self._kept(batch, keys)

    async def _kept(self, names: Sequence[str], keys: Keys) -> dict[str, bytes]:
        values = await strings(self.client, names)
        return {
            key: value
            for name, value in zip(names, values, strict=True)
            if value is not None and (key := keys.neighbors_of(name)) is not None
        }

    async def keep_neighbors(self, kept: Mapping[str, bytes]) -> None:
        """Keep what `neighbors` of another version gave."""
        ttl = max(1, round(self.policy.video_ttl_s * 1000))
        commands = [
            Command("SET", (self.keys.neighbors(video_id),), (value, "PX", ttl))
            for video_id, value in kept.items()
        ]
        await pipelined(self.client, commands)

    async def _state_keys(self) -> AsyncIterator[list[tuple[str, StateKey]]]:
        """Each key that holds state, and what of it, in batches."""
        batch: list[tuple[str, StateKey]] = []
        async for name in redis_client.scan(self.client, self.keys.prefix):
            key = self.keys.state_key(name)
            if key is not None:
                batch.append((name, key))
            if len(batch) == _DUMP_BATCH:
                yield batch
                batch = []
        yield batch

    def _fill_video(self, video: VideoState, part: StatePart, reply: Any) -> None:
        limit = self.policy.max_entries
        if part == "text":
            stored = decode_text(reply)
            video.version, video.text = stored.version, stored.text
        elif part == "anchors":
            video.anchors, video.askers = decode_anchors(decode_hash(reply), limit)
        else:
            video.counts = decode_counts(decode_hash(reply), limit)

    def _ranked(self, anchors: Any, now: float) -> tuple[Anchor, ...]:
        entries, askers = decode_anchors(decode_hash(anchors), self.policy.max_entries)
        return rank_anchors(entries, self.policy, now, showable(askers, self.policy, now))

    def _video_commands(self, video_id: str) -> list[Command]:
        """Reply with (text, neighbours), then anchors."""
        keys = self.keys.video(video_id)
        return [
            Command("MGET", (keys.text, keys.neighbors)),
            Command("HGETALL", (keys.anchors,)),
        ]

    def _user_commands(self, user_id: str) -> list[Command]:
        """Reply with the deletion, then the history, then what of the user's reactions is kept."""
        policy, keys = self.policy, self.keys
        commands = [Command("GET", (keys.deletion(user_id),)), self._history_command(user_id)]
        if policy.tapped_size:
            commands.append(_newest(keys.tapped(user_id), policy.tapped_size))
        if policy.shown_size:
            commands.append(_newest(keys.shown(user_id), policy.shown_size))
        return commands

    def _history_command(self, user_id: str) -> Command:
        return _newest(self.keys.history(user_id), self.policy.history_size)

    async def _forget_cached(self, users: Sequence[str], keys: Keys) -> None:
        """Drop the users' own cached queries. The index goes last, so that it can be repeated."""
        if not users:
            return
        indexes = [keys.personal_videos(user_id) for user_id in users]
        replies = await pipelined(
            self.client, [Command("ZRANGE", (index,), (0, -1)) for index in indexes]
        )
        bodies: list[Command] = []
        entries: list[Command] = []
        for user_id, index, members in zip(users, indexes, replies, strict=True):
            if members:
                entries.append(Command("ZREM", (index,), tuple(members)))
            for video_id in members:
                body = keys.cached_for(video_id.decode(), user_id)
                bodies.append(Command("DEL", (body,)))
        await pipelined(self.client, bodies)
        await pipelined(self.client, entries)


def _newest(name: str, size: int) -> Command:
    return Command("ZREVRANGE", (name,), (0, size - 1, "WITHSCORES"))


def _neighbors(value: bytes | None) -> tuple[Anchor, ...]:
    if value is None:
        return ()
    try:
        return _ANCHORS.decode(value)
    except msgspec.DecodeError as error:
        raise CorruptStateError(f"expected neighbour anchors, got {value!r:.80}: {error}") from None


def _fill_user(user: UserState, part: StatePart, reply: Any) -> None:
    if part == "deletion":
        user.deleted_before = decode_deletion(reply)[0]
        return
    entries = {entry.query: entry.ts for entry in decode_history(reply)}
    if part == "history":
        user.history = entries
    elif part == "tapped":
        user.tapped = entries
    else:
        user.shown = entries


_READS: dict[StatePart, Callable[[str], Command]] = {
    "text": lambda key: Command("GET", (key,)),
    "anchors": lambda key: Command("HGETALL", (key,)),
    "counters": lambda key: Command("HGETALL", (key,)),
    **dict.fromkeys(
        ("history", "tapped", "shown"),
        lambda key: Command("ZREVRANGE", (key,), (0, -1, "WITHSCORES")),
    ),
    "deletion": lambda key: Command("GET", (key,)),
}
_OF_USERS: frozenset[StatePart] = frozenset(("history", "deletion", "tapped", "shown"))


def _least(
    places: Sequence[tuple[tuple[str, int], str]], offsets: Sequence[int]
) -> dict[tuple[str, int], int]:
    """The least offset of each pair's places."""
    found: dict[tuple[str, int], int] = {}
    for (pair, _), offset in zip(places, offsets, strict=True):
        found[pair] = min(offset, found.get(pair, offset))
    return found
