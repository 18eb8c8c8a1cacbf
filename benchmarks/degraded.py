"""What is answered, and how late, while something is away, slow, hung or too much.

    python benchmarks/degraded.py                 # every mode: the table of docs/degraded-modes.md
    python benchmarks/degraded.py --modes redis_stopped posting --lookups 2000 --json

For each mode the local servers (Valkey, a Kafka broker) and one API process are started, 200
connections of wrk (the Debian package wrk) find out how much is answered at most, and then ask at
half of that: single lookups and batches of 64, eight parts of them cached pairs, one of videos that
are known, one of videos that nobody has heard of. Late is an answer that takes more than its budget
and 20 ms, as the client sees it, on a machine that it shares with the servers. Answers are counted
by their `source`, `fallback` and `reason`, by the API's own metrics.
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
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from lookup import answers, fill, latency_ms, pairs_of, rate_of
from rich.console import Console
from rich.progress import track
from rich.table import Table

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

CONNECTIONS = 200
BATCH = 64
BUDGET_MS = 80
LATE_MS = BUDGET_MS + 20
KNOWN = 2000
POSTERS = 8
SLOW_S = 0.15
HERE = Path(__file__).parent
SCRIPT = """
local lines = {}
for line in io.lines("%(requests)s") do lines[#lines + 1] = line end
local at = math.random(#lines)
request = function()
  at = at %% #lines + 1
  return wrk.format(%(call)s)
end
%(delay)s
done = function(summary, latency, requests)
  local late = 0
  for i = 1, #latency do
    local value, count = latency(i)
    if value > %(late_ms)d * 1000 then late = late + count end
  end
  print("late: " .. late .. " of " .. summary.requests .. ", refused: " .. summary.errors.status
    .. ", broken: " .. summary.errors.read + summary.errors.write + summary.errors.timeout
    .. ", max: " .. latency.max)
end
"""


class Client:
    """wrk, with the requests of a mode."""

    def __init__(self, work: Path, port: int, name: str, requests: Sequence[str]) -> None:
        self._port = port
        self._file = work / f"{name}.requests"
        self._file.write_text("\n".join(requests) + "\n")
        self._script = work / f"{name}.lua"
        self._call = '"GET", lines[at]'
        if name == "batches":
            self._call = '"POST", "/v1/queries", {["Content-Type"] = "application/json"}, lines[at]'

    def run(self, seconds: float, pause_ms: float = 0.0) -> str:
        """Ask for so long, with pauses drawn by chance between a connection's requests."""
        delay = ""
        if pause_ms:
            delay = f"function delay() return math.random(0, {max(1, round(2 * pause_ms))}) end"
        told = {
            "requests": self._file, "call": self._call, "delay": delay, "late_ms": LATE_MS,
        }  # fmt: skip
        self._script.write_text(SCRIPT % told)
        command = [
            "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "10s",
            "--latency", "-s", str(self._script), f"http://127.0.0.1:{self._port}",
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def measured(self, count: int) -> dict[str, float]:
        """At least so many requests at half of what is answered at most."""
        most = rate_of(self.run(2))
        half = most / 2
        pause_ms = 1000 * CONNECTIONS / half
        said = self.run(max(4.0, count / half * 1.3), pause_ms)
        found = re.search(
            r"late: (\d+) of (\d+), refused: (\d+), broken: (\d+), max: ([\d.]+)", said
        )
        assert found is not None, said
        late, asked, refused, broken = (int(found[n]) for n in range(1, 5))
        return {
            "at_most_per_s": round(most), "per_s": round(rate_of(said)), "asked": asked,
            "late": late, "refused": refused, "broken": broken,
            "p50_ms": latency_ms(said, "50%"), "p99_ms": latency_ms(said, "99%"),
            "max_ms": round(float(found[5]) / 1000, 1),
        }  # fmt: skip


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
            (VideoPut(f"known-{n:05d}", 1.0, f"e{n}", VideoText(title=_title(n))), None)
            for n in range(KNOWN)
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
            kind = n % 10
            if kind < 8:
                wanted.append(self.pairs[draw.randrange(len(self.pairs))])
            elif kind == 8:
                wanted.append((f"known-{draw.randrange(KNOWN):05d}", f"u{n}"))
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


def _title(n: int) -> str:
    words = ("waterproof", "hiking", "boots", "camping", "tent", "winter", "jacket", "kitchen")
    return " ".join(words[(n >> shift) % len(words)] for shift in (0, 3, 6, 9)) + f" {n}"


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
        singles, batches = world.requests()
        Client(work, world.port, "warm", singles).run(3)
        if name == "generator_hung":
            time.sleep(3)
        before = sources(world.port)
        with mode(world):
            single = Client(work, world.port, "singles", singles).measured(options.lookups)
            batch = Client(work, world.port, "batches", batches).measured(options.batches)
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
    table = Table(
        *("mode", "lookups/s", "late", "p50", "p99", "max"),
        *("batches/s", "late", "p99", "max", "MiB"),
    )
    for name in track(options.modes, "measuring", transient=True, disable=options.json):
        found = measure(name, options)
        if options.json:
            print(json.dumps(found), flush=True)
        one, many = found["singles"], found["batches"]
        table.add_row(
            found["what"],
            f"{one['per_s']:,}", f"{one['late']} of {one['asked']:,}",
            f"{one['p50_ms']} ms", f"{one['p99_ms']} ms", f"{one['max_ms']} ms",
            f"{many['per_s']:,}", f"{many['late']} of {many['asked']:,}",
            f"{many['p99_ms']} ms", f"{many['max_ms']} ms", str(found["rss_mb"]),
        )  # fmt: skip
    if not options.json:
        Console(width=200).print(table)
    return None


if __name__ == "__main__":
    main()
