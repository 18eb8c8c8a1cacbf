"""Servers, and for each test its own topics, consumer group and key namespace on them.

The embedded servers are started unless `ONEBAR_KAFKA_BOOTSTRAP` / `ONEBAR_REDIS_URL` name running
ones. Named ones that do not answer fail the tests; they never skip them.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import support
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct
from store_fixtures import HARD_S, NOW, SOFT_S, fresh_store
from stream_fixtures import make_topics

from feature_store.cache.query_cache import QueryCache
from feature_store.keys import Keys
from feature_store.redis.client import Client, Command, connect, pipelined
from feature_store.store import FeatureStore
from onebar.settings import Settings
from onebar.stack.processes import Children
from onebar.stack.servers import start_broker, start_valkey
from stream.kafka.topics import delete_topics, partition_counts

TIMEOUT_S = 5.0
ONCE = frozenset(
    (
        *("test_api_hostile", "test_api_schema", "test_compose", "test_doc_pages", "test_page"),
        *("test_inspect_request", "test_lookup_benchmark", "test_server_benchmarks"),
        *("test_traces", "test_typescript_client"),
    )
)
"""What is the same whichever servers there are, and takes long: on the embedded ones alone."""
ELSEWHERE = frozenset(("test_api_hostile", "test_lookup_benchmark", "test_server_benchmarks"))
"""Those of them that CI, which has both kinds side by side, runs on Apache Kafka and Redis, so that
neither suite has much more to do than the other."""


class Servers(Struct, frozen=True):
    """Where the servers are. `embedded`: the broker has no idempotent producer."""

    bootstrap: str
    redis_url: str
    embedded: bool


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs on the embedded servers alone, where others are named."""
    there = ELSEWHERE if os.environ.get("CI") else frozenset()
    not_here = ONCE - there if os.environ.get("ONEBAR_KAFKA_BOOTSTRAP") else there
    left = [item for item in items if item.path.stem in not_here]
    if left and len(left) < len(items):
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item.path.stem not in not_here]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Kafka and Redis, embedded or as the environment names them."""
    bootstrap = os.environ.get("ONEBAR_KAFKA_BOOTSTRAP", "")
    redis_url = os.environ.get("ONEBAR_REDIS_URL", "")
    with Children() as children:
        directory = tmp_path_factory.mktemp("servers")
        found = Servers(
            bootstrap=bootstrap or start_broker(children, directory),
            redis_url=redis_url or start_valkey(children, directory),
            embedded=not bootstrap,
        )
        asyncio.run(_check(found))
        yield found
        if not bootstrap or not redis_url:
            children.check()


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """The test servers' Redis."""
    return servers.redis_url


@pytest.fixture
async def small_store(redis_url: str) -> AsyncIterator[FeatureStore]:
    """A store that keeps little, so that limits are met soon; with keys of this test's own."""
    async with fresh_store(redis_url) as store:
        yield store


@pytest.fixture
def query_cache(small_store: FeatureStore) -> QueryCache:
    """A cache on it, whose clock stands still."""
    return QueryCache(small_store.client, small_store.keys, SOFT_S, HARD_S, clock=lambda: NOW)


async def _check(servers: Servers) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.bootstrap)
    try:
        async with asyncio.timeout(20):
            await admin.start()
    except (KafkaError, OSError, TimeoutError) as error:
        pytest.fail(f"Kafka at {servers.bootstrap} does not answer: {error!r}", pytrace=False)
    finally:
        await admin.close()
    client = connect(servers.redis_url, timeout_s=TIMEOUT_S)
    store = FeatureStore(client, Keys("probe"), Settings().policy)
    try:
        await store.probe()
    except Exception as error:
        pytest.fail(f"Redis at {servers.redis_url} does not answer: {error!r}", pytrace=False)
    finally:
        await store.close()


@pytest.fixture
async def settings(servers: Servers) -> AsyncIterator[Settings]:
    """Settings with topics, a consumer group and keys of this test's own, removed afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    made = Settings(
        kafka_bootstrap=servers.bootstrap,
        redis_url=servers.redis_url,
        redis_timeout_s=TIMEOUT_S,
        namespace=name,
        topic_prefix=f"{name}.",
        consumer_group=name,
        partitions=2,
        idempotent_producer=not servers.embedded,
        session_timeout_s=4.0,
        heartbeat_interval_s=1.0,
        # A test that is about time says so; no other is to fail because the machine stood still.
        budget_ms=2000.0,
        late_after_s=600.0,
        # Nor are tests about anything else to need three users.
        showable_users=1,
        log_json=False,
    )
    yield made
    await _remove_topics(made)
    await _remove_keys(made)


@pytest.fixture
async def made_topics(settings: Settings) -> None:
    """The topics of this test, with nothing in them."""
    await make_topics(settings)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    """A Redis client."""
    made = connect(settings.redis_url, timeout_s=settings.redis_timeout_s)
    yield made
    await made.aclose()


@pytest.fixture
async def store(client: Client, settings: Settings) -> FeatureStore:
    """The feature store of this test's namespace."""
    return FeatureStore(client, Keys(settings.namespace, settings.state_version), settings.policy)


@pytest.fixture
async def cache(client: Client, settings: Settings) -> QueryCache:
    """The query cache of this test's namespace."""
    keys = Keys(settings.namespace, settings.state_version)
    return QueryCache(client, keys, settings.cache_soft_ttl_s, settings.cache_hard_ttl_s)


@pytest.fixture
def workers(settings: Settings, tmp_path: Path) -> Iterator[support.Workers]:
    """Starts real worker processes with this test's settings."""
    with support.workers(settings, tmp_path) as made:
        yield made


async def _remove_topics(settings: Settings) -> None:
    there = await partition_counts(settings)
    names = [name for name in there if name.startswith(settings.topic_prefix)]
    await delete_topics(settings, names)


async def _remove_keys(settings: Settings) -> None:
    made = connect(settings.redis_url, timeout_s=settings.redis_timeout_s)
    try:
        pattern = f"{settings.namespace}:*"
        names = [name async for name in made.scan_iter(match=pattern, count=1000)]
        await pipelined(made, [Command("DEL", (name.decode(),)) for name in names])
    finally:
        await made.aclose()
