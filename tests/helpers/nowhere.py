"""Settings of an API whose Kafka and Redis are away."""

from __future__ import annotations

from onebar.settings import Settings

NOWHERE = Settings(
    redis_url="redis://127.0.0.1:1/0", kafka_bootstrap="127.0.0.1:1", api_generate=False
)
