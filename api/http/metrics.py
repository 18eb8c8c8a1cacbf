"""What the API counts, and how Prometheus reads it."""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from api import METRICS_DIRECTORY

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

REQUESTS = Counter("onebar_http_requests", "HTTP requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "onebar_http_request_seconds", "Time to answer an HTTP request.", ["route"], buckets=_SECONDS
)
ANSWERS = Counter(
    "onebar_answers",
    "Answered (video, user) pairs by where the queries came from.",
    ["source", "fallback"],
)
LOOKUPS = Counter(
    "onebar_lookups", "(video, user) pairs that Redis was asked for; more were answered at hand."
)
NEAR_VALUES = Gauge(
    "onebar_near_cache_values",
    "Bodies and the like that the API keeps until Redis says that they changed.",
    multiprocess_mode="livesum",
)
FALLBACKS = Counter("onebar_fallbacks", "Fallbacks by why they were needed.", ["reason"])
SHEDS = Counter("onebar_sheds", "Generations not begun because too many were waiting.")
STALE = Counter(
    "onebar_stale_answers",
    "Answers from the cache that were due for renewal: old, or of a model that was replaced.",
)
REFRESHES = Counter("onebar_refreshes", "Renewals of stale answers by outcome.", ["outcome"])
EVENTS = Counter("onebar_api_events", "Events taken in over HTTP and acknowledged.", ["type"])
SHED = Counter(
    "onebar_http_shed",
    "Requests refused, and connections closed, because there was no room for them, by reason.",
    ["reason"],
)
CONNECTIONS = Gauge(
    "onebar_http_connections", "Connections of clients.", multiprocess_mode="livesum"
)
CONNECTIONS_LIMIT = Gauge(
    "onebar_http_connections_limit",
    "Connections of clients that are kept at most; beyond them the longest idle are closed.",
    multiprocess_mode="livesum",
)
BODY_BYTES = Gauge(
    "onebar_http_body_bytes",
    "Bytes of the bodies of requests being read and answered.",
    multiprocess_mode="livesum",
)
IN_FLIGHT = Gauge(
    "onebar_http_requests_in_flight",
    "Requests being answered, single lookups aside.",
    multiprocess_mode="livesum",
)
LOOP_LAG = Gauge(
    "onebar_loop_lag_seconds",
    "How late the event loop came to what was due, the most of the last seconds.",
    multiprocess_mode="livemax",
)
BREAKERS = Gauge(
    "onebar_breaker_open",
    "1 while a server counts as away and is only probed.",
    ["server"],
    multiprocess_mode="livemax",
)
RATE_LIMITED = Counter("onebar_rate_limited", "Requests refused by the rate limit.")


def render() -> tuple[bytes, str]:
    """The numbers of this process, or of all workers of this server, and their media type."""
    registry = REGISTRY
    if os.environ.get(METRICS_DIRECTORY):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
