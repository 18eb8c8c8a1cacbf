"""The topics: their names, settings and creation. The one place that administers Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from msgspec import Struct, field

from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.events import BEHAVIORS, DEAD_LETTERS, IMPRESSIONS, QUERIES, RULES, VIDEOS
from stream.kafka.clients import running
from stream.kafka.connection import cause_of, client_options

log = structlog.get_logger(__name__)

CLIENT_ERRORS = (KafkaError, OSError, TimeoutError)
"""What Kafka's client raises where it can't do its work."""
DAY_MS = 24 * 3600 * 1000
REQUEST_TIMEOUT_MS = 10_000
WITHIN_S = 30.0
"""How long a broker may take until it shows a change of its topics."""


class KafkaUnavailableError(OneBarError, ConnectionError):
    """Kafka did not answer. The text names the bootstrap servers and says what to check."""

    def __init__(self, bootstrap: str, cause: object) -> None:
        super().__init__(self._told(bootstrap, cause))

    def _told(self, bootstrap: str, cause: object) -> str:
        hint = "is the broker up, and is ONEBAR_KAFKA_BOOTSTRAP its address?"
        if str(cause).endswith(" closed"):
            hint = (
                "something listens there and hangs up; does it want TLS, a certificate of the "
                "client's, or a login? See ONEBAR_KAFKA_SECURITY_PROTOCOL"
            )
        return f"Kafka at {bootstrap} does not answer ({cause}): {hint}"


class KafkaUnfitError(KafkaUnavailableError):
    """Kafka answers, and refuses whatever is asked of the kind: permissions, the clock, a policy.
    Someone has to mend it; until then no record is to blame."""

    def _told(self, bootstrap: str, cause: object) -> str:
        name = type(cause).__name__
        hint = next((hint for part, hint in _UNFIT.items() if part in name), "mend its settings")
        return f"Kafka at {bootstrap} answers and refuses ({name}: {cause}): {hint}"


_LOGIN = "are ONEBAR_KAFKA_SASL_USERNAME, _PASSWORD and _MECHANISM right?"
_UNFIT = {
    "Authorization": "grant this user what docs/operations.md lists",
    **dict.fromkeys(("Authentication", "Sasl"), _LOGIN),
    "SSL": "is ONEBAR_KAFKA_TLS_CA who signed its certificate, and does it name that host?",
    "InvalidTimestamp": "is the clock of this machine right?",
    "UnsupportedVersion": "which release of Kafka is it?",
    "IncompatibleBroker": "which release of Kafka is it?",
    "InvalidTopic": "is ONEBAR_TOPIC_PREFIX right?",
    "PolicyViolation": "its policy forbids it",
    "InvalidRequiredAcks": "its settings forbid it",
}
"""Part of the name of Kafka's error -> what to do."""


async def connecting_error(settings: Settings, error: BaseException) -> KafkaUnavailableError:
    """`kafka_error` of a client that could not connect."""
    return kafka_error(settings.kafka_bootstrap, await cause_of(settings, error))


def kafka_error(bootstrap: str, error: BaseException) -> KafkaUnavailableError:
    """The error of ours for one of Kafka's client: away, or unfit."""
    unfit = any(part in type(error).__name__ for part in _UNFIT)
    return (KafkaUnfitError if unfit else KafkaUnavailableError)(bootstrap, error)


class TopicError(OneBarError, RuntimeError):
    """A topic could not be made, or is not fit for use. The text names it and says why."""


class TopicSpec(Struct, frozen=True):
    """A topic as we create it. `config` are Kafka's own topic settings."""

    name: str
    config: dict[str, str] = field(default_factory=dict)


TOPICS: tuple[TopicSpec, ...] = (
    # A tombstone stays as long as behaviours do, for they alone would bring a video back.
    TopicSpec(VIDEOS, {"cleanup.policy": "compact", "delete.retention.ms": str(90 * DAY_MS)}),
    TopicSpec(RULES, {"cleanup.policy": "compact"}),
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
async def administered(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that asks about Kafka itself. Raises `KafkaUnavailableError`, also for what its
    calls raise."""
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        async with running(admin):
            yield admin
    except CLIENT_ERRORS as error:
        raise await connecting_error(settings, error) from error


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Partitions of every topic there is. Raises `KafkaUnavailableError`."""
    async with administered(settings) as admin:
        return await _partition_counts(admin)


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    # Topics asked for by name would be made by a broker that makes topics by itself.
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def ensure_topics(
    settings: Settings,
    *,
    specs: Sequence[TopicSpec] = TOPICS,
    within_s: float = WITHIN_S,
) -> list[str]:
    """Create the topics that are missing, as the settings have them, and wait until all are there;
    the names created.

    Safe to call from several processes at once. Raises `KafkaUnavailableError`, and `TopicError`
    where the broker refuses a topic or does not show it within `within_s` seconds.
    """
    partitions, copies = settings.partitions, settings.replication_factor
    wanted = {settings.topic_prefix + spec.name: spec for spec in specs}
    async with administered(settings) as admin:
        present = await _partition_counts(admin)
        made = [
            name
            for name, spec in wanted.items()
            if name not in present
            and await _create(
                admin,
                NewTopic(
                    name,
                    partitions,
                    copies,
                    topic_configs=spec.config | durable(copies),
                ),
            )
        ]
        await _shown(
            admin,
            lambda counts: all(counts.get(name, 0) > 0 for name in wanted),
            f"has not shown {', '.join(sorted(wanted))}",
            within_s,
        )
    if made:
        log.info("topics_created", topics=made, partitions=partitions)
    return made


def durable(replication_factor: int) -> dict[str, str]:
    """What is acknowledged outlives the loss of a broker: more than one copy has it, where one may
    be missing."""
    return {"min.insync.replicas": "2"} if replication_factor > 2 else {}


async def _create(admin: AIOKafkaAdminClient, topic: NewTopic) -> bool:
    """Whether it was made now, and not by somebody else before."""
    try:
        response = await admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return False
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            return False
        if code:
            said = message[0] if message and message[0] else error.description
            raise TopicError(f"the broker refused to create {name}: {said}")
    return True


async def delete_topics(
    settings: Settings, names: Sequence[str], *, within_s: float = WITHIN_S
) -> None:
    """Delete topics and wait until none is there; those that do not exist are passed over.

    Raises `KafkaUnavailableError`, and `TopicError` where the broker still shows one after
    `within_s` seconds.
    """
    async with administered(settings) as admin:
        present = await _partition_counts(admin)
        doomed = [name for name in names if name in present]
        if doomed:
            await admin.delete_topics(doomed)
            await _shown(
                admin,
                lambda counts: counts.keys().isdisjoint(doomed),
                f"still shows some of {', '.join(sorted(doomed))}",
                within_s,
            )


async def _shown(
    admin: AIOKafkaAdminClient,
    condition: Callable[[dict[str, int]], bool],
    otherwise: str,
    within_s: float,
) -> None:
    """Wait until the broker shows what was done: it tells a change some time after it took it."""
    try:
        async with asyncio.timeout(within_s):
            while not condition(  # noqa: ASYNC110 - the broker has nothing to await
                await _partition_counts(admin)
            ):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise TopicError(f"the broker {otherwise} after {within_s:g} s") from None
