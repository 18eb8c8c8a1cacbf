"""What Kafka says of our topics and groups: their settings, and who reads what."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.metadata import MetadataRequest
from msgspec import Struct

from onebar.settings import Settings
from stream.kafka.topics import CLIENT_ERRORS, TOPICS, TopicSpec, administered

MIN_IN_SYNC = "min.insync.replicas"
_LEAST = ("retention.ms", "delete.retention.ms", "max.message.bytes")
"""Settings of which more is fine."""


class TopicFacts(Struct, frozen=True):
    """A topic as it is; `config` None where the broker does not tell its settings."""

    partitions: int
    copies: int
    config: dict[str, str] | None


class Topics(Struct, frozen=True):
    """How many brokers there are, and what our topics are like, by their names without the prefix.
    `hidden` are those that this user may not see: whether they are there is not told."""

    brokers: int
    facts: dict[str, TopicFacts]
    hidden: frozenset[str]


class Member(Struct, frozen=True):
    """A worker in a consumer group, by the host it connects from, and what it reads."""

    host: str
    client: str
    partitions: tuple[str, ...]


async def topic_facts(settings: Settings) -> Topics:
    """What our topics are like; a missing one is not in it. Raises `KafkaUnavailableError`."""
    prefix = settings.topic_prefix
    async with administered(settings) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        found: dict[str, TopicFacts] = {}
        described = {topic["topic"]: topic for topic in await admin.describe_topics()}
        ours = [spec.name for spec in TOPICS if prefix + spec.name in described]
        configs = await _configs(admin, [prefix + name for name in ours])
        for name in ours:
            partitions = described[prefix + name]["partitions"]
            copies = min((len(each["replicas"]) for each in partitions), default=0)
            found[name] = TopicFacts(len(partitions), copies, configs.get(prefix + name))
        unseen = [prefix + spec.name for spec in TOPICS if spec.name not in found]
        hidden = await _hidden(admin, unseen)
        return Topics(brokers, found, frozenset(name.removeprefix(prefix) for name in hidden))


async def _hidden(admin: Any, names: Collection[str]) -> list[str]:
    """Which of these topics this user may not see. A list of all leaves such out, as if they were
    not there; asked for by its name, each is refused. None is made by being asked for."""
    if not names:
        return []
    # `describe_topics` of names would have a broker that makes topics by itself make them.
    answer = await admin._send_request(MetadataRequest(list(names), False))
    refused = TopicAuthorizationFailedError.errno
    topics = answer.to_object()["topics"]
    return [each["topic"] for each in topics if each["error_code"] == refused]


async def _configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    with suppress(*CLIENT_ERRORS):  # a broker that does not tell, or not this user
        for response in await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        ):
            for code, _, _, name, entries in response.resources:
                if code == 0 and entries:
                    found[name] = {entry[0]: str(entry[1]) for entry in entries}
    return found


def topic_faults(spec: TopicSpec, facts: TopicFacts, brokers: int) -> list[str]:
    """What is not as a topic of this kind should be, and would be had we made it; pure."""
    faults = []
    config: Mapping[str, str] = facts.config or {}
    for name, wanted in spec.config.items():
        has = config.get(name)
        if has is None or has == wanted or (name in _LEAST and _at_least(has, wanted)):
            continue
        faults.append(f"{name} is {has}, not {wanted}")
    if facts.copies == 1 and brokers > 1:
        faults.append(f"has one copy on {brokers} brokers: the loss of one loses its records")
    if facts.copies > 2 and config.get(MIN_IN_SYNC, "2") == "1":
        faults.append(f"{MIN_IN_SYNC} is 1: what was acknowledged may have one copy alone")
    return faults


def _at_least(has: str, wanted: str) -> bool:
    unlimited = -1
    try:
        return int(has) == unlimited or int(has) >= int(wanted)
    except ValueError:
        return False


async def group_members(settings: Settings, group: str) -> list[Member] | None:
    """Who is in a consumer group now; None where the broker does not tell. Raises
    `KafkaUnavailableError`."""
    found: list[Member] = []
    async with administered(settings) as admin:
        try:
            responses = await admin.describe_consumer_groups([group])
        except (*CLIENT_ERRORS, NotImplementedError):
            return None
        for response in responses:
            for _, _, _, _, _, members, *_ in response.groups:
                found += [_member(each, len(settings.topic_prefix)) for each in members]
    return sorted(found, key=lambda member: (member.host, member.partitions))


def _member(told: Sequence[Any], prefix: int) -> Member:
    *_, client, host, _, assignment = told
    partitions: list[str] = []
    with suppress(ValueError, IndexError):  # it joins at the moment, and has none
        decoded = ConsumerProtocolMemberAssignment.decode(assignment)
        partitions = [f"{topic[prefix:]}/{p}" for topic, p in decoded.partitions()]
    return Member(str(host).lstrip("/"), str(client), tuple(sorted(partitions)))
