"""The real server: granian, in processes of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support import eventually

from feature_store.cache.query_cache import QueryCache
from feature_store.store import FeatureStore
from feature_store.writes import HistoryPut
from onebar.records import CacheEntry, Candidate, QueryResult
from onebar.settings import Settings
from onebar.stack.servers import free_port

pytestmark = pytest.mark.integration

PROGRAM = "from api.server import serve; from onebar.settings import Settings; serve(Settings())"


@contextmanager
def server(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`serve` with these settings in a process of its own, ended with its workers."""
    environment = dict(os.environ)
    for name, value in settings.model_dump(exclude_none=True).items():
        environment[f"ONEBAR_{name.upper()}"] = (
            ",".join(value) if isinstance(value, tuple) else str(value)
        )
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=environment, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


async def answers(url: str, path: str = "/healthz") -> bool:
    async with httpx.AsyncClient() as http:
        try:
            return (await http.get(f"{url}{path}")).status_code == 200
        except httpx.TransportError:
            return False


async def test_two_workers_serve_count_and_end(
    settings: Settings, store: FeatureStore, cache: QueryCache, tmp_path: Path
) -> None:
    now = time.time()
    result = QueryResult("a/ü", (Candidate("boots", -0.5),), False, "m", "d", now)
    await cache.put([CacheEntry(result)])
    await store.apply([(HistoryPut("a/b %", "boots", now), None)])
    made = settings.model_copy(
        update={"api_port": free_port(), "api_workers": 2, "api_generate": False}
    )
    url = f"http://127.0.0.1:{made.api_port}"
    log = tmp_path / "api.log"
    with server(made, log) as process:
        await eventually(lambda: answers(url), what="the API")
        async with httpx.AsyncClient(base_url=url) as http:
            for _ in range(20):
                response = await http.get("/v1/queries", params={"video_id": "a/ü"})
                assert response.json()["queries"] == [{"text": "boots", "score": -0.5}]
                assert response.json()["source"] == "cache"
            response = await http.get("/v1/users/a%2Fb%20%25/history")
            assert response.json()["user_id"] == "a/b %"
            response = await http.get("/v1/nope")
            assert response.headers["content-type"] == "application/problem+json"
            response = await http.get("/v1/feed", headers={"host": "evil.example"})
            assert response.status_code == 421

            async def counted() -> bool:
                # Whichever worker is asked, it tells the requests of both.
                text = (await http.get("/metrics")).text
                found = re.search(
                    r'onebar_http_requests_total\{method="GET",route="/v1/queries",status="200"\} '
                    r"([\d.]+)",
                    text,
                )
                return found is not None and float(found[1]) == 20

            await eventually(counted)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
    said = log.read_text()
    assert "api_listening" in said
    assert "Traceback" not in said


async def test_ready_is_said_for_every_process(settings: Settings, tmp_path: Path) -> None:
    made = settings.model_copy(update={"api_port": free_port(), "api_workers": 2})
    url = f"http://127.0.0.1:{made.api_port}"
    log = tmp_path / "api.log"
    with server(made, log):
        await eventually(lambda: answers(url, "/readyz"), 120, interval=0.1, what="the API")
        for number in range(20):
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:  # another connection
                found = (await http.get("/v1/queries", params={"video_id": f"v{number}"})).json()
            assert found.get("reason") != "model_unavailable", "either process has its model"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"api_host": "0.0.0.0"}, "UnsafeBindError"),
        ({"api_keys": ("read:nonsense",)}, "ApiKeyError"),
    ],
)
def test_unsafe_settings_start_nothing(
    settings: Settings, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    log = tmp_path / "api.log"
    with server(settings.model_copy(update=change), log) as process:
        assert process.wait(30) != 0
    assert told in log.read_text()
    assert "api_listening" not in log.read_text()
