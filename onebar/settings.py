"""Settings, read once at the entry point from `ONEBAR_*` variables and passed down as values."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from onebar.addresses import check_redis_url
from onebar.errors import UsageError
from onebar.policy import MAX_SHOWABLE_USERS, RepertoirePolicy, StatePolicy

USER_ID_KEY_LENGTH = 16
"""Characters that a key for pseudonyms has at least."""
_MAX_FILE = 64 * 1024
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")
FIRST_STATE_VERSION = "g1"

Secret = Annotated[str, Field(repr=False)]
"""What stands in no error, log line or output."""


class SettingsFileError(UsageError, ValueError):
    """A file that a variable names can't be read, or the variable is one too many."""


class Settings(BaseSettings):
    """Everything an operator can set. `ONEBAR_KAFKA_BOOTSTRAP=host:9092` sets `kafka_bootstrap`.

    Each can be read from a file instead, which its variable with `_FILE` behind it names. Raises
    `SettingsFileError` where that can't be.
    """

    model_config = SettingsConfigDict(
        env_prefix="ONEBAR_",
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,  # servers are told whole milliseconds
    )

    # Servers
    kafka_bootstrap: str = "127.0.0.1:9092"
    """Kafka brokers to start from: `host:port`, several separated by commas."""
    redis_url: Secret = "redis://127.0.0.1:6379/0"
    """`redis://`, `rediss://` (TLS) or `unix://`; `redis+cluster://` or `rediss+cluster://` for a
    Redis Cluster; `redis+sentinel://host:26379,host2:26379/mymaster/0` or `rediss+sentinel://` for
    a primary that Sentinels name. The user and password before an `@` are those of Redis."""
    redis_timeout_s: float = Field(default=2.0, gt=0)
    """Longest wait for one answer from Redis."""
    namespace: str = "onebar"
    """First part of every Redis key."""
    state_version: str = Field(
        default=FIRST_STATE_VERSION,
        validation_alias=AliasChoices("ONEBAR_STATE_VERSION", "ONEBAR_GENERATION"),
    )
    """The version of the state to read and write, whatever is live: a process for which it is set
    does not follow `onebar rebuild`. The second part of every Redis key. Its old name,
    `ONEBAR_GENERATION`, is still read."""
    topic_prefix: str = ""
    """Put before every topic name, so that several feeds can share one Kafka."""

    # Security of connections
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Kafka's own names: `SSL` is TLS, `SASL_` with a login."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = (
        "SCRAM-SHA-512"
    )
    """How to log in, where the protocol has a login."""
    kafka_sasl_username: str = ""
    """Who logs in to Kafka."""
    kafka_sasl_password: Secret = ""
    """Their password."""
    kafka_token_provider: str = ""
    """For `OAUTHBEARER`: `package.module:function`, called without arguments for a token each time
    one is needed; it returns it, or a coroutine of it."""
    kafka_tls_ca: Path | None = None
    """PEM file of the authorities that sign the brokers' certificates; those of the system where
    none is named."""
    kafka_tls_certificate: Path | None = None
    """PEM file of the certificate that a client shows the brokers, with its chain."""
    kafka_tls_key: Path | None = None
    """PEM file of its key, where it is not in the same file."""
    kafka_tls_key_password: Secret = ""
    """What that key is encrypted with."""
    kafka_tls_check_hostname: bool = True
    """Whether a broker's certificate must name its host."""
    redis_username: str = ""
    """The ACL user of Redis, where the URL names none."""
    redis_password: Secret = ""
    """Its password, where the URL has none."""
    redis_sentinel_username: str = ""
    """The ACL user of the Sentinels themselves, if they want one."""
    redis_sentinel_password: Secret = ""
    """Its password."""
    redis_tls_ca: Path | None = None
    """PEM file of the authorities that sign the servers' certificates; those of the system where
    none is named."""
    redis_tls_certificate: Path | None = None
    """PEM file of the certificate that a client shows Redis."""
    redis_tls_key: Path | None = None
    """PEM file of its key, where it is not in the same file."""
    redis_tls_check_hostname: bool = True
    """Whether a server's certificate must name its host."""
    user_id_key: Secret = ""
    """With a key, of 16 characters at least, a keyed hash of a user's id stands for it in Kafka, in
    Redis and in the archive (docs/operations.md). Another key is another person for everyone."""

    # Kafka
    partitions: int = Field(default=4, ge=1)
    """Partitions of a topic created by us."""
    replication_factor: int = Field(default=1, ge=1)
    """Copies of a topic created by us; 3 on a cluster of three brokers or more."""
    idempotent_producer: bool = True
    """Off only for brokers without InitProducerId, such as the embedded one."""
    consumer_group: str = "onebar"
    """Prefix of the consumer groups: the workers of one service share theirs."""
    session_timeout_s: float = Field(default=30.0, gt=0)
    """Without a heartbeat for this long a worker counts as dead and its partitions move."""
    heartbeat_interval_s: float = Field(default=3.0, gt=0)
    """At most a third of `session_timeout_s`."""
    fetch_max_wait_ms: int = Field(default=50, ge=1)
    """How long a broker may keep a worker waiting for new records. Apache Kafka answers as soon as
    there is one; the embedded broker looks only now and then, so the local stack has less."""

    # State
    half_life_s: float = Field(default=StatePolicy().half_life_s, gt=0)
    """After this long an anchor weighs half."""
    bucket_s: float = Field(default=StatePolicy().bucket_s, gt=0)
    """Width of the time buckets in which anchors and counters are kept."""
    max_entries: int = Field(default=StatePolicy().max_entries, ge=1)
    """Newest (time bucket, query) pairs kept of a video."""
    history_size: int = Field(default=StatePolicy().history_size, ge=1)
    """Newest queries kept of a user."""
    dedupe_window_s: float = Field(default=StatePolicy().dedupe_window_s, gt=0)
    """How long a repeated `event_id` is known."""
    video_ttl_s: float = Field(default=StatePolicy().video_ttl_s, gt=0)
    """A video untouched for this long is forgotten."""
    user_ttl_s: float = Field(default=StatePolicy().user_ttl_s, gt=0)
    """A user untouched for this long is forgotten."""
    future_allowance_s: float = Field(default=60.0, ge=0)
    """How far an event's `ts` may lie beyond its Kafka timestamp before it is a dead letter; a
    deletion reaches as far beyond its own."""
    showable_users: int = Field(default=StatePolicy().showable_users, ge=1, le=MAX_SHOWABLE_USERS)
    """Distinct users who must have asked or tapped a query after a video before it is shown to
    others; 1 shows whatever anybody asked."""
    showable_lookback_s: float = Field(default=StatePolicy().showable_lookback_s, gt=0)
    """How far back they count, in whole time buckets."""

    shown_size: int = Field(default=StatePolicy().shown_size, ge=0, le=10_000)
    """Newest queries shown to a user that are kept, once for each time; `tired_user_shows` counts
    them. 0 keeps none. Where it changes, build the state anew."""
    tapped_size: int = Field(default=StatePolicy().tapped_size, ge=0, le=10_000)
    """Newest queries kept that a user tapped, or ordered by; `leave_out` reads them. 0 keeps none.
    Where it changes, build the state anew."""
    tired_shows: int = Field(default=StatePolicy().tired_shows, ge=0)
    """Times that a query is shown under a video, and tapped by nobody, from which it stands behind
    all others there; 0: it never does."""
    tired_user_shows: int = Field(default=StatePolicy().tired_user_shows, ge=0)
    """Times that a query is shown to a user since they last tapped it, under whatever video, from
    which it stands behind all others for them; 0: it never does. Needs `shown_size`."""
    leave_out: Literal["nothing", "ordered", "tapped"] = "nothing"
    """What a user is not shown again: queries that they ordered by, or all that they tapped. Needs
    `tapped_size`. A request can leave out more (`exclude`)."""

    market: str = ""
    """Which market this is, for rules that hold in one alone."""

    # Repertoire
    constrain: Literal["open", "prefer", "only"] = "open"
    """How strictly queries are of the repertoire (queries that did well where they were shown, and
    a video's own anchors, and what a rule allows): `open` not at all, `prefer` those of it first,
    `only` no others, from whatever source. A request may ask for more, never for less."""
    repertoire_exposures: int = Field(default=RepertoirePolicy().exposures, ge=1)
    """Exposures, over all videos, from which a query may be of the repertoire."""
    repertoire_click_rate: float = Field(default=RepertoirePolicy().click_rate, ge=0, le=1)
    """Least clicks to an exposure of a query of the repertoire."""
    repertoire_size: int = Field(default=RepertoirePolicy().size, ge=1)
    """Most queries of the repertoire, those clicked most."""
    repertoire_refresh_s: float = Field(default=300.0, gt=0)
    """How often a generator worker works it out anew, unless generation is `open`."""

    # Stream worker
    stream_batch: int = Field(default=500, ge=1)
    """Most events of a partition folded in one round trip."""

    # Generator
    checkpoint: Path | None = None
    """A checkpoint directory; the shipped demo checkpoint where none is named."""
    registry: Path | None = None
    """A registry (`onebar models`) whose current checkpoint is served and followed, without a
    restart; instead of ONEBAR_CHECKPOINT."""
    registry_poll_s: float = Field(default=2.0, gt=0)
    """How often the registry is asked which checkpoint is current."""
    engine: Literal["auto", "ctranslate2", "torch"] = "auto"
    """`auto` takes CTranslate2 where the checkpoint carries it, else torch."""
    beam_size: int = Field(default=8, ge=1)
    """Beams of the search; at least `k`."""
    k: int = Field(default=8, ge=1, le=64)
    """Queries generated for a video: the paper's K."""
    engine_workers: int = Field(default=1, ge=1)
    """Batches the engine computes side by side."""
    engine_threads: int = Field(default=1, ge=1)
    """Threads of one engine worker."""
    batch_size: int = Field(default=16, ge=1)
    """Most prompts in one engine call."""
    batch_wait_s: float = Field(default=0.004, ge=0)
    """Longest wait for a batch of prompts to fill."""
    queue_size: int = Field(default=256, ge=1)
    """Prompts waiting for the engine; beyond it a request falls back at once."""
    late_after_s: float = Field(default=30.0, gt=0)
    """An impression that waited longer than this in Kafka is skipped and counted."""

    # Neighbour anchors
    embedder: str | None = None
    """An embedder (`onebar embed train`), or any sentence-transformers model, for `onebar
    neighbors`; the one that the checkpoint brings where none is named."""
    index: Path | None = None
    """Where `onebar neighbors` keeps a snapshot of its index of videos, to start from the next
    time, and beside it, with `-queries` to its name, that of queries; without one it reads the
    whole topics of videos and of behaviours at each start."""
    index_save_s: float = Field(default=300.0, gt=0)
    """Between two snapshots."""
    neighbor_threshold: float | None = Field(default=None, ge=-1, le=1)
    """Least similarity of a neighbour anchor to the video; what the embedder was calibrated to
    where not set."""
    neighbor_nearest: int = Field(default=32, ge=1, le=256)
    """Neighbours whose anchors a video is given."""
    neighbor_queries: int = Field(default=32, ge=0, le=256)
    """Queries of the log that a video is given beside them, the nearest to it; with 0 the topic of
    behaviours is not read for it."""
    neighbor_queries_kept: int = Field(default=200_000, ge=1)
    """Queries of the log kept at hand for that, those asked last; about 1 KB each."""
    neighbor_limit: int = Field(default=16, ge=1)
    """Neighbour anchors kept of a video, the log's among them."""
    neighbor_refresh_s: float = Field(default=600.0, gt=0)
    """Age from which a video's neighbour anchors are worked out anew, the oldest first."""

    # Query cache
    cache_soft_ttl_s: float = Field(default=300.0, gt=0)
    """Age after which cached queries are still served, but generated anew at the next chance."""
    cache_hard_ttl_s: float = Field(default=3600.0, gt=0)
    """Age at which cached queries are gone."""
    near_cache_mb: float = Field(default=32.0, ge=0, le=1_000_000)
    """Cached queries that each API process keeps in its own memory, in MiB, until Redis says that
    they changed (`CLIENT TRACKING`); 0 asks Redis each time. A Redis Cluster is always asked."""

    # Exploration
    exploration: float = Field(default=0.0, ge=0, lt=1)
    """Share of answers that show, in one place, a query from behind it instead, so that a log tells
    what would be tapped there. The answer says how likely each was to stand where it does."""
    exploration_slot: int = Field(default=3, ge=0, le=63)
    """The place, from 0."""
    exploration_reserve: int = Field(default=4, ge=0, le=64)
    """Queries kept behind the `k` that are shown, to be explored as well."""

    # HTTP
    api_host: str = "127.0.0.1"
    """Address to listen on; beyond loopback `api_keys` are needed."""
    api_port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    api_workers: int = Field(default=1, ge=1)
    """Processes that answer HTTP."""
    api_generate: bool = True
    """Whether the API loads a model of its own to answer misses."""
    budget_ms: float = Field(default=80.0, ge=0)
    """How long an answer may take where the request does not say."""
    max_budget_ms: float = Field(default=2000.0, gt=0)
    """Largest budget a request may ask for."""
    api_tls_certificate: Path | None = None
    """PEM file of the API's certificate, with its chain; the API speaks TLS then."""
    api_tls_key: Path | None = None
    """PEM file of its key (PKCS #8)."""
    api_tls_key_password: Secret = ""
    """What that key is encrypted with."""
    api_tls_client_ca: Path | None = None
    """PEM file of the authorities whose clients alone are served; anyone's where none is named."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks of proxies, separated by commas, whose `X-Forwarded-For` is believed.
    Any other's is not, and without keys a request that has one is refused."""
    api_cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins (`https://feed.example`), separated by commas, whose pages a browser lets call the
    API; `*` is any. None unless set. Cookies are never let in: a page sends its key in a header."""
    api_gzip_lookups: bool = False
    """Whether long answers to `POST /v1/queries` are compressed, too, for those who take gzip, as
    all other long answers are: for callers far away, as it doubles the work of the answer at least,
    and most HTTP clients ask for it unasked."""
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """`scope[+scope]:sha256-of-key`, separated by commas; scopes are read, write, admin."""
    rate_limit_per_s: float = Field(default=0.0, ge=0)
    """Requests per second a key (or address) may make of all API processes together, by Redis; each
    pair of a batch counts. 0 is no limit."""
    api_connections: int = Field(default=4096, ge=1)
    """Connections an API process keeps; beyond them the longest idle are closed. Fewer where the
    limit on open files (`ulimit -Hn`) is lower."""
    api_idle_s: float = Field(default=75.0, ge=1)
    """A connection without a request is closed after so long; more than a balancer's 60 s, so that
    none is closed under it. The head of a request has to be there within as long."""
    api_body_timeout_s: float = Field(default=10.0, gt=0)
    """The body of a request has to be there within so long."""
    api_bodies_mb: float = Field(default=32.0, ge=8)
    """Bodies of requests being read and answered, in MiB, that an API process holds at most; beyond
    it requests are refused (503) before their bodies are read."""
    api_requests: int = Field(default=512, ge=1)
    """Requests being answered in an API process, single lookups aside; beyond them others are
    refused (503)."""
    last_known_s: float = Field(default=300.0, ge=0)
    """How long after the loss of Redis an API process answers with what it last knew to be right,
    marked as `last_known`; 0 never does."""
    page_users: Annotated[tuple[str, ...], NoDecode] = ()
    """User ids that the page offers to watch as, separated by commas."""
    metrics_targets: Annotated[tuple[str, ...], NoDecode] = ()
    """Workers that the operations page asks for /metrics and /healthz: `name=host:port`, separated
    by commas."""

    # Teaching
    teacher_key: Secret = ""
    """What `onebar teach` shows an endpoint that wants a key. It is written nowhere."""

    # Observability
    metrics_host: str = "127.0.0.1"
    """Address of a worker's /metrics and /healthz; 0.0.0.0 in a container."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where a worker serves /metrics and /healthz; 0 leaves it off."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""
    log_json: bool | None = None
    """One JSON object a line, or (false) lines for people; left out, lines for people on a terminal
    and JSON everywhere else."""

    @field_validator("kafka_bootstrap")
    @classmethod
    def _has_ports(cls, value: str) -> str:
        if "/" in value or "@" in value:  # then anything of it may be a password
            raise ValueError(
                "expected host:port, several separated by commas, without a scheme, a user or a "
                "password: those are ONEBAR_KAFKA_SECURITY_PROTOCOL, ONEBAR_KAFKA_SASL_USERNAME "
                "and ONEBAR_KAFKA_SASL_PASSWORD_FILE"
            )
        for server in value.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"expected host:port, several separated by commas, got {server!r}")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        # Nothing of it is repeated: where it is malformed, anything may be the password.
        check_redis_url(value)
        return value

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @field_validator("api_cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "expected origins as a browser sends them (https://feed.example, without a "
                    f"path, in lower case), or *, separated by commas, got {origin!r:.200}"
                )
        return value

    @field_validator("user_id_key")
    @classmethod
    def _is_long(cls, value: str) -> str:
        if value and len(value) < USER_ID_KEY_LENGTH:
            raise ValueError(
                f"expected {USER_ID_KEY_LENGTH} characters or more, got {len(value)}; make one "
                "with: openssl rand -hex 32"
            )
        return value

    @field_validator(
        *("checkpoint", "registry", "embedder", "index"),
        *("kafka_tls_ca", "kafka_tls_certificate", "kafka_tls_key"),
        *("redis_tls_ca", "redis_tls_certificate", "redis_tls_key"),
        *("api_tls_certificate", "api_tls_key", "api_tls_client_ca", "log_json"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("registry")
    @classmethod
    def _one_source(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("checkpoint") is not None:
            raise ValueError(
                "ONEBAR_CHECKPOINT is set as well; unset it, or this one: the registry says which "
                "checkpoint is served"
            )
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL_"):
            if self.kafka_sasl_mechanism == "OAUTHBEARER":
                module, colon, name = self.kafka_token_provider.partition(":")
                if not (module and colon and name):
                    raise ValueError(
                        "OAUTHBEARER needs ONEBAR_KAFKA_TOKEN_PROVIDER=package.module:function"
                    )
            elif not self.kafka_sasl_username or not self.kafka_sasl_password:
                raise ValueError(
                    f"ONEBAR_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs "
                    "ONEBAR_KAFKA_SASL_USERNAME and ONEBAR_KAFKA_SASL_PASSWORD"
                )
        elif self.kafka_sasl_username or self.kafka_sasl_password:
            raise ValueError(
                "a login to Kafka is set, and ONEBAR_KAFKA_SECURITY_PROTOCOL is "
                f"{self.kafka_security_protocol}, which has none: set it to SASL_SSL"
            )
        for named, key in (
            ("KAFKA_TLS_CERTIFICATE", "KAFKA_TLS_KEY"),
            ("REDIS_TLS_CERTIFICATE", "REDIS_TLS_KEY"),
            ("API_TLS_CERTIFICATE", "API_TLS_KEY"),
        ):
            if getattr(self, key.lower()) and not getattr(self, named.lower()):
                raise ValueError(f"ONEBAR_{key} is set, and ONEBAR_{named} is not")
        if self.api_tls_certificate and not self.api_tls_key:
            raise ValueError("ONEBAR_API_TLS_CERTIFICATE is set, and ONEBAR_API_TLS_KEY is not")
        if self.api_tls_client_ca and not self.api_tls_certificate:
            raise ValueError(
                "ONEBAR_API_TLS_CLIENT_CA is set, and ONEBAR_API_TLS_CERTIFICATE is not"
            )
        return self

    @field_validator("tired_user_shows")
    @classmethod
    def _has_what_was_shown(cls, value: int, info: ValidationInfo) -> int:
        if value and not info.data.get("shown_size"):
            raise ValueError("it counts what ONEBAR_SHOWN_SIZE keeps: set that too, to 200 say")
        return value

    @field_validator("leave_out")
    @classmethod
    def _has_what_was_tapped(cls, value: str, info: ValidationInfo) -> str:
        if value != "nothing" and not info.data.get("tapped_size"):
            raise ValueError("it reads what ONEBAR_TAPPED_SIZE keeps: set that too, to 100 say")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, then the environment, then the files that it names."""
        return init_settings, env_settings, _Files(settings_cls)

    @field_validator(
        *("api_keys", "api_cors_origins", "page_users", "metrics_targets", "trusted_proxies"),
        mode="before",
    )
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(entry.strip() for entry in value.split(",") if entry.strip())
        return value

    @field_validator("metrics_targets")
    @classmethod
    def _are_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for target in value:
            name, _, address = target.partition("=")
            host, _, port = address.rpartition(":")
            if not name or not host or not (port.isascii() and port.isdigit()):
                raise ValueError(f"expected name=host:port, separated by commas, got {target!r}")
        return value

    @property
    def repertoire(self) -> RepertoirePolicy:
        """What is of the repertoire, by these settings."""
        return RepertoirePolicy(
            exposures=self.repertoire_exposures,
            click_rate=self.repertoire_click_rate,
            size=self.repertoire_size,
        )

    @property
    def kept(self) -> int:
        """Queries kept of an answer: the `k` that are shown, and with exploration some behind."""
        return self.k + (self.exploration_reserve if self.exploration else 0)

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
            deletion_reach_s=self.future_allowance_s,
            showable_users=self.showable_users,
            showable_lookback_s=self.showable_lookback_s,
            shown_size=self.shown_size,
            tapped_size=self.tapped_size,
            tired_shows=self.tired_shows,
            tired_user_shows=self.tired_user_shows,
        )


class _Files(PydanticBaseSettingsSource):
    """Values from the files that `ONEBAR_*_FILE` name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        for variable in variables_of(field_name):
            path = os.environ.get(f"{variable}{FILE}")
            if path:
                if os.environ.get(variable):
                    raise SettingsFileError(
                        f"{variable} and {variable}{FILE} are both set; unset one of them"
                    )
                return _content(f"{variable}{FILE}", path), field_name, False
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                found[key] = value
        return found


PREFIX = "ONEBAR_"
FILE = "_FILE"
NO_SETTINGS = {"ONEBAR_API_KEY", "ONEBAR_DATA", "ONEBAR_URL"}
"""Variables that only a command, an example or a test reads."""


def _content(variable: str, path: str) -> str:
    """Without the line end that editors put behind it."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_FILE + 1)
        text = raw.decode()
    except OSError as error:
        raise SettingsFileError(f"{variable}={path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsFileError(f"{variable}={path}: not UTF-8") from None
    if len(raw) > _MAX_FILE:
        raise SettingsFileError(f"{variable}={path}: longer than {_MAX_FILE:,} bytes")
    return text.removesuffix("\n").removesuffix("\r")


def variables_of(name: str) -> tuple[str, ...]:
    """The variables that a setting is read from, its own first; old names behind it."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (f"ONEBAR_{name.upper()}",)


def is_secret(name: str) -> bool:
    """Whether nothing may show the value of this setting."""
    return not Settings.model_fields[name].repr


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The `ONEBAR_*` variables that are no setting, each with the nearest name that is one; empty
    where none is near."""
    known = [variable for name in Settings.model_fields for variable in variables_of(name)]
    taken = {*known, *(variable + FILE for variable in known)}
    bare = {variable.removeprefix(PREFIX): variable for variable in known}
    found = {}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in taken | NO_SETTINGS:
            end = FILE if name.endswith(FILE) else ""
            word = name.removeprefix(PREFIX).removesuffix(FILE)
            near = difflib.get_close_matches(word, bare, n=1, cutoff=0.75)
            found[name] = bare[near[0]] + end if near else ""
    return found
