"""What docker-compose.yml starts, started without containers: its commands, variables, health
checks and order, on the test's servers. Only addresses and ports are others."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import compose
import httpx
import pytest
import yaml
from support import eventually

from onebar.settings import Settings
from onebar.stack.processes import Child, Children
from onebar.stack.servers import free_port
from onebar.stack.variables import variables

pytestmark = pytest.mark.integration

OURS = ("topics-init", "stream", "generator", "api")
PROGRAMS = {
    "onebar": [sys.executable, "-P", "-m", "onebar"],
    "onebar-health": [sys.executable, str(compose.ROOT / "deploy" / "health.py")],
}
"""Where the image's programs are here."""
STARTED_WITHIN_S = 60.0
GRACE_S = 30.0


class Machine:
    """Runs services of the file as processes of this machine."""

    def __init__(self, children: Children, env: Path, settings: Settings, directory: Path) -> None:
        self.services = compose.read(compose.env_file(env))["services"]
        self.running: dict[str, Child] = {}
        self._children = children
        self._settings = settings
        self._directory = directory
        self._ports = {name: str(free_port()) for name in OURS}

    def port(self, name: str) -> str:
        return self._ports[name]

    def environment(self, name: str) -> dict[str, str]:
        """The service's variables, with this test's names, and addresses of this machine."""
        described: Mapping[str, str] = self.services[name]["environment"]
        found = variables(self._settings)
        for variable, value in described.items():
            text = str(value).replace("kafka:9092", self._settings.kafka_bootstrap)
            text = text.replace("redis://redis:6379/0", self._settings.redis_url)
            for other, port in self._ports.items():
                text = text.replace(f"{other}:9100", f"127.0.0.1:{port}")
            if variable in {"ONEBAR_METRICS_PORT", "ONEBAR_API_PORT"} and text != "0":
                text = self._ports[name]
            found[variable] = text
        # As in the container: no home that could be written to, and /tmp.
        bare = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": str(self._directory)}
        return found | bare

    def start(self, name: str) -> Child:
        words = [*PROGRAMS["onebar"], *self.services[name]["command"]]
        log = self._directory / f"{name}.log"
        child = self._children.start(name, words, log, env=self.environment(name))
        self.running[name] = child
        return child

    def healthy(self, name: str) -> bool:
        """What the service's own health check says now."""
        kind, program, *rest = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [*PROGRAMS[program], *rest]
        done = subprocess.run(words, env=self.environment(name), capture_output=True, timeout=10)
        return done.returncode == 0

    async def up(self, name: str) -> None:
        """Start a service when those that it depends on are as it wants them, and wait until it is
        healthy; one that ends by itself is waited for."""
        for other, wanted in self.services[name]["depends_on"].items():
            if other not in OURS:
                continue
            child = self.running[other]
            assert wanted == {"condition": "service_completed_successfully"}
            assert await asyncio.to_thread(child.process.wait, STARTED_WITHIN_S) == 0, child.tail()
        child = self.start(name)
        if self.services[name]["healthcheck"].get("disable"):
            return

        async def healthy() -> bool:
            child.check()
            return await asyncio.to_thread(self.healthy, name)

        await eventually(healthy, STARTED_WITHIN_S, interval=0.2, what=f"{name}'s health")

    def stop(self) -> dict[str, int]:
        """`docker compose stop`: the status of each that was running."""
        stopping = [child for child in self.running.values() if child.running]
        self._children.end(*stopping, grace_s=GRACE_S)
        return {child.name: child.process.returncode for child in stopping}


def made_env(directory: Path) -> tuple[Path, str]:
    """The .env that deploy/make_env.sh writes, and the key that it shows."""
    file = directory / ".env"
    script = compose.ROOT / "deploy" / "make_env.sh"
    done = subprocess.run([script, file], capture_output=True, text=True, check=True)
    return file, done.stdout.splitlines()[0].rpartition(" ")[2]


@pytest.fixture
def machine(settings: Settings, tmp_path: Path) -> Iterator[tuple[Machine, str]]:
    file, key = made_env(tmp_path)
    with Children() as children:
        yield Machine(children, file, settings, tmp_path), key


async def test_the_services_come_up_answer_and_end(machine: tuple[Machine, str]) -> None:
    made, key = machine
    assert {name for name, each in made.services.items() if each["image"] == "onebar"} == {
        *OURS,
        "neighbors",  # wants an embedder: test_neighbors_worker.py
        "map-topic",  # wants a topic of somebody's: test_map_topic.py
    }
    assert not made.healthy("api")
    assert not made.healthy("stream")
    await made.up("topics-init")
    await asyncio.gather(*(made.up(name) for name in ("stream", "generator", "api")))

    url = f"http://127.0.0.1:{made.port('api')}"
    now = time.time()
    video = {"video_id": "v1", "ts": now}
    events: list[dict[str, Any]] = [
        {"type": "video", "event_id": "e1", "title": "Trail shoes for mud and rain", **video},
        {"type": "impression", "event_id": "e2", "user_id": "u1", **video},
    ]
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        assert (await http.get("/v1/queries", params={"video_id": "v1"})).status_code == 401
        http.headers["Authorization"] = f"Bearer {key}"
        assert (await http.post("/v1/events", json=events)).status_code == 202

        async def answered() -> Any:
            asked = {"video_id": "v1", "user_id": "u1", "budget_ms": "2000"}
            return (await http.get("/v1/queries", params=asked)).json()["queries"]

        await eventually(answered, what="queries")
        # The page of operations finds the workers where the file says that they are.
        told = (await http.get("/v1/operations")).json()
        assert {part["name"]: part["up"] for part in told["parts"]} == {
            "api": True,
            "stream": True,
            "generator": True,
        }
    config = yaml.safe_load((compose.ROOT / "deploy/prometheus/prometheus.yml").read_text())
    async with httpx.AsyncClient() as http:
        for job in config["scrape_configs"]:
            name = job["job_name"]
            if name in made.running:
                text = (await http.get(f"http://127.0.0.1:{made.port(name)}/metrics")).text
                assert "\nonebar_healthy " in text, name
    assert made.stop() == {"stream": 0, "generator": 0, "api": 0}
    assert not made.healthy("api")
