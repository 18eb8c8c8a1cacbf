"""The store and the cache that the settings describe: the one place where they are put together."""

from __future__ import annotations

from feature_store.cache.query_cache import QueryCache
from feature_store.keys import Keys
from feature_store.redis.client import Client, connect
from feature_store.redis.connection import Watcher
from feature_store.redis.login import Login
from feature_store.repertoire import RepertoireStore
from feature_store.store import FeatureStore
from feature_store.versions import Versions, at_version, is_pinned
from onebar.settings import Settings


def connect_configured(settings: Settings, *, watcher: Watcher | None = None) -> Client:
    """A client of the Redis of these settings, told of changes by a `watcher`. Raises
    `RedisSecurityError`."""
    return connect(
        settings.redis_url,
        timeout_s=settings.redis_timeout_s,
        login=Login(
            username=settings.redis_username,
            password=settings.redis_password,
            sentinel_username=settings.redis_sentinel_username,
            sentinel_password=settings.redis_sentinel_password,
            authorities=settings.redis_tls_ca,
            certificate=settings.redis_tls_certificate,
            key=settings.redis_tls_key,
            check_hostname=settings.redis_tls_check_hostname,
        ),
        watcher=watcher,
    )


def open_store(settings: Settings) -> FeatureStore:
    """The state in the Redis of these settings. Connects with its first call; close it."""
    return FeatureStore(
        connect_configured(settings),
        Keys(settings.namespace, settings.state_version),
        settings.policy,
    )


def versions_beside(store: FeatureStore, settings: Settings) -> Versions:
    """Which version is live, by the same connection: closed with the store."""
    return Versions(store.client, settings.namespace)


async def open_live_store(settings: Settings) -> FeatureStore:
    """The state of the version that is live now, or that the settings pin; close it. Raises what
    its methods do."""
    store = open_store(settings)
    if not is_pinned(settings):
        try:
            live, _ = await versions_beside(store, settings).look()
        except BaseException:
            await store.close()
            raise
        store.bind(Keys(settings.namespace, live))
    return store


async def live_settings(settings: Settings) -> Settings:
    """These settings for the version of the state that is live now, or that they pin. Raises what
    the store does."""
    store = await open_live_store(settings)
    await store.close()
    return at_version(settings, store.keys.state_version)


def repertoire_beside(store: FeatureStore) -> RepertoireStore:
    """The repertoire beside a store, by the same connection: closed with the store."""
    return RepertoireStore(store.client, store.keys, store.policy)


def cache_beside(store: FeatureStore, settings: Settings) -> QueryCache:
    """The query cache beside a store, by the same connection: closed with the store."""
    return QueryCache(
        store.client, store.keys, settings.cache_soft_ttl_s, settings.cache_hard_ttl_s
    )
