"""How far behind a consumer group is: in every partition, whoever reads it, or nobody."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from onebar.settings import Settings
from stream.kafka.clients import running
from stream.kafka.connection import client_options
from stream.kafka.consumer import committed_offsets
from stream.kafka.topics import CLIENT_ERRORS, connecting_error, partition_counts


async def group_lags(
    settings: Settings, group: str, topics: Sequence[str]
) -> dict[tuple[str, int], int]:
    """(topic without prefix, partition) -> records there that the group has not committed.

    A marker of a transaction counts as a record, as it does for Kafka's own tools. Raises
    `KafkaUnavailableError`.
    """
    counts = await partition_counts(settings)
    prefix = len(settings.topic_prefix)
    names = [settings.topic_prefix + topic for topic in topics]
    partitions = [TopicPartition(name, p) for name in names for p in range(counts.get(name, 0))]
    if not partitions:  # aiokafka never comes back from asking about no partition at all
        return {}
    committed = await committed_offsets(settings, group, [tuple(tp) for tp in partitions])
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    try:
        async with running(consumer):
            begins = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
    except CLIENT_ERRORS as error:
        raise await connecting_error(settings, error) from error
    return {
        (tp.topic[prefix:], tp.partition): max(
            0, ends[tp] - max(committed[tp.topic, tp.partition], begins[tp])
        )
        for tp in partitions
    }
