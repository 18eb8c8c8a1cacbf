"""Topics on a real broker: made once, by whoever comes first, with their settings."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from stream_fixtures import NOW, make_topics, producer

from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, DEAD_LETTERS, VIDEOS, Video
from stream.kafka.consumer import end_offsets
from stream.kafka.producer import EventProducer, EventTooLargeError
from stream.kafka.topics import (
    TOPICS,
    KafkaUnavailableError,
    delete_topics,
    ensure_topics,
    partition_counts,
)

pytestmark = pytest.mark.integration

NAMES = [spec.name for spec in TOPICS]


async def test_what_is_missing_is_made_and_what_is_there_is_left(settings: Settings) -> None:
    prefix = settings.topic_prefix
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(prefix + BEHAVIORS, 5, 1)])
    await admin.close()
    made = await make_topics(settings)
    assert sorted(made) == sorted(prefix + name for name in NAMES if name != BEHAVIORS)
    counts = await partition_counts(settings)
    assert {name: counts[prefix + name] for name in NAMES} == {
        name: 5 if name == BEHAVIORS else settings.partitions for name in NAMES
    }
    assert await make_topics(settings) == []


async def test_several_may_make_them_at_once(settings: Settings) -> None:
    made = await asyncio.gather(*(make_topics(settings) for _ in range(4)))
    prefix = settings.topic_prefix
    assert sorted(name for names in made for name in names) == sorted(
        prefix + name for name in NAMES
    )
    counts = await partition_counts(settings)
    assert {counts[prefix + name] for name in NAMES} == {settings.partitions}


async def test_videos_are_compacted_and_dead_letters_may_be_long(settings: Settings) -> None:
    await make_topics(settings)
    prefix = settings.topic_prefix
    assert await config_of(settings, prefix + VIDEOS, "cleanup.policy") == "compact"
    assert int(await config_of(settings, prefix + DEAD_LETTERS, "max.message.bytes")) > 2**20


async def config_of(settings: Settings, topic: str, name: str) -> str:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    [(_, _, _, _, entries)] = [found for response in responses for found in response.resources]
    return str({entry[0]: entry[1] for entry in entries}[name])


async def test_deleting_passes_over_what_is_not_there(settings: Settings) -> None:
    await make_topics(settings)
    names = [settings.topic_prefix + name for name in NAMES]
    await delete_topics(settings, [*names, settings.topic_prefix + "nothing"])
    assert not set(names) & set(await partition_counts(settings))


async def test_a_broker_that_is_not_there_is_named() -> None:
    nowhere = Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}")
    with pytest.raises(KafkaUnavailableError, match=nowhere.kafka_bootstrap):
        await ensure_topics(nowhere)
    with pytest.raises(KafkaUnavailableError, match="ONEBAR_KAFKA_BOOTSTRAP"):
        await EventProducer(nowhere).start()


async def test_what_is_too_long_is_refused_and_the_others_arrive(settings: Settings) -> None:
    await make_topics(settings)
    videos = [
        Video(event_id=f"e{i}", ts=NOW, video_id="v", caption="x" * size)
        for i, size in enumerate([10, 5 * 1024 * 1024])
    ]
    async with producer(settings) as kafka:
        with pytest.raises(EventTooLargeError):
            await kafka.send(videos)
    partitions = [(settings.topic_prefix + VIDEOS, p) for p in range(settings.partitions)]
    assert sum((await end_offsets(settings, partitions)).values()) == 1
