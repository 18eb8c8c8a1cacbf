"""The store and the cache that the settings describe: the one place where they are put together."""

from __future__ import annotations

from feature_store.cache.query_cache import QueryCache
from feature_store.keys import Keys
from feature_store.redis.client import Client, connect
from feature_store.redis.connection import Watcher
from feature_store.redis.login import Login
from feature_store.repertoire import RepertoireStore
from feature_store.store import FeatureStore
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


def repertoire_beside(store: FeatureStore) -> RepertoireStore:
    """The repertoire beside a store, by the same connection: closed with the store."""
    return RepertoireStore(store.client, store.keys, store.policy)


def cache_beside(store: FeatureStore, settings: Settings) -> QueryCache:
    """The query cache beside a store, by the same connection: closed with the store."""
    return QueryCache(
        store.client, store.keys, settings.cache_soft_ttl_s, settings.cache_hard_ttl_s
    )
