"""What is answered, and how late, while something is away, slow, hung or too much.

    python benchmarks/degraded.py                 # every mode: the table of docs/degraded-modes.md
    python benchmarks/degraded.py --modes redis_stopped posting --lookups 2000 --json

For each mode the local servers (Valkey, a Kafka broker) and one API process are started, 200
connections of wrk (the Debian package wrk) find out its saturation (`saturation.py`: the highest
rate at which answers keep up and are no worse than at a light load in that mode), and then ask at
half of that: single lookups and batches of 64. Of a hundred pairs 80 are cached; nine are of videos
that are known, with a user who is not; one is of a video that is known and has no queries yet, and
ten of videos that nobody has heard of. Late is an answer that takes more than its budget and 20 ms,
as the client sees it, on a machine that it shares with the servers. Answers are counted by their
`source`, `fallback` and `reason`, by the API's own metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from lookup import answers, fill, pairs_of
from rich.progress import track
from saturation import Client, Fresh

from feature_store.keys import Keys
from feature_store.opening import open_store
from feature_store.writes import VideoPut
from onebar.generator.checkpoint import SHIPPED, open_checkpoint, seal
from onebar.generator.registry import Registry
from onebar.generator.within import Within
from onebar.process.files import staging
from onebar.records import VideoText
from onebar.settings import Settings
from onebar.stack.processes import Child, Children
from onebar.stack.servers import free_port, start_broker, start_valkey

BATCH = 64
BUDGET_MS = 80
LATE_MS = BUDGET_MS + 20
KNOWN = 300
NEW = 8000
"""Videos that nothing has been generated for, and that are asked for one after the other."""
LEAST_S, MOST_S = 4.0, 60.0
POSTERS = 8
SLOW_S = 0.15
WARM_MS = 2000
HERE = Path(__file__).parent
NEXT = "new-#"


def measured(client: Client, count: int) -> dict[str, Any]:
    """So many requests and a few more, as far as `MOST_S` allows, at half of saturation."""
    found = client.saturation()
    half = found.per_s / 2
    seconds = min(MOST_S, max(LEAST_S, count / half * 1.1))
    told = client.at(half, seconds, found.light.mean_ms)
    return {
        "saturation_per_s": round(found.per_s),
        "at_most_per_s": round(found.at_most_per_s),
        "light_shed": round(found.light.shed_share, 4),
        **asdict(told),
    }


class World:
    """The servers of one mode, and what its client asks for."""

    def __init__(self, work: Path, children: Children, **settings: str) -> None:
        self.work = work
        self.children = children
        self.broker = start_broker(children, work)
        self.redis_url = start_valkey(children, work)
        self.namespace = f"bench{os.getpid()}"
        self.pairs = pairs_of(5000)
        self._prepare()
        self.port = free_port()
        self.settings = settings

    def child(self, name: str) -> Child:
        """A server, by its name."""
        return next(child for child in self.children if child.name == name)

    def _prepare(self) -> None:
        asyncio.run(fill(self.redis_url, Keys(namespace=self.namespace), self.pairs))
        store = open_store(Settings(redis_url=self.redis_url, namespace=self.namespace))
        writes = [
            (VideoPut(f"{kind}-{n:05d}", 1.0, f"{kind}{n}", VideoText(title=_title(n, kind))), None)
            for kind, count in (("known", KNOWN), ("new", NEW))
            for n in range(count)
        ]

        async def put() -> None:
            for at in range(0, len(writes), 500):
                await store.apply(writes[at : at + 500])
            await store.close()

        asyncio.run(put())

    def start_api(self, **settings: str) -> Child:
        env = {
            **os.environ,
            "ONEBAR_REDIS_URL": self.redis_url,
            "ONEBAR_NAMESPACE": self.namespace,
            "ONEBAR_KAFKA_BOOTSTRAP": self.broker,
            "ONEBAR_IDEMPOTENT_PRODUCER": "0",
            "ONEBAR_API_PORT": str(self.port),
            "ONEBAR_LOG_LEVEL": "error",
            "ONEBAR_BUDGET_MS": str(BUDGET_MS),
            **self.settings,
            **settings,
        }
        program = self.settings.get("BENCH_PROGRAM")
        command = [sys.executable, "-P", "-m", "onebar", "api"]
        if program is not None:
            command = [sys.executable, str(HERE / "degraded.py"), "--serve", program]
        child = self.children.start("api", command, self.work / "api.log", env)
        path = "/healthz" if program else "/readyz"
        child.wait_until(lambda: answers(self.port, path), 60)
        return child

    def requests(self) -> tuple[list[str], list[str]]:
        """Single lookups and batches."""
        draw = random.Random(7)
        wanted: list[tuple[str, str | None]] = []
        for n in range(20_000):
            kind = n % 100
            if kind < 80:
                wanted.append(self.pairs[draw.randrange(len(self.pairs))])
            elif kind < 89:
                wanted.append((f"known-{draw.randrange(KNOWN):05d}", "u@"))
            elif kind < 90:
                wanted.append((NEXT, "u@"))
            else:
                wanted.append((f"unknown-{n}", None))
        draw.shuffle(wanted)
        singles = [
            f"/v1/queries?video_id={video}" + (f"&user_id={user}" if user else "")
            for video, user in wanted
        ]
        batches = [
            json.dumps(
                {
                    "requests": [
                        {"video_id": video} | ({"user_id": user} if user else {})
                        for video, user in wanted[at : at + BATCH]
                    ]
                }
            )
            for at in range(0, len(wanted), BATCH // 2)
        ]
        return singles, batches

    def warm(self) -> None:
        """Have queries generated for the videos that are known."""
        known = [f"known-{n:05d}" for n in range(KNOWN)]
        for at in range(0, KNOWN, BATCH // 4):
            pairs = [{"video_id": video} for video in known[at : at + BATCH // 4]]
            post(self.port, "/v1/queries", {"requests": pairs, "budget_ms": WARM_MS})


def _title(n: int, kind: str) -> str:
    words = ("waterproof", "hiking", "boots", "camping", "tent", "winter", "jacket", "kitchen")
    return " ".join(words[(n >> shift) % len(words)] for shift in (0, 3, 6, 9)) + f" {kind} {n}"


def sources(port: int) -> dict[str, float]:
    """Answers so far, by how they are marked."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, label, value in re.findall(
        r"^onebar_(answers|fallbacks|http_shed)_total\{(.*)\} (\S+)$", text, re.M
    ):
        words = re.findall(r'"([^"]+)"', label)
        found[f"{name}:{'/'.join(words)}"] = float(value)
    for gauge in ("onebar_loop_lag_seconds",):
        for value in re.findall(rf"^{gauge} (\S+)$", text, re.M):
            found[f"gauge:{gauge}"] = float(value)
    return found


Mode = Callable[[World], Any]


@contextmanager
def healthy(world: World) -> Iterator[None]:
    """Everything is there"""
    yield


@contextmanager
def redis_stopped(world: World) -> Iterator[None]:
    """Redis was stopped: connections are refused"""
    world.children.end(world.child("valkey"))
    yield


@contextmanager
def redis_frozen(world: World) -> Iterator[None]:
    """Redis hangs (SIGSTOP): connections are taken, nothing is answered"""
    child = world.child("valkey")
    child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.signal(signal.SIGCONT)


@contextmanager
def redis_comes_and_goes(world: World) -> Iterator[None]:
    """Redis hangs for a second in every two"""
    child = world.child("valkey")

    def hang() -> None:
        for signum in (signal.SIGSTOP, signal.SIGCONT):
            child.signal(signum)
            time.sleep(1)

    with beside(hang):
        yield
    child.signal(signal.SIGCONT)


@contextmanager
def redis_slow(world: World) -> Iterator[None]:
    """Each answer of Redis takes 150 ms"""
    yield


@contextmanager
def kafka_away(world: World) -> Iterator[None]:
    """Kafka was killed, and events are posted all the same"""
    world.child("broker").signal(signal.SIGKILL)
    with posting(world, events=100):
        yield


@contextmanager
def generator_absent(world: World) -> Iterator[None]:
    """No model anywhere (ONEBAR_API_GENERATE=0, no generator worker)"""
    yield


@contextmanager
def generator_hung(world: World) -> Iterator[None]:
    """The model never comes back"""
    yield


@contextmanager
def model_swapped(world: World) -> Iterator[None]:
    """Another checkpoint is promoted every three seconds"""
    registry = Registry(world.work / "registry")
    names = [entry.name for entry in registry.entries()]
    turn = iter(names * 1000)

    def promote() -> None:
        registry.promote(next(turn))
        time.sleep(3)

    with beside(promote):
        yield


@contextmanager
def posting_load(world: World) -> Iterator[None]:
    """Eight clients post 1,000 events of 1 KB at a time, as fast as they are taken"""
    with posting(world, events=1000):
        yield


@contextmanager
def batches_of_misses(world: World) -> Iterator[None]:
    """Four clients ask for 256 uncached pairs at a time, as fast as they are answered"""

    def ask() -> None:
        wanted = [
            {"video_id": f"known-{random.randrange(KNOWN):05d}", "user_id": f"x{random.random()}"}
            for _ in range(256)
        ]
        post(world.port, "/v1/queries", {"requests": wanted})

    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(beside(ask))
        yield


MODES: dict[str, tuple[Mode, dict[str, str]]] = {
    "healthy": (healthy, {}),
    "redis_stopped": (redis_stopped, {}),
    "redis_frozen": (redis_frozen, {}),
    "redis_comes_and_goes": (redis_comes_and_goes, {}),
    "redis_slow": (redis_slow, {}),
    "kafka_away": (kafka_away, {}),
    "generator_absent": (generator_absent, {"ONEBAR_API_GENERATE": "0"}),
    "generator_hung": (generator_hung, {"BENCH_PROGRAM": "hung"}),
    "model_swapped": (model_swapped, {}),
    "posting": (posting_load, {}),
    "batches_of_misses": (batches_of_misses, {}),
}


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[None]:
    """Do this again and again, in a thread, up to the end of the block."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                work()
            except OSError:
                time.sleep(0.05)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(15)


def post(port: int, path: str, value: Any) -> int:
    """The status of an answer to a post."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=15) as answer:
        answer.read()
        return int(answer.status)


@contextmanager
def posting(world: World, events: int) -> Iterator[None]:
    """Clients that post so many events at a time."""
    many = [
        {
            "type": "search", "event_id": f"e-{n}", "ts": time.time() - 1, "user_id": f"u{n}",
            "video_id": f"known-{n:05d}", "query": ("hiking boots " * 60)[:500],
        }
        for n in range(events)
    ]  # fmt: skip
    body = json.dumps(many).encode()
    program = [sys.executable, str(HERE / "degraded.py"), "--post", str(world.port)]
    path = world.work / "events.json"
    path.write_bytes(body)
    child = world.children.start("posters", [*program, str(path)], world.work / "posters.log")
    try:
        yield
    finally:
        world.children.end(child)


def post_forever(port: int, body: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(POSTERS):
            stack.enter_context(beside(lambda: post(port, "/v1/events", body)))
        signal.pause()


async def slow_line(port: int, target: str, delay_s: float) -> None:
    """A line to a server on which each answer is on its way for so long."""
    host, to = urlsplit(target).hostname, urlsplit(target).port

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(host, to)
        loop = asyncio.get_running_loop()

        async def ask() -> None:
            while data := await reader.read(65536):
                forth.write(data)

        async def answer() -> None:
            while data := await back.read(65536):
                loop.call_later(delay_s, writer.write, data)

        await asyncio.gather(ask(), answer(), return_exceptions=True)

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        await server.serve_forever()


def serve_hung() -> None:
    """The API with a model that never comes back once it is warm."""
    import api.app
    import api.server
    from onebar.recommending.loading import LoadedModel, load_model

    make = api.app.create_app

    def load(settings: Settings) -> LoadedModel:
        model = load_model(settings)
        generate = model.engine.generate
        begun = time.monotonic()

        def hang(prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()) -> Any:
            if time.monotonic() - begun > 3:
                threading.Event().wait()
            return generate(prompts, k, within)

        model.engine.generate = hang  # type: ignore[method-assign]
        return model

    api.app.create_app = lambda settings, **more: make(settings, load, **more)
    api.server.serve(Settings())


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    mode, settings = MODES[name]
    with tempfile.TemporaryDirectory(prefix="onebar-bench-") as where, Children() as children:
        work = Path(where)
        world = World(work, children, **settings)
        if name == "model_swapped":
            _registry(work / "registry")
            world.settings = {
                "ONEBAR_REGISTRY": str(work / "registry"),
                "ONEBAR_REGISTRY_POLL_S": "0.5",
            }
        if name == "redis_slow":
            port = free_port()
            line = [sys.executable, str(HERE / "degraded.py"), "--line", str(port), world.redis_url]
            children.start("line", line, work / "line.log").wait_until(lambda: _open(port), 10)
            world.redis_url = f"redis://127.0.0.1:{port}/0"
        api = world.start_api()
        fresh = Fresh(NEW)
        singles, batches = (
            Client(work, world.port, kind, requests, fresh=fresh, late_ms=LATE_MS)
            for kind, requests in zip(("singles", "batches"), world.requests(), strict=True)
        )
        if name not in ("generator_hung", "generator_absent"):
            world.warm()
        singles.run(3)
        before = sources(world.port)
        with mode(world):
            single = measured(singles, options.lookups)
            batch = measured(batches, options.batches)
        api.check()
        now = sources(world.port)
        marks = {
            key: round(value - before.get(key, 0)) if not key.startswith("gauge") else value
            for key, value in now.items()
            if value != before.get(key, 0)
        }
        return {
            "mode": name, "what": (mode.__doc__ or "").strip(), "singles": single,
            "batches": batch, "answers": marks, "rss_mb": _rss(api.pid),
        }  # fmt: skip


def _registry(path: Path) -> None:
    """Two checkpoints: the shipped one, which may write one token more in the other."""
    registry = Registry(path)
    card = open_checkpoint(SHIPPED).card
    for most in (22, 23):
        out = path.parent / str(most)
        with staging(out) as staged:
            shutil.copytree(SHIPPED, staged, dirs_exist_ok=True)
            generation = msgspec.structs.replace(card.generation, max_target_tokens=most)
            seal(staged, out, preset="demo", prompt=card.prompt, generation=generation, training={})
        name, _ = registry.add(out)
    registry.promote(name)


def _open(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _rss(pid: int) -> int:
    """MiB of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids)
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines of a table in Markdown, as docs/degraded-modes.md has it."""
    columns = (
        *("mode", "lookups a second, of saturation", "late", "p50, p99, longest (ms)"),
        *("batches a second, of saturation", "late", "p50, p99, longest (ms)", "MiB of the API"),
    )
    yield _row(columns)
    yield _row(["---"] * len(columns))
    for one in found:
        told = [*_columns(one["singles"]), *_columns(one["batches"])]
        yield _row([one["what"], *told, str(one["rss_mb"])])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _columns(told: dict[str, Any]) -> tuple[str, str, str]:
    return (
        f"{told['per_s']:,.0f} of {told['saturation_per_s']:,}",
        f"{told['late']} of {told['asked']:,}",
        ", ".join(f"{told[name]:.0f}" for name in ("p50_ms", "p99_ms", "max_ms")),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--lookups", type=int, default=10_000, help="single lookups of a mode")
    parser.add_argument("--batches", type=int, default=1_000, help="batches of a mode")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each mode")
    parser.add_argument("--line", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--post", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.line:
        return asyncio.run(slow_line(int(options.line[0]), options.line[1], SLOW_S))
    if options.post:
        return post_forever(int(options.post[0]), Path(options.post[1]).read_bytes())
    if options.serve:
        return serve_hung()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: on Debian, apt-get install wrk")
    found = []
    for name in track(options.modes, "measuring", transient=True, disable=options.json):
        found.append(measure(name, options))
        if options.json:
            print(json.dumps(found[-1]), flush=True)
    if not options.json:
        print("\n".join(table(found)))
    return None


if __name__ == "__main__":
    main()
