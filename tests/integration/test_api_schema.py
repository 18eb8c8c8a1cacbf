"""The running API does what its OpenAPI document says, and the document says what it does: requests
made from the document by schemathesis, those that it allows and those that it does not."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import eventually
from test_api_server import answers, server

from feature_store.cache.query_cache import QueryCache
from feature_store.store import FeatureStore
from feature_store.writes import HistoryPut, VideoPut
from onebar.records import CacheEntry, Candidate, QueryResult, VideoText
from onebar.settings import Settings
from onebar.stack.servers import free_port

pytestmark = pytest.mark.integration

KEY = "a key of this test"
SEED = 20_261_129
CONFIG = """
[checks.negative_data_rejection]
# 413: more events than one request may have.
expected-statuses = [400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 422, 428, 429, "5xx"]

[[operations]]
# No schema says when an event's `ts` lies in the future, which rules could never match, that a
# mended value is for one letter, or that a whole number is written without a fraction: 8, not 8.0.
include-operation-id = ["post_events", "put_rule", "post_dead_letters_replay", "post_queries"]
checks.positive_data_acceptance.enabled = false

[[operations]]
# A rule that was taken back is told with its history.
include-operation-id = ["get_rule"]
checks.use_after_free.enabled = false
"""


@pytest.mark.timeout(180)
async def test_the_document_is_true(
    settings: Settings, store: FeatureStore, cache: QueryCache, tmp_path: Path
) -> None:
    now = time.time()
    await store.apply([(VideoPut("v42", now, "e", VideoText(title="hiking boots")), None)])
    await store.apply([(HistoryPut("u7", "tent", now), None)])
    await cache.put(
        [CacheEntry(QueryResult("v42", (Candidate("boots", -0.5),), False, "m", "d", now))]
    )
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    made = settings.model_copy(
        update={"api_port": free_port(), "api_keys": (f"read+write+admin:{digest}",)}
    )
    url = f"http://127.0.0.1:{made.api_port}"
    log = tmp_path / "api.log"
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    with server(made, log):
        await eventually(lambda: answers(url, "/readyz"), what="the API")
        ran = await asyncio.to_thread(
            subprocess.run,
            [
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", str(config), "run"),
                *(f"{url}/openapi.json", "--seed", str(SEED)),
                *("--max-examples", "8", "--max-failures", "20", "--request-timeout", "10"),
                *("--header", f"Authorization: Bearer {KEY}"),
                *("--exclude-path", "/v1/watch", "--generation-database", "none"),
                "--no-color",
            ],
            capture_output=True,
            text=True,
            timeout=170,
            cwd=tmp_path,
        )
    assert ran.returncode == 0, ran.stdout[-30_000:] + ran.stderr[-2000:]
    said = log.read_text()
    assert "Traceback" not in said
    assert "request_failed" not in said
