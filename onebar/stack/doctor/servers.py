"""Checks of Kafka, of Redis, and of whether what the two hold belongs together."""

from __future__ import annotations

import time

from feature_store.opening import live_settings, open_live_store, open_store, versions_beside
from feature_store.redis.client import StoreUnfitError
from feature_store.redis.fitness import acl_rule
from feature_store.versions import at_version
from onebar.addresses import shown_url
from onebar.settings import Settings
from onebar.stack.doctor.finding import Finding, warn
from stream.events import IMPRESSIONS
from stream.kafka.facts import group_members, topic_facts, topic_faults
from stream.kafka.groups import generator_group, stream_group
from stream.kafka.lag import group_lags
from stream.kafka.topics import TOPICS, partition_counts
from stream.logs.dead_letters import dead_letters
from stream.workers.continuity import (
    INPUTS,
    LogRewoundError,
    StateLostError,
    check_continuity,
)

MOST_LAG = 10_000
MOST_SKEW_S = 5.0
MOST_FULL = 0.9


async def kafka(settings: Settings) -> list[Finding]:
    counts = await partition_counts(settings)
    return [
        Finding("kafka", True, f"{settings.kafka_bootstrap} answers, {len(counts)} topics"),
    ]


async def topics(settings: Settings) -> list[Finding]:
    """Whether all are there, and as we would have made them."""
    told = await topic_facts(settings)
    facts, prefix = told.facts, settings.topic_prefix
    hidden = [prefix + spec.name for spec in TOPICS if spec.name in told.hidden]
    absent = (spec.name for spec in TOPICS if spec.name not in facts)
    missing = [prefix + name for name in absent if name not in told.hidden]
    found = []
    if hidden:
        found.append(
            Finding(
                "topics",
                False,
                f"this user may not see {', '.join(hidden)}, so whether they are there is unknown",
                "grant it Describe on them, and what else docs/operations.md lists",
            )
        )
    if missing:
        found.append(
            Finding(
                "topics",
                False,
                f"missing: {', '.join(missing)}",
                "create them: onebar topics create",
            )
        )
    elif not hidden:
        names = (f"{prefix}{spec.name} ({facts[spec.name].partitions})" for spec in TOPICS)
        found.append(Finding("topics", True, ", ".join(names)))
    for spec in TOPICS:
        known = facts.get(spec.name)
        faults = topic_faults(spec, known, told.brokers) if known is not None else []
        if faults:
            wanted = ",".join(f"{name}={value}" for name, value in spec.config.items())
            found.append(
                warn(
                    "topics",
                    f"{prefix}{spec.name}: {'; '.join(faults)}",
                    f"kafka-configs.sh --alter --entity-type topics --entity-name "
                    f"{prefix}{spec.name} --add-config {wanted}",
                )
            )
    return found


async def workers(settings: Settings) -> list[Finding]:
    """Who reads, and how far behind they are."""
    found = []
    settings = await live_settings(settings)
    for command, group, names in (
        ("stream", stream_group(settings), INPUTS),
        ("generator", generator_group(settings), (IMPRESSIONS,)),
    ):
        lag = sum((await group_lags(settings, group, names)).values())
        members = await group_members(settings, group)
        count = "" if members is None else f"{len(members)} running, "
        said = f"{count}{lag:,} records behind"
        if members == [] and lag:
            found.append(warn(command, said, f"start one: onebar {command}"))
        elif lag > MOST_LAG:
            advice = "add workers, up to one a partition; docs/operations.md, OneBarStreamBehind"
            found.append(warn(command, said, advice))
        else:
            found.append(
                Finding(command, True if members else None, said, f"start one: onebar {command}")
            )
    return found


async def letters(settings: Settings) -> list[Finding]:
    """Whether anything was set aside."""
    reasons: dict[str, int] = {}
    async for letter in dead_letters(settings):
        reason = letter.reason.partition(":")[0]
        reasons[reason] = reasons.get(reason, 0) + 1
    if not reasons:
        return [Finding("dead letters", True, "none")]
    said = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    return [warn("dead letters", said, "onebar dead-letters list; then replay or drop them")]


async def redis(settings: Settings) -> list[Finding]:
    """Whether it is fit to hold the state, and holds all of it."""
    store = await open_live_store(settings)
    try:
        fitness = await store.fitness()
        vitals = await store.vitals()
        lost = None if fitness.problems else await store.probe()
        before = time.time()
        skew = (before + time.time()) / 2 - await store.clock()
    except StoreUnfitError as error:
        return [Finding("redis", False, str(error), _rule_advice(settings))]
    finally:
        await store.close()
    notes = "".join(f"; {note}" for note in fitness.notes)
    url = shown_url(settings.redis_url)
    version = f"version {fitness.version}" if fitness.version else "of a version it does not tell"
    found = [Finding("redis", True, f"{url} answers, {version}{notes}")]
    if fitness.problems:
        found = [Finding("redis", False, "; ".join(fitness.problems), _rule_advice(settings))]
    # An eviction takes from the state without a word: that is no matter of one day.
    found += [
        Finding("redis", False, warning, "redis-cli CONFIG SET maxmemory-policy noeviction")
        for warning in fitness.warnings
    ]
    if lost:
        found.append(Finding("state", False, lost, _REBUILD))
    if vitals is not None and vitals.limit_bytes:
        share = vitals.used_bytes / vitals.limit_bytes
        if share > MOST_FULL:
            found.append(
                warn("redis memory", f"{share:.0%} in use", "give it more: CONFIG SET maxmemory")
            )
    if vitals is not None and not vitals.saves:
        found.append(
            warn("redis disk", "its last save failed", "look at its disk and its log: it soon "
                 "refuses writes")
        )  # fmt: skip
    if abs(skew) > MOST_SKEW_S:
        where = "ahead of" if skew > 0 else "behind"
        said = f"this machine's is {abs(skew):.1f} s {where} that of Redis"
        found.append(Finding("clock", False, said, "let NTP set both: timedatectl set-ntp true"))
    else:
        found.append(Finding("clock", True, f"{abs(skew):.1f} s from that of Redis"))
    return found


def _rule_advice(settings: Settings) -> str:
    rule = acl_rule("onebar", settings.namespace, cluster="+cluster" in settings.redis_url[:20])
    return f"Redis 7.0 or later, the primary, with: ACL SETUSER {rule.removeprefix('user ')}"


_REBUILD = "build the state anew from the log: onebar rebuild"


async def state(settings: Settings) -> list[Finding]:
    """Whether the state in Redis is of the log in Kafka, and whole."""
    store = await open_live_store(settings)
    settings = at_version(settings, store.keys.state_version)
    try:
        reached = await check_continuity(settings, store)
    except (StateLostError, LogRewoundError) as error:
        return [Finding("state", False, str(error), _REBUILD)]
    finally:
        await store.close()
    said = f"version {settings.state_version}, of {len(reached)} partitions of the log"
    if not reached:
        found = f"version {settings.state_version} is empty"
        return [Finding("state", None, found, "send events: onebar replay LOG, or the feed's own")]
    return [Finding("state", True, said), *await _elsewhere(settings)]


async def _elsewhere(settings: Settings) -> list[Finding]:
    """Processes that are on another version of the state than the live one."""
    store = open_store(settings)
    try:
        versions = versions_beside(store, settings)
        live, _ = await versions.look()
        others = [each for each in await versions.processes() if each.version != live]
    finally:
        await store.close()
    if not others:
        return []
    told = ", ".join(f"{each} on {each.version}" for each in others)
    advice = "unset ONEBAR_STATE_VERSION there; a process on its way is there within seconds"
    return [warn("versions", f"{live} is live, but {told}", advice)]
