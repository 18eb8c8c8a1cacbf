"""Settings, read once at the entry point from `ONEBAR_*` variables and passed down as values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feature_store.policy import StatePolicy


class Settings(BaseSettings):
    """Everything an operator can set. `ONEBAR_KAFKA_BOOTSTRAP=host:9092` sets `kafka_bootstrap`."""

    model_config = SettingsConfigDict(env_prefix="ONEBAR_", extra="ignore")

    # Servers
    kafka_bootstrap: str = "127.0.0.1:9092"
    redis_url: str = "redis://127.0.0.1:6379/0"
    """`redis://`, `rediss://` or `unix://`; `redis+cluster://` for a Redis Cluster."""
    redis_timeout_s: float = Field(2.0, gt=0)
    namespace: str = "onebar"
    generation: str = "g1"
    """The generation of state to read and write: fill `g2` while `g1` serves, then switch."""
    topic_prefix: str = ""
    """Put before every topic name, so that several feeds can share one Kafka."""

    # Kafka
    partitions: int = Field(4, ge=1)
    """Partitions of a topic created by us."""
    replication_factor: int = Field(1, ge=1)
    idempotent_producer: bool = True
    consumer_group: str = "onebar"
    session_timeout_s: float = Field(30.0, gt=0)
    heartbeat_interval_s: float = Field(3.0, gt=0)

    # State
    half_life_s: float = Field(StatePolicy().half_life_s, gt=0)
    bucket_s: float = Field(StatePolicy().bucket_s, gt=0)
    max_entries: int = Field(StatePolicy().max_entries, ge=1)
    history_size: int = Field(StatePolicy().history_size, ge=1)
    dedupe_window_s: float = Field(StatePolicy().dedupe_window_s, gt=0)
    video_ttl_s: float = Field(StatePolicy().video_ttl_s, gt=0)
    user_ttl_s: float = Field(StatePolicy().user_ttl_s, gt=0)
    future_allowance_s: float = Field(60.0, ge=0)
    """How far an event's `ts` may lie beyond its Kafka timestamp before it is a dead letter."""

    # Stream worker
    stream_batch: int = Field(500, ge=1)
    stream_linger_s: float = Field(0.02, gt=0)

    # Generator
    checkpoint: Path | None = None
    """A checkpoint directory; the shipped demo checkpoint where none is named."""
    engine: Literal["auto", "ctranslate2", "torch"] = "auto"
    beam_size: int = Field(8, ge=1)
    k: int = Field(8, ge=1, le=64)
    engine_workers: int = Field(1, ge=1)
    engine_threads: int = Field(1, ge=1)
    batch_size: int = Field(16, ge=1)
    batch_wait_s: float = Field(0.004, ge=0)
    queue_size: int = Field(256, ge=1)
    """Prompts waiting for the engine; beyond it a request falls back at once."""
    late_after_s: float = Field(30.0, gt=0)
    """An impression that waited longer than this in Kafka is skipped and counted."""

    # Query cache
    cache_soft_ttl_s: float = Field(300.0, gt=0)
    """Age after which cached queries are still served, but generated anew at the next chance."""
    cache_hard_ttl_s: float = Field(3600.0, gt=0)

    # HTTP
    api_host: str = "127.0.0.1"
    api_port: int = Field(8080, ge=0, le=65535)
    api_workers: int = Field(1, ge=1)
    api_generate: bool = True
    """Whether the API loads a model of its own to answer misses."""
    budget_ms: float = Field(80.0, ge=0)
    """How long an answer may take where the request does not say."""
    max_budget_ms: float = Field(2000.0, gt=0)
    api_keys: Annotated[tuple[str, ...], NoDecode] = ()
    """`scope[+scope]:sha256-of-key`, separated by commas; scopes are read, write, admin."""
    rate_limit_per_s: float = Field(0.0, ge=0)
    """Requests per second a key (or address) may make; 0 is no limit."""

    # Observability
    metrics_port: int = Field(0, ge=0, le=65535)
    """Where a worker serves /metrics and /healthz; 0 leaves it off."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = True

    @property
    def policy(self) -> StatePolicy:
        """The state policy these settings describe."""
        return StatePolicy(
            half_life_s=self.half_life_s,
            bucket_s=self.bucket_s,
            max_entries=self.max_entries,
            history_size=self.history_size,
            dedupe_window_s=self.dedupe_window_s,
            video_ttl_s=self.video_ttl_s,
            user_ttl_s=self.user_ttl_s,
        )
