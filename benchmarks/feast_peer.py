"""Feast's feature server as a peer of the cached lookup: a precomputed list of queries a key.

    VENV/bin/python benchmarks/feast_peer.py URL PORT --keys KEYS --body BODY

Run by benchmarks/lookup.py with a Python that has `feast[redis]` (`pip install 'feast[redis]'`).
Fills the online store in Redis with the bytes of BODY under each key (a line of KEYS), then becomes
`feast serve` with one worker and no access log.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

VIEW, FEATURE, KEY = "cached_queries", "body", "pair"
PORTION = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("redis_url")
    parser.add_argument("port", type=int)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--body", type=Path, required=True)
    options = parser.parse_args()
    repository = Path(tempfile.mkdtemp(prefix="feast-"))
    parts = urlsplit(options.redis_url)
    (repository / "feature_store.yaml").write_text(
        "project: onebar\n"
        "provider: local\n"
        f"registry: {repository / 'registry.db'}\n"
        "online_store:\n"
        "  type: redis\n"
        f'  connection_string: "{parts.hostname}:{parts.port}"\n'
        "entity_key_serialization_version: 3\n"
    )
    fill(repository, options.keys.read_text().split(), options.body.read_text())
    os.chdir(repository)
    server = [
        *("serve", "--host", "127.0.0.1", "--port", str(options.port), "--workers", "1"),
        *("--no-access-log", "--max-requests", "1000000000"),
    ]
    command = [sys.executable, "-P", "-c", "from feast.cli.cli import cli; cli()", *server]
    os.execv(sys.executable, command)


def fill(repository: Path, keys: list[str], body: str) -> None:
    """One feature view, one string a key."""
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import String

    now = datetime.now(timezone.utc)  # noqa: UP017 - the peer's Python may be an older one
    source_path = repository / "source.parquet"
    rows = pd.DataFrame({KEY: keys, FEATURE: body, "event_timestamp": now, "created": now})
    rows.head(1).to_parquet(source_path)
    entity = Entity(name=KEY, join_keys=[KEY], value_type=ValueType.STRING)
    view = FeatureView(
        name=VIEW,
        entities=[entity],
        ttl=timedelta(days=1),
        schema=[Field(name=FEATURE, dtype=String)],
        source=FileSource(
            path=str(source_path),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )
    store = FeatureStore(repo_path=str(repository))
    store.apply([entity, view])
    for at in range(0, len(rows), PORTION):
        store.write_to_online_store(VIEW, df=rows.iloc[at : at + PORTION])


if __name__ == "__main__":
    main()
