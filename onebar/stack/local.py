"""The local stack: servers, topics and the workers as child processes, ended together."""

from __future__ import annotations

import asyncio
import http.client
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
import urllib.parse
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import structlog
from msgspec import structs

from feature_store.opening import open_store
from feature_store.redis.client import Command, pipelined, scan
from feature_store.store import FeatureStore
from onebar.process.console import progress
from onebar.settings import Settings
from onebar.stack.processes import Child, Children
from onebar.stack.servers import free_port, start_broker, start_valkey
from stream.kafka.producer import EventProducer
from stream.kafka.topics import TOPICS, delete_topics, ensure_configured_topics
from stream.logs.feed import keep_feeding
from stream.logs.files import EventLog, Log
from stream.logs.live_check import CheckReport, LiveCheck
from stream.logs.replay import KafkaSink, Replay
from stream.simulator import Lang, SimulatorConfig, write_log

log = structlog.get_logger(__name__)

WORKERS = ("stream", "generator", "api")
NEIGHBORS = "neighbors"
"""Also started where the settings name an embedder."""
START_TIMEOUT_S = 60.0
STOP_GRACE_S = 8.0
WATCH_EVERY_S = 0.2
KEPT_RUNS = 10
DROP_BATCH = 1000

Result = TypeVar("Result")


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with `settings` as its `ONEBAR_*` variables, and no others."""
    names = {name: f"ONEBAR_{name.upper()}" for name in Settings.model_fields}
    env = {name: value for name, value in os.environ.items() if name not in names.values()}
    return env | variables(settings)


def variables(settings: Settings) -> dict[str, str]:
    """The settings that differ from their defaults, as variables."""
    found = {}
    defaults = Settings.model_construct()
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value != getattr(defaults, name):
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            found[f"ONEBAR_{name.upper()}"] = text
    return found


def new_run_directory() -> Path:
    """A new directory for a run's logs, under the user's cache; old ones are cleared away."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    runs = cache / "onebar" / "runs"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        for old in sorted(runs.iterdir())[: -(KEPT_RUNS - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        directory = runs / name
        directory.mkdir()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="onebar-run-"))
    return directory


class LocalStack:
    """Servers, topics and workers for as long as the block runs: `async with LocalStack(...)`.

    A server that the environment names (`ONEBAR_KAFKA_BOOTSTRAP`, `ONEBAR_REDIS_URL`) is used,
    the other is started. With `own_names` the run has topics, consumer groups and keys of its own,
    which it removes at the end, so that it disturbs nothing else on servers it shares.
    """

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        *,
        own_names: bool,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`settings` are the operator's; `self.settings` is what the workers get."""
        self.run_dir = run_dir
        self.settings = settings
        self.children: dict[str, Child] = {}
        self._own_names = own_names
        self._workers = (*WORKERS, NEIGHBORS) if settings.embedder else WORKERS
        self._say = say
        self._processes = Children()

    @property
    def processes(self) -> Iterator[Child]:
        """All that runs of it: the servers that were started, and the workers."""
        return iter(self._processes)

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://{self.settings.api_host}:{self.settings.api_port}"

    async def __aenter__(self) -> LocalStack:
        """Raises `MissingExtraError`, `ChildError`, `KafkaUnavailableError`, `TopicError`,
        `StoreUnavailableError`; whatever was started has been ended by then.
        """
        self._processes.__enter__()
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def guard(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work`; raises `ChildError` as soon as any child ends before it is done."""
        task = asyncio.create_task(work)
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
            return await task
        finally:
            for started in (task, watch):
                started.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self._processes.check()
            await asyncio.sleep(WATCH_EVERY_S)

    async def _start(self) -> None:
        self._say(f"logs: {self.run_dir}")
        self.settings = self._complete(self.settings)
        await self._check_redis()
        await ensure_configured_topics(self.settings)
        ready = []
        for worker in self._workers:
            settings, path = self.settings, "/healthz"
            if worker == "api":
                port, path = settings.api_port, "/readyz"
            else:
                port = free_port()
                settings = settings.model_copy(
                    update={"metrics_port": port, "metrics_host": "127.0.0.1"}
                )
            child = self._processes.start(
                worker,
                [sys.executable, "-P", "-m", "onebar", worker],
                self.run_dir / f"{worker}.log",
                env=environment(settings),
            )
            self.children[worker] = child
            url = f"http://{settings.api_host if worker == 'api' else '127.0.0.1'}:{port}{path}"
            ready.append(self._await_ready(child, url))
        await self.guard(_all(ready))

    def _complete(self, settings: Settings) -> Settings:
        """Start the servers that nobody named, and choose what is left open."""
        update: dict[str, Any] = {}
        if "ONEBAR_KAFKA_BOOTSTRAP" not in os.environ:
            update["kafka_bootstrap"] = start_broker(self._processes, self.run_dir)
            update["idempotent_producer"] = False
            update["replication_factor"] = 1
            update["fetch_max_wait_ms"] = min(10, settings.fetch_max_wait_ms)
            # A group begins after half of it there.
            update["session_timeout_s"] = min(6.0, settings.session_timeout_s)
            update["heartbeat_interval_s"] = min(2.0, settings.heartbeat_interval_s)
            self._say(f"broker: {update['kafka_bootstrap']} (embedded, in memory)")
        if "ONEBAR_REDIS_URL" not in os.environ:
            update["redis_url"] = start_valkey(self._processes, self.run_dir)
            self._say(f"redis: {update['redis_url']} (embedded, in memory)")
        if self._own_names:
            name = f"onebar-run-{uuid.uuid4().hex[:10]}"
            update = {
                "session_timeout_s": min(10.0, settings.session_timeout_s),
                "heartbeat_interval_s": min(3.0, settings.heartbeat_interval_s),
                **update,
                "namespace": name,
                "topic_prefix": f"{name}.",
                "consumer_group": name,
            }
        if "kafka_bootstrap" in update or self._own_names:
            update["index"] = None  # a snapshot is of one log, and these topics are new
        if settings.api_port == 0:
            update["api_port"] = free_port()
        elif "api_port" not in settings.model_fields_set:
            update["api_port"] = _default_or_free(settings.api_host, settings.api_port)
        return settings.model_copy(update=update)

    async def _check_redis(self) -> None:
        store = self.store()
        try:
            await store.ping()
        finally:
            await store.close()

    def store(self) -> FeatureStore:
        """The run's feature store; close it."""
        return open_store(self.settings)

    async def _await_ready(self, child: Child, url: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        said = ""
        while True:
            status, said = await asyncio.to_thread(_get, url, said)
            if status == 200:
                self._say(f"{child.name}: ready ({url})")
                return
            if time.monotonic() > deadline:
                child.wait_until(lambda: False, 0.0)
            await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        try:
            workers = [child for child in self.children.values() if child in self._processes]
            self._processes.end(*workers, grace_s=STOP_GRACE_S)
            if self._own_names and self.settings.topic_prefix.startswith("onebar-run-"):
                await self._remove_names()
        finally:
            self._processes.stop()

    async def _remove_names(self) -> None:
        """Remove the run's own topics and keys from servers that outlive it."""
        settings = self.settings
        if "ONEBAR_KAFKA_BOOTSTRAP" in os.environ:
            names = [settings.topic_prefix + spec.name for spec in TOPICS]
            try:
                await delete_topics(settings.kafka_bootstrap, names)
            except Exception as error:
                log.warning("topics_left_behind", topics=names, error=str(error))
        if "ONEBAR_REDIS_URL" in os.environ:
            store = self.store()
            try:
                await drop_keys(store)
            except Exception as error:
                log.warning("keys_left_behind", namespace=settings.namespace, error=str(error))
            finally:
                await store.close()


async def drop_keys(store: FeatureStore) -> None:
    """Remove every key of the store's namespace and version."""
    names = [name async for name in scan(store.client, store.keys.prefix)]
    for start in range(0, len(names), DROP_BATCH):
        batch = names[start : start + DROP_BATCH]
        await pipelined(store.client, [Command("UNLINK", (name,)) for name in batch])


async def _all(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


def _get(url: str, said: str) -> tuple[int, str]:
    """Status and text of an HTTP answer; (0, said) where there is none."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=3)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        return response.status, response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, said
    finally:
        connection.close()


def _default_or_free(host: str, port: int) -> int:
    """`port` where nobody listens on it, else a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return free_port()
    return port


async def stay_up(settings: Settings, run_dir: Path, say: Callable[[str], None]) -> None:
    """Run the stack until cancelled; prints how to point other commands at it."""
    async with LocalStack(settings, run_dir, own_names=False, say=say) as stack:
        say(f"API: {stack.url}/docs")
        for name, value in variables(stack.settings).items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        say("Ctrl-C ends all of it")
        await stack.guard(_forever())


class Demo:
    """The local stack with a feed: for people to look at, or to be checked."""

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        *,
        log: Log | None,
        lang: Lang,
        events: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        """Without a `log` one of `events` events is simulated."""
        self._settings = settings.model_copy(update={"api_keys": (), "rate_limit_per_s": 0.0})
        self._run_dir = run_dir
        self._log = log
        self._simulated = (lang, events, seed)
        self._say = say

    async def show(self, *, speed: float | None, rate: float) -> None:
        """Feed the log, then keep the feed alive, until cancelled."""
        log = await self._open_log(recent=True)
        async with self._stack() as stack:
            settings = stack.settings
            producer = EventProducer.of(settings)
            async with producer:
                self._say(f"\n    The page: {stack.url}/\n    The API:  {stack.url}/docs\n")
                with progress("feed") as update:
                    replay = Replay(
                        log,
                        KafkaSink(producer),
                        speed=speed,
                        on_progress=lambda at: update(log.fraction, f"{at.events:,} events"),
                    )
                    done = await stack.guard(replay.run())
                self._say(f"{done.events:,} events are in; {rate:g} a second from now on")
                self._say("Ctrl-C ends all of it")
                await stack.guard(keep_feeding(log, producer, rate) if rate else _forever())

    async def check(self) -> tuple[CheckReport, list[str]]:
        """Feed the log, compare, measure; the numbers, and what is wrong."""
        log = await self._open_log(recent=False)
        async with self._stack() as stack:
            with progress("check") as update:
                check = LiveCheck(
                    stack.settings,
                    stack.url,
                    log,
                    say=self._say,
                    on_progress=lambda fraction: update(fraction, ""),
                )
                return await stack.guard(check.report())

    def _stack(self) -> LocalStack:
        return LocalStack(self._settings, self._run_dir, own_names=True, say=self._say)

    async def _open_log(self, *, recent: bool) -> Log:
        """The log given, or a simulated one: always the same, or ending now, so that anchors have
        the weight of fresh ones.
        """
        if self._log is not None:
            next(self._log.entries(), None)  # an empty log is told before anything is started
            return self._log
        lang, events, seed = self._simulated
        config = SimulatorConfig(lang=lang, events=events, seed=seed)
        if recent or config.end_ts > time.time():
            config = structs.replace(config, start_ts=time.time() - config.days * 86400 - 60)
        path = self._run_dir / "feed.jsonl"
        await asyncio.to_thread(write_log, config, path)
        self._say(f"simulated {events:,} events: {path}")
        return EventLog(path)


async def _forever() -> None:
    await asyncio.Event().wait()
