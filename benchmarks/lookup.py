"""How fast a cached lookup is, beside the same server sending the same bytes without a lookup.

    python benchmarks/lookup.py                       # on an embedded Valkey
    python benchmarks/lookup.py --peers VENV/bin/python       # one with feast[redis]
    python benchmarks/lookup.py --rounds 1 --seconds 1 --pairs 200

Round by round each server is asked in turn over 64 connections by wrk, which has to be installed
(the Debian package wrk): the API (`GET /v1/queries` of one of many cached pairs), FastAPI with a
static route, a bare ASGI application, the API with 64 pairs a call, both again of an API that
keeps nothing in its own memory (`..._redis`, ONEBAR_NEAR_CACHE_MB=0), and with --peers Feast's
feature server (a precomputed list a key in the same Redis). One worker each; client and server
share the machine. Prints medians over the rounds, ratios within each round, the share of
answers whose deadline passed before the cache answered (`not_cached`: it should be 0) and of those
that were at hand, without asking Redis (`at_hand`: less with more --pairs than the near cache
holds), and the latency at half of the API's saturation, of clients that pause between requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from feature_store.cache.query_cache import QueryCache
from feature_store.keys import Keys
from feature_store.redis.client import connect
from onebar.recommending.loading import open_gate
from onebar.records import CacheEntry, Candidate, QueryResult
from onebar.settings import Settings
from onebar.stack.processes import Child, Children
from onebar.stack.servers import free_port, start_broker, start_valkey

CONNECTIONS = 64
BATCH = 64
HERE = Path(__file__).parent
QUERIES = tuple(
    Candidate(f"waterproof hiking boots for wide feet {n}", -0.4 - n / 10) for n in range(8)
)
SINGLE_LUA = """
local paths = {}
for line in io.lines("%(paths)s") do paths[#paths + 1] = line end
local at = math.random(#paths)
request = function()
  at = at %% #paths + 1
  return wrk.format("GET", paths[at])
end
"""
POST_LUA = """
local bodies = {}
for line in io.lines("%(bodies)s") do bodies[#bodies + 1] = line end
local at = math.random(#bodies)
request = function()
  at = at %% #bodies + 1
  return wrk.format("POST", "%(path)s", {["Content-Type"] = "application/json"}, bodies[at])
end
"""


def pairs_of(count: int) -> list[tuple[str, str]]:
    return [(f"video-{n:06d}", f"user-{n:06d}") for n in range(count)]


async def fill(url: str, keys: Keys, pairs: Sequence[tuple[str, str]]) -> None:
    """Cache eight queries for each pair, which have passed the gate, for the longest there is."""
    passed = open_gate(Settings()).passed(time.time())
    cache = QueryCache(connect(url, timeout_s=30.0), keys, soft_ttl_s=86_400, hard_ttl_s=90_000)
    now = time.time()
    for start in range(0, len(pairs), 500):
        await cache.put(
            [
                CacheEntry(
                    QueryResult(video, QUERIES, False, "bench", f"{video:0>32}"[:32], now),
                    user,
                    passed=passed,
                )
                for video, user in pairs[start : start + 500]
            ]
        )
    await cache.client.aclose()


def wrk(port: int, seconds: float, script: Path | None) -> float:
    """Requests a second over as long."""
    return rate_of(run_wrk(port, seconds, script))


def run_wrk(port: int, seconds: float, script: Path | None, *options: str) -> str:
    """What wrk says; every answer must be a 2xx."""
    command = [
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "10s",
        *options, *(("-s", str(script)) if script else ()), f"http://127.0.0.1:{port}/v1/queries",
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"the server did not answer every request:\n{said}")
    return said


def rate_of(said: str) -> float:
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


def at_rate(port: int, work: Path, script: Path, rate: float, seconds: float) -> dict[str, float]:
    """Latency in ms of clients that pause between their requests, so that these come at the rate.

    The pauses are drawn by chance; how long they have to be is found by trying.
    """
    pause_ms = 1000 * CONNECTIONS / rate
    paced = work / "paced.lua"
    for trial in (1.0, 1.0, 1.0, seconds):
        spread = max(1, round(2 * pause_ms))
        pauses = f"function delay() return math.random(0, {spread}) end"
        paced.write_text(script.read_text() + pauses)
        said = run_wrk(port, trial, paced, "--latency")
        reached = rate_of(said)
        pause_ms = max(0.5, pause_ms + 1000 * CONNECTIONS * (1 / rate - 1 / reached))
    p50, p99 = (latency_ms(said, share) for share in ("50%", "99%"))
    return {"rate": round(reached), "p50_ms": p50, "p99_ms": p99}


def latency_ms(said: str, share: str) -> float:
    """One line of what wrk tells of the latencies."""
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)\b", said)
    assert found is not None, said
    return round(float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]], 2)


FEAST_PATH = "/get-online-features"


def feast_request(pair: tuple[str, str]) -> str:
    """What asks Feast's server for the list of a pair."""
    key = {"features": ["cached_queries:body"], "entities": {"pair": ["/".join(pair)]}}
    return json.dumps(key)


def start_feast(
    children: Children, work: Path, python: str, redis_url: str, pairs: Sequence[tuple[str, str]]
) -> int:
    port = free_port()
    keys = work / "keys"
    keys.write_text("\n".join(map("/".join, pairs)))
    command = [
        python, str(HERE / "feast_peer.py"), redis_url, str(port),
        "--keys", str(keys), "--body", str(work / "body.json"),
    ]  # fmt: skip
    child = children.start("feast", command, work / "feast.log")
    child.wait_until(lambda: answers(port, "/health"), 300)
    return port


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def cached(port: int, path: str) -> bytes:
    """A body of the API's, which must come from the cache."""
    url = f"http://127.0.0.1:{port}{path}&budget_ms=2000"
    with urllib.request.urlopen(url, timeout=5) as answer:
        body: bytes = answer.read()
    source = json.loads(body)["source"]
    if source != "cache":
        raise SystemExit(f"the API answered from {source}, not from the cache: {body!r}")
    return body


def answered(port: int) -> dict[str, float]:
    """Of the API's answers, the shares that did not come from the cache (their deadline passed),
    and that needed no Redis."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.findall(r'^onebar_answers_total\{.*source="(\w+)".*\} (\S+)$', text, re.M)
    every = sum(float(value) for _, value in found)
    failed = sum(float(value) for source, value in found if source != "cache")
    [looked_up] = re.findall(r"^onebar_lookups_total (\S+)$", text, re.M)
    return {
        "not_cached": round(failed / every, 6),
        "at_hand": round(1 - float(looked_up) / every, 4),
    }


def start_api(
    children: Children, work: Path, redis_url: str, namespace: str, broker: str, **settings: str
) -> tuple[Child, int]:
    port = free_port()
    env = {
        **os.environ,
        "ONEBAR_REDIS_URL": redis_url,
        "ONEBAR_NAMESPACE": namespace,
        "ONEBAR_KAFKA_BOOTSTRAP": broker,
        "ONEBAR_IDEMPOTENT_PRODUCER": "0",
        "ONEBAR_API_PORT": str(port),
        "ONEBAR_API_GENERATE": "0",
        "ONEBAR_LOG_LEVEL": "error",
        **settings,
    }
    command = [sys.executable, "-P", "-m", "onebar", "api"]
    child = children.start("api", command, work / f"api-{port}.log", env)
    child.wait_until(lambda: answers(port, "/healthz"), 30)
    return child, port


def start_static(children: Children, work: Path, name: str, body: Path) -> tuple[Child, int]:
    port = free_port()
    command = [
        sys.executable, str(HERE / "static_apps.py"), name, "--port", str(port),
        "--body", str(body),
    ]  # fmt: skip
    child = children.start(name, command, work / f"{name}.log")
    child.wait_until(lambda: answers(port, "/v1/queries"), 30)
    return child, port


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def measure(options: argparse.Namespace, work: Path, children: Children) -> dict[str, Any]:
    redis_url = options.redis_url or start_valkey(children, work)
    namespace = f"bench{os.getpid()}"
    pairs = pairs_of(options.pairs)
    asyncio.run(fill(redis_url, Keys(namespace=namespace), pairs))
    paths = [f"/v1/queries?video_id={video}&user_id={user}" for video, user in pairs]
    (work / "paths").write_text("\n".join(paths) + "\n")
    (work / "single.lua").write_text(SINGLE_LUA % {"paths": work / "paths"})
    batches = [
        json.dumps(
            {"requests": [{"video_id": v, "user_id": u} for v, u in (pairs * 2)[at : at + BATCH]]}
        )
        for at in range(0, len(pairs), max(1, BATCH // 2))
    ]
    (work / "bodies").write_text("\n".join(batches) + "\n")
    (work / "batch.lua").write_text(POST_LUA % {"bodies": work / "bodies", "path": "/v1/queries"})

    broker = start_broker(children, work)
    _, api = start_api(children, work, redis_url, namespace, broker)
    _, asking = start_api(children, work, redis_url, namespace, broker, ONEBAR_NEAR_CACHE_MB="0")
    (work / "body.json").write_bytes(cached(api, paths[0]))
    _, fastapi = start_static(children, work, "fastapi", work / "body.json")
    _, asgi = start_static(children, work, "asgi", work / "body.json")
    targets: dict[str, tuple[int, Path | None, int]] = {
        "lookup": (api, work / "single.lua", 1),
        "fastapi_static": (fastapi, None, 1),
        "asgi_static": (asgi, None, 1),
        "batch_of_64": (api, work / "batch.lua", BATCH),
        "lookup_redis": (asking, work / "single.lua", 1),
        "batch_redis": (asking, work / "batch.lua", BATCH),
    }
    if options.peers:
        feast = start_feast(children, work, options.peers, redis_url, pairs)
        bodies = work / "feast-bodies"
        bodies.write_text("\n".join(map(feast_request, pairs)) + "\n")
        script = work / "feast.lua"
        script.write_text(POST_LUA % {"bodies": bodies, "path": FEAST_PATH})
        targets["feast"] = (feast, script, 1)
    rates: dict[str, list[float]] = {name: [] for name in targets}
    for port, script, _ in targets.values():
        wrk(port, 1, script)  # warm
    turns = [(name, *targets[name]) for _ in range(options.rounds) for name in targets]
    for name, port, script, size in track(turns, "asking", transient=True):
        rate = wrk(port, options.seconds, script)
        rates[name].append(size * rate)

    def ratio(one: str, other: str) -> float:
        return median([a / b for a, b in zip(rates[one], rates[other], strict=True)])

    half = statistics.median(rates["lookup"]) / 2
    return {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "pairs": len(pairs),
        "pairs_per_s": {name: round(statistics.median(found)) for name, found in rates.items()},
        "lookup_to_fastapi_static": ratio("lookup", "fastapi_static"),
        "lookup_to_asgi_static": ratio("lookup", "asgi_static"),
        "batch_to_lookup": ratio("batch_of_64", "lookup"),
        "lookup_redis_to_asgi_static": ratio("lookup_redis", "asgi_static"),
        "batch_redis_to_lookup_redis": ratio("batch_redis", "lookup_redis"),
        **{
            f"{name}_to_feast": ratio(name, "feast")
            for name in ("lookup", "lookup_redis")
            if options.peers
        },
        **answered(api),
        "not_cached_redis": answered(asking)["not_cached"],
        "at_half_load": at_rate(api, work, work / "single.lua", half, options.seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each turn")
    parser.add_argument("--pairs", type=int, default=10_000, help="cached pairs asked for")
    parser.add_argument("--peers", help="the Python of an environment with feast[redis]")
    parser.add_argument("--redis-url", help="default: an embedded Valkey")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: on Debian, apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="onebar-bench-") as work, Children() as children:
        print(json.dumps(measure(options, Path(work), children)))


if __name__ == "__main__":
    main()
