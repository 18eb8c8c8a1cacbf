"""`onebar status`: what runs, how far behind it is, and with what."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from feature_store.opening import live_settings, open_live_store
from feature_store.redis.fitness import Vitals
from onebar import __version__
from onebar.errors import OneBarError
from onebar.recommending.loading import open_configured
from onebar.settings import Settings
from onebar.stack.doctor.examination import PARTS, get, readiness
from stream.events import IMPRESSIONS
from stream.kafka.facts import Member, group_members
from stream.kafka.groups import generator_group, stream_group
from stream.kafka.lag import group_lags
from stream.logs.dead_letters import dead_letters
from stream.workers.continuity import INPUTS

WITHIN_S = 10.0
_ANSWERS = re.compile(r'^onebar_answers_total\{[^}]*source="(\w+)"[^}]*\} ([\d.e+]+)$', re.M)


class Group(Struct, frozen=True):
    """The workers of one kind: `lag` in records, of all partitions and by partition. `members` None
    where the broker does not tell."""

    name: str
    lag: int
    partitions: dict[str, int]
    members: list[Member] | None


class Api(Struct, frozen=True):
    """An API: whether it is ready, why not, and where its answers came from since its start, as
    shares of one."""

    url: str
    ready: bool
    checkpoint: str | None = None
    sources: dict[str, float] = field(default_factory=dict)
    said: str = ""


class Status(Struct, frozen=True):
    """What could be found out; `missing` says why the rest could not."""

    version: str
    state_version: str | UnsetType = UNSET
    groups: list[Group] | UnsetType = UNSET
    dead_letters: int | UnsetType = UNSET
    rules: int | UnsetType = UNSET
    lost: str | UnsetType | None = UNSET
    redis: Vitals | UnsetType | None = UNSET
    checkpoint: str | UnsetType = UNSET
    api: Api | UnsetType = UNSET
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether nothing is missing or lost, and whoever should be there is."""
        groups = [] if self.groups is UNSET else self.groups
        api = self.api is UNSET or self.api.ready
        manned = all(group.members != [] for group in groups)
        return not self.missing and self.lost in (None, UNSET) and manned and api


async def status(settings: Settings, api_url: str) -> Status:
    """Ask Kafka, Redis and the API, side by side. What does not answer is among `missing`."""
    missing: dict[str, str] = {}
    asked: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "kafka": partial(_groups, settings),
        "dead_letters": partial(_letters, settings),
        "redis": partial(_redis, settings),
        "checkpoint": partial(_checkpoint, settings),
        "api": partial(_api, settings, api_url),
    }

    async def ask(name: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(WITHIN_S):
                return await asked[name]()
        except TimeoutError:
            missing[name] = f"no answer within {WITHIN_S:g} s"
        except (OneBarError, OSError, ValueError) as error:
            missing[name] = str(error) or type(error).__name__
        return {}

    found = await asyncio.gather(*map(ask, asked))
    facts = {name: value for part in found for name, value in part.items()}
    order = {name: missing[name] for name in asked if name in missing}
    return Status(__version__, missing=order, **facts)


async def _groups(settings: Settings) -> dict[str, Any]:
    settings = await live_settings(settings)

    async def one(name: str, group: str, topics: tuple[str, ...]) -> Group:
        lags = await group_lags(settings, group, topics)
        by_name = {f"{topic}/{p}": lag for (topic, p), lag in sorted(lags.items())}
        members = await group_members(settings, group)
        return Group(name, sum(lags.values()), by_name, members)

    return {
        "groups": [
            await one("stream", stream_group(settings), INPUTS),
            await one("generator", generator_group(settings), (IMPRESSIONS,)),
        ]
    }


async def _letters(settings: Settings) -> dict[str, Any]:
    return {"dead_letters": len([0 async for _ in dead_letters(settings)])}


async def _redis(settings: Settings) -> dict[str, Any]:
    store = await open_live_store(settings)
    try:
        rules = await store.rules_since(0)
        return {
            "state_version": store.keys.state_version,
            "lost": await store.probe(),
            "rules": sum(rule is not None for rule in rules.values()),
            "redis": await store.vitals(),
        }
    finally:
        await store.close()


async def _checkpoint(settings: Settings) -> dict[str, Any]:
    return {"checkpoint": (await asyncio.to_thread(open_configured, settings)).name}


async def _api(settings: Settings, url: str) -> dict[str, Any]:
    code, told = await asyncio.to_thread(readiness, url, settings)
    _, metrics = await asyncio.to_thread(get, url, "/metrics", settings)
    said = [f"{name}: {told[name]}" for name in PARTS if told[name] != "ok"]
    if told.get("warning"):
        said.append(told["warning"])
    return {"api": Api(url, code == 200, told.get("checkpoint"), sources(metrics), "; ".join(said))}


def sources(metrics: str) -> dict[str, float]:
    """Where answers came from, as shares of one, by an API's metrics; pure."""
    counts: dict[str, float] = {}
    for source, count in _ANSWERS.findall(metrics):
        counts[source] = counts.get(source, 0.0) + float(count)
    total = sum(counts.values())
    return {name: count / total for name, count in sorted(counts.items())} if total else {}


def rows(found: Status) -> list[tuple[str, str]]:
    """For people: a name and what is so; pure."""
    state = "unknown" if found.state_version is UNSET else found.state_version
    lines = [("OneBar", f"{found.version}, state {state}")]
    if found.groups is not UNSET:
        for group in found.groups:
            lines.append((group.name, _group(group)))
            lines += [
                ("", f"{member.host}: {', '.join(member.partitions) or 'nothing yet'}")
                for member in group.members or ()
                if member.host or member.partitions  # the embedded broker tells of neither
            ]
    if found.dead_letters is not UNSET:
        lines.append(("dead letters", f"{found.dead_letters:,}"))
    if found.lost is not UNSET:
        lines.append(("state", found.lost or "whole"))
    if found.rules is not UNSET:
        lines.append(("rules", f"{found.rules:,}"))
    if found.redis is not UNSET and found.redis is not None:
        limit = f" of {found.redis.limit_bytes / 2**20:,.0f}" if found.redis.limit_bytes else ""
        evicted = f", {found.redis.evicted:,} keys evicted" if found.redis.evicted else ""
        lines.append(("redis", f"{found.redis.used_bytes / 2**20:,.0f}{limit} MiB{evicted}"))
    if found.checkpoint is not UNSET:
        lines.append(("checkpoint", f"{found.checkpoint} (what the settings here name)"))
    if found.api is not UNSET:
        lines.append(("api", _api_line(found.api)))
    lines += [(name, f"UNKNOWN: {why}") for name, why in found.missing.items()]
    return lines


def _group(group: Group) -> str:
    worst = max(group.partitions.items(), key=lambda item: item[1], default=("", 0))
    count = "?" if group.members is None else len(group.members)
    behind = f"{group.lag:,} behind"
    if group.lag:
        behind += f", most in {worst[0]} ({worst[1]:,})"
    return f"{count} running, {behind}"


def _api_line(api: Api) -> str:
    if not api.ready:
        return f"{api.url} is NOT READY: {api.said}"
    shares = ", ".join(f"{share:.0%} {name}" for name, share in api.sources.items())
    model = api.checkpoint or "no model"
    return f"{api.url} is ready with {model}; answers: {shares or 'none yet'}" + (
        f"; {api.said}" if api.said else ""
    )
