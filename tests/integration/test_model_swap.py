"""Another checkpoint goes live while API and generator work: real processes, real models."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from stream_fixtures import make_topics, producer
from support import Workers, eventually, onebar

from feature_store.cache.query_cache import QueryCache
from feature_store.store import FeatureStore
from feature_store.writes import HistoryPut, VideoPut
from onebar.generator.checkpoint import SHIPPED, open_checkpoint, seal
from onebar.generator.registry import Registry
from onebar.process.files import staging
from onebar.records import VideoText
from onebar.settings import Settings
from onebar.stack.processes import Child
from onebar.stack.servers import free_port
from stream.events import Impression

pytestmark = pytest.mark.integration

VIDEOS = [f"v{number}" for number in range(40)]
USERS = [f"u{number}" for number in range(200)]
LONG_MS = 60_000.0


def variant(out: Path, most: int) -> Path:
    """The shipped checkpoint as another one: it may write so many tokens."""
    card = open_checkpoint(SHIPPED).card
    with staging(out) as staged:
        shutil.copytree(SHIPPED, staged, dirs_exist_ok=True)
        generation = msgspec.structs.replace(card.generation, max_target_tokens=most)
        seal(staged, out, preset="demo", prompt=card.prompt, generation=generation, training={})
    return out


class Models:
    """A registry with two checkpoints, A current, changed by the command line."""

    def __init__(self, directory: Path) -> None:
        self.registry = Registry(directory / "models")
        self.a, self.b = (
            self.registry.add(variant(directory / str(most), most))[0] for most in (22, 23)
        )
        self.registry.promote(self.a)

    def run(self, *words: str) -> dict[str, Any]:
        done = onebar("models", *words, "--registry", str(self.registry.path), "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    async def promote(self, name: str) -> None:
        assert (await asyncio.to_thread(self.run, "promote", name))["current"] == name

    def point_by_hand(self, name: str) -> None:
        (self.registry.path / "current").write_text(f"{name}\n")

    def damage(self, name: str) -> None:
        path = self.registry.checkpoint_path(name) / "ct2" / "model.bin"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


@pytest.fixture
def live(settings: Settings, models: Models) -> Settings:
    """Settings that follow the registry, with ports of their own."""
    return settings.model_copy(
        update={
            "registry": models.registry.path,
            "registry_poll_s": 0.1,
            "max_budget_ms": LONG_MS,
            "api_port": free_port(),
            "metrics_port": free_port(),
        }
    )


@pytest.fixture(autouse=True)
async def world(settings: Settings, store: FeatureStore) -> None:
    await make_topics(settings)
    now = time.time()
    writes = [
        VideoPut(video, now, f"e-{video}", VideoText(title=f"hiking boots number {video}"))
        for video in VIDEOS
    ]
    histories = [HistoryPut(user, f"hiking boots size {user}", now) for user in USERS]
    await store.apply([(write, None) for write in (*writes, *histories)])


async def ask(http: httpx.AsyncClient, video: str, **parameters: Any) -> dict[str, Any]:
    response = await http.get(
        "/v1/queries", params={"video_id": video, "budget_ms": LONG_MS, **parameters}
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def metrics(url: str) -> dict[str, float]:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}


def api_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.api_port}"


def worker_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.metrics_port}"


async def started(workers: Workers, settings: Settings, *names: str) -> list[Child]:
    children = [workers.start(name, settings=settings) for name in names]
    for child in children:
        await workers.ready(child, settings, 60)
    return children


async def impress(settings: Settings, video: str, user: str) -> None:
    event = Impression(event_id=f"i{time.time_ns()}", ts=time.time(), video_id=video, user_id=user)
    async with producer(settings) as kafka:
        await kafka.send([event])


async def test_a_promotion_goes_live_under_load_and_nothing_fails(
    live: Settings, models: Models, workers: Workers
) -> None:
    several = live.model_copy(update={"api_workers": 2})
    [api] = await started(workers, several, "api")
    stop = asyncio.Event()
    answers: list[dict[str, Any]] = []

    async def load(seed: int) -> None:
        rng = random.Random(seed)
        async with httpx.AsyncClient(base_url=api_url(live), timeout=90) as http:
            while not stop.is_set():
                # Each has a history of their own, so nearly every answer takes the model.
                answers.append(await ask(http, rng.choice(VIDEOS), user_id=rng.choice(USERS)))

    async def both_on(name: str) -> bool:
        found = await metrics(api_url(live))
        return found.get(f'onebar_model_info{{model="{name}"}}') == 2

    loads = [asyncio.create_task(load(seed)) for seed in range(4)]
    try:
        await eventually(lambda: len(answers) > 50 or any(task.done() for task in loads))
        for name in (models.b, models.a, models.b):
            await models.promote(name)
            await eventually(lambda name=name: both_on(name), 60)  # type: ignore[misc]
            seen = len(answers)
            await eventually(
                lambda seen=seen: (  # type: ignore[misc]
                    len(answers) > seen + 50 or any(task.done() for task in loads)
                ),
                60,
            )
    finally:
        stop.set()
        await asyncio.gather(*loads)
    late = [answer["reason"] for answer in answers if answer["source"] == "fallback"]
    assert set(late) <= {"deadline", "overload"}, late  # on a machine with too much to do
    assert len(late) < len(answers) / 10
    answers = [answer for answer in answers if answer["source"] != "fallback"]
    assert len({answer["evidence_digest"] for answer in answers}) > len(answers) / 2
    assert {answer["model"] for answer in answers} == {models.a, models.b}
    async with httpx.AsyncClient(base_url=api_url(live)) as http:

        async def all_renewed() -> bool:
            found = [(await ask(http, video))["model"] for video in VIDEOS]
            return set(found) == {models.b}

        await eventually(all_renewed, 60)
        ready = (await http.get("/readyz")).json()
    assert (ready["ready"], ready["checkpoint"], ready["warning"]) == (True, models.b, None)
    found = await metrics(api_url(live))
    assert found['onebar_model_swaps_total{outcome="swapped"}'] == 6
    assert found['onebar_model_swaps_total{outcome="refused"}'] == 0
    assert workers.stop(api) == 0, api.tail()
    assert "Traceback" not in api.log.read_text()


async def test_what_is_cached_is_served_at_once_and_renewed_behind(
    live: Settings, models: Models, workers: Workers
) -> None:
    await started(workers, live, "api")
    async with httpx.AsyncClient(base_url=api_url(live), timeout=90) as http:
        first = await ask(http, "v0", user_id="u")
        assert (first["source"], first["model"]) == ("generated", models.a)
        await models.promote(models.b)

        async def swapped() -> bool:
            return bool((await http.get("/readyz")).json()["checkpoint"] == models.b)

        await eventually(swapped)
        stale = await ask(http, "v0", user_id="u", budget_ms=0)
        assert (stale["source"], stale["model"]) == ("cache", models.a)

        async def renewed() -> bool:
            answer = await ask(http, "v0", user_id="u", budget_ms=0)
            assert answer["source"] == "cache"
            return bool(answer["model"] == models.b)

        await eventually(renewed)


async def test_a_generator_goes_on_with_what_is_promoted(
    live: Settings, models: Models, cache: QueryCache, workers: Workers
) -> None:
    [generator] = await started(workers, live, "generator")

    async def generated_by(name: str) -> bool:
        await impress(live, "v0", "u")
        [found] = await cache.lookup([("v0", "u")])
        return found.personal is not None and found.personal.model == name

    await eventually(lambda: generated_by(models.a), 60, interval=0.3)
    await models.promote(models.b)
    # The pair is cached and young; it is another model's, so the next impression renews it.
    await eventually(lambda: generated_by(models.b), 60, interval=0.3)
    assert (await asyncio.to_thread(models.run, "rollback"))["current"] == models.a
    await eventually(lambda: generated_by(models.a), 60, interval=0.3)
    assert workers.stop(generator) == 0, generator.tail()
    assert "Traceback" not in generator.log.read_text()


async def test_a_damaged_checkpoint_goes_not_live_and_says_so(
    live: Settings, models: Models, workers: Workers
) -> None:
    api, generator = await started(workers, live, "api", "generator")
    models.damage(models.b)
    done = await asyncio.to_thread(
        onebar, "models", "promote", models.b, "--registry", str(models.registry.path)
    )
    assert done.returncode == 1
    assert "sha256" in done.stderr
    assert models.registry.current() == models.a
    models.point_by_hand(models.b)
    async with httpx.AsyncClient(timeout=90) as http:

        async def warned() -> bool:
            ready = (await http.get(f"{api_url(live)}/readyz")).json()
            health = await http.get(f"{worker_url(live)}/healthz")
            assert ready["ready"]
            assert health.status_code == 200
            return all(
                "sha256" in (warning or "") and models.b in warning
                for warning in (ready["warning"], health.json()["warnings"].get("model"))
            )

        await eventually(warned)
        for url in (api_url(live), worker_url(live)):
            found = await metrics(url)
            # Where the machine is slow it has been tried again meanwhile.
            assert found['onebar_model_swaps_total{outcome="refused"}'] >= 1
            assert found[f'onebar_model_info{{model="{models.a}"}}'] == 1
    async with httpx.AsyncClient(base_url=api_url(live), timeout=90) as http:
        answer = await ask(http, "v1")
        assert (answer["source"], answer["model"]) == ("generated", models.a)
    listed = await asyncio.to_thread(
        onebar, "models", "list", "--verify", "--registry", str(models.registry.path)
    )
    assert listed.returncode == 1
    doctor = await asyncio.to_thread(onebar, "doctor", "--api", api_url(live), settings=live)
    assert doctor.returncode == 1
    assert f"{models.a} keeps serving" in doctor.stdout

    rolled = await asyncio.to_thread(models.run, "rollback")
    assert rolled["current"] == models.a

    async def well() -> bool:
        async with httpx.AsyncClient() as http:
            ready = (await http.get(f"{api_url(live)}/readyz")).json()
            health = (await http.get(f"{worker_url(live)}/healthz")).json()
        return ready["warning"] is None and health["warnings"] == {}

    await eventually(well)
    for child, url in ((api, api_url(live)), (generator, worker_url(live))):
        refused = (await metrics(url))['onebar_model_swaps_total{outcome="refused"}']
        assert child.log.read_text().count("model_refused") == refused
        assert workers.stop(child) == 0, child.tail()


async def test_starting_on_a_damaged_checkpoint(
    live: Settings, models: Models, workers: Workers
) -> None:
    models.damage(models.b)
    models.point_by_hand(models.b)
    generator, api = workers.start("generator", settings=live), workers.start("api", settings=live)
    await eventually(lambda: not generator.running)
    assert generator.process.returncode not in (0, None)
    assert "sha256" in generator.log.read_text()
    assert "Traceback" not in generator.log.read_text()

    async def says_why() -> bool:
        async with httpx.AsyncClient() as http:
            try:
                response = await http.get(f"{api_url(live)}/readyz")
            except httpx.TransportError:
                return False
        return response.status_code == 503 and "sha256" in response.json()["model"]

    await eventually(says_why)
    await models.promote(models.a)
    await workers.ready(api, live)
