"""The topics: their names, settings and creation. The one place that administers Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from msgspec import Struct, field

from stream.events import BEHAVIORS, DEAD_LETTERS, IMPRESSIONS, QUERIES, VIDEOS

log = structlog.get_logger(__name__)

DAY_MS = 24 * 3600 * 1000
REQUEST_TIMEOUT_MS = 10_000


class KafkaUnavailableError(ConnectionError):
    """Kafka did not answer. The text names the bootstrap servers and says what to check."""

    def __init__(self, bootstrap: str, cause: object) -> None:
        super().__init__(
            f"Kafka at {bootstrap} does not answer ({cause}): "
            "is the broker up, and is ONEBAR_KAFKA_BOOTSTRAP its address?"
        )


class TopicError(RuntimeError):
    """A topic could not be made, or is not fit for use. The text names it and says why."""


class TopicSpec(Struct, frozen=True):
    """A topic as we create it. `config` are Kafka's own topic settings."""

    name: str
    config: dict[str, str] = field(default_factory=dict)


TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(VIDEOS, {"cleanup.policy": "compact"}),
    TopicSpec(IMPRESSIONS, {"retention.ms": str(DAY_MS)}),
    TopicSpec(BEHAVIORS, {"retention.ms": str(90 * DAY_MS)}),
    TopicSpec(QUERIES, {"retention.ms": str(DAY_MS)}),
    # A dead letter is the original and its headers: a little more than the largest original.
    TopicSpec(
        DEAD_LETTERS, {"retention.ms": str(30 * DAY_MS), "max.message.bytes": str(4 * 1024 * 1024)}
    ),
)
"""Every topic, without the prefix."""


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError, TimeoutError) as error:
        raise KafkaUnavailableError(bootstrap, error) from error
    finally:
        await admin.close()


async def partition_counts(bootstrap: str) -> dict[str, int]:
    """Partitions of every topic there is. Raises `KafkaUnavailableError`."""
    async with _admin(bootstrap) as admin:
        return await _partition_counts(admin)


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    names = await admin.list_topics()
    described = await admin.describe_topics(names) if names else []
    return {topic["topic"]: len(topic["partitions"]) for topic in described}


async def ensure_topics(
    bootstrap: str,
    *,
    prefix: str = "",
    partitions: int = 4,
    replication_factor: int = 1,
    specs: Sequence[TopicSpec] = TOPICS,
    within_s: float = 30.0,
) -> list[str]:
    """Create the topics that are missing and wait until all are there; the names created.

    Safe to call from several processes at once. Raises `KafkaUnavailableError`, and `TopicError`
    where the broker refuses a topic or does not show it within `within_s` seconds.
    """
    wanted = {prefix + spec.name: spec for spec in specs}
    async with _admin(bootstrap) as admin:
        present = await _partition_counts(admin)
        missing = [name for name in wanted if name not in present]
        for name in missing:
            topic = NewTopic(
                name, partitions, replication_factor, topic_configs=wanted[name].config
            )
            await _create(admin, topic)
        try:
            async with asyncio.timeout(within_s):
                while not _all_there(  # noqa: ASYNC110 - the broker has nothing to await
                    await _partition_counts(admin), wanted
                ):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TopicError(
                f"the broker has not shown {', '.join(sorted(wanted))} within {within_s:g} s"
            ) from None
    if missing:
        log.info("topics_created", topics=missing, partitions=partitions)
    return missing


def _all_there(present: dict[str, int], wanted: Iterable[str]) -> bool:
    return all(present.get(name, 0) > 0 for name in wanted)


async def _create(admin: AIOKafkaAdminClient, topic: NewTopic) -> None:
    try:
        response = await admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            said = message[0] if message and message[0] else error.description
            raise TopicError(f"the broker refused to create {name}: {said}")


async def delete_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Delete topics; those that do not exist are passed over."""
    async with _admin(bootstrap) as admin:
        present = set(await admin.list_topics())
        doomed = [name for name in names if name in present]
        if doomed:
            await admin.delete_topics(doomed)
