"""SIGTERM ends API and generator worker within ten seconds, whatever hangs at that moment."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from lines import Line
from stream_fixtures import make_topics, producer
from support import eventually
from test_model_swap import Models

from api.server import STOP_WITHIN_S
from feature_store.store import FeatureStore
from feature_store.writes import VideoPut
from onebar.process.tasks import END_S
from onebar.records import VideoText
from onebar.settings import Settings
from onebar.stack.servers import free_port
from onebar.stack.variables import environment
from stream.events import Impression

pytestmark = pytest.mark.integration

ENDED_S = 60.0
"""For how long the end is waited for: a machine that does much else takes its time for ten seconds.
Without what is held to here nothing would end at all."""
PROGRAMS = {
    "api": "from api.server import serve; from onebar.settings import Settings; serve(Settings())",
    "generator": "import sys; from stream.workers.generator import main; sys.exit(main())",
}
HANG = """
import os, threading
from onebar.generator import ct2
def hang(what):
    print(what, "hangs", flush=True)
    threading.Event().wait()
generate, load = ct2.CTranslate2Engine.generate, ct2._load
def generating(self, prompts, *more):
    if any("stillstand" in prompt for prompt in prompts):
        hang("engine")
    return generate(self, prompts, *more)
def loading(*named, **more):
    if os.path.exists(os.environ["HANG_WHERE_THIS_IS"]):
        hang("load")
    return load(*named, **more)
ct2.CTranslate2Engine.generate, ct2._load = generating, loading
"""
"""An engine that never comes back from a prompt about a stillstand, nor from loading once a file
is there."""


class Program:
    """A process of ours, in which something can be made to hang."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, hang: Path) -> None:
        self.process = process
        self.hang = hang
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text()

    async def says(self, words: str) -> None:
        def told() -> bool:
            assert self.process.poll() is None, self.said
            return words in self.said

        await eventually(told, 150, what=f"a word of {words!r}")

    async def ends(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        try:
            return int(await asyncio.to_thread(self.process.wait, ENDED_S))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end: {self.said}") from None


@contextmanager
def started(what: str, settings: Settings, tmp_path: Path) -> Iterator[Program]:
    log, hang = tmp_path / f"{what}.log", tmp_path / "hang"
    env = environment(settings) | {"HANG_WHERE_THIS_IS": str(hang)}
    command = [sys.executable, "-c", HANG + PROGRAMS[what]]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
        try:
            yield Program(process, log, hang)
        finally:
            process.kill()
            process.wait()


@asynccontextmanager
async def api(settings: Settings, tmp_path: Path) -> AsyncIterator[tuple[Program, str]]:
    """A ready API, and its address."""
    made = settings.model_copy(update={"api_port": free_port()})
    url = f"http://127.0.0.1:{made.api_port}"
    with started("api", made, tmp_path) as program:

        async def model() -> bool:
            async with httpx.AsyncClient(base_url=url) as http:
                try:
                    return (await http.get("/readyz")).json()["model"] == "ok"
                except httpx.TransportError:
                    return False

        await eventually(model, 150)
        yield program, url


async def video(store: FeatureStore, title: str) -> None:
    await store.apply([(VideoPut("v", 1.0, "e", VideoText(title=title)), None)])


def test_what_it_is_given_leaves_time_to_end() -> None:
    assert max(STOP_WITHIN_S, END_S) < 10


async def test_an_api_whose_model_hangs(
    settings: Settings, store: FeatureStore, tmp_path: Path
) -> None:
    await video(store, "stillstand of a camping tent")
    async with api(settings, tmp_path) as (program, url):
        async with httpx.AsyncClient(base_url=url) as http:
            answer = (await http.get("/v1/queries", params={"video_id": "v"})).json()
        assert answer["reason"] == "deadline"
        await program.says("engine hangs")
        await program.ends()


async def test_an_api_that_is_generating(
    settings: Settings, store: FeatureStore, tmp_path: Path
) -> None:
    await video(store, "waterproof hiking boots")
    async with api(settings, tmp_path) as (program, url):
        body = {"requests": [{"video_id": "v", "user_id": f"u{n}"} for n in range(256)]}
        async with httpx.AsyncClient(base_url=url) as http:
            asking = asyncio.create_task(http.post("/v1/queries", json=body | {"budget_ms": 2000}))
            await program.ends()
            await asyncio.gather(asking, return_exceptions=True)
        assert "Traceback" not in program.said


@pytest.mark.parametrize("server", ["redis_url", "kafka_bootstrap"])
async def test_an_api_whose_servers_do_not_answer(
    settings: Settings, tmp_path: Path, server: str
) -> None:
    reached = settings.redis_url if server == "redis_url" else f"tcp://{settings.kafka_bootstrap}"
    async with Line(reached) as line:
        to = line.url if server == "redis_url" else f"127.0.0.1:{line.port}"
        if server == "kafka_bootstrap":
            line.hold()
        async with api(settings.model_copy(update={server: to}), tmp_path) as (program, url):
            line.hold()
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                asked = [
                    http.get("/v1/queries", params={"video_id": "v"}),
                    http.get("/v1/users/u/history"),
                    http.delete("/v1/users/u"),
                ]
                asking = [asyncio.create_task(each) for each in asked]
                await asking[0]
                await program.ends()
                await asyncio.gather(*asking, return_exceptions=True)


async def test_an_api_to_which_bodies_are_owed(settings: Settings, tmp_path: Path) -> None:
    made = settings.model_copy(update={"api_body_timeout_s": 60.0})
    async with api(made, tmp_path) as (program, url):
        port = int(url.rpartition(":")[2])
        writers = []
        for path in ("/v1/queries", "/v1/events", "/v1/events"):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: 1000\r\n\r\n[".encode())
            await writer.drain()
            writers.append(writer)

        async def waited_for() -> bool:
            async with httpx.AsyncClient(base_url=url) as http:
                text = (await http.get("/metrics")).text
            return "onebar_http_body_bytes 3000.0" in text

        await eventually(waited_for)
        await program.ends()
        for writer in writers:
            writer.close()


async def test_an_api_that_loads_another_model(settings: Settings, tmp_path: Path) -> None:
    models = Models(tmp_path)
    made = settings.model_copy(update={"registry": models.registry.path, "registry_poll_s": 0.1})
    async with api(made, tmp_path) as (program, _):
        program.hang.touch()
        models.registry.promote(models.b)
        await program.says("load hangs")
        await program.ends()


async def test_what_an_api_had_begun_ends_with_it_however_early_it_is_killed(
    settings: Settings, tmp_path: Path
) -> None:
    with started("api", settings.model_copy(update={"api_port": free_port()}), tmp_path) as program:
        await program.says("api_listening")
        pid = program.process.pid
        below = Path(f"/proc/{pid}/task/{pid}/children")
        [worker] = await eventually(lambda: below.read_text().split(), 150, what="a worker")
        program.process.kill()
        await eventually(lambda: not Path(f"/proc/{worker}").exists(), ENDED_S, what="the worker")


async def impressed(settings: Settings, program: Program) -> None:
    """Have the generator worker generate for the video."""
    await program.says("generator_started")
    async with producer(settings) as kafka:
        await kafka.send([Impression(event_id="i1", ts=time.time(), video_id="v", user_id="u")])


async def test_a_generator_whose_model_hangs(
    settings: Settings, store: FeatureStore, tmp_path: Path
) -> None:
    await make_topics(settings)
    await video(store, "stillstand of a camping tent")
    with started("generator", settings, tmp_path) as program:
        await impressed(settings, program)
        await program.says("engine hangs")
        await program.ends()
        assert "hang" in program.said.rpartition("Timeout (")[2], "it says where it hung"


async def test_a_generator_whose_redis_does_not_answer(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    async with Line(settings.redis_url) as line:
        made = settings.model_copy(update={"redis_url": line.url})
        with started("generator", made, tmp_path) as program:
            await program.says("generator_started")
            line.hold()
            await impressed(settings, program)
            await program.says("dependency_away")
            await program.ends()


async def test_a_generator_that_loads_another_model(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    models = Models(tmp_path)
    made = settings.model_copy(update={"registry": models.registry.path, "registry_poll_s": 0.1})
    with started("generator", made, tmp_path) as program:
        await program.says("generator_started")
        program.hang.touch()
        models.registry.promote(models.b)
        await program.says("load hangs")
        await program.ends()
