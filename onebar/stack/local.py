"""The local stack: servers, topics and the workers as child processes, ended together."""

from __future__ import annotations

import asyncio
import http.client
import socket
import sys
import time
import urllib.parse
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import structlog

from feature_store.opening import open_store
from feature_store.store import FeatureStore
from onebar.errors import UsageError
from onebar.settings import Settings
from onebar.stack.drop import drop_keys
from onebar.stack.processes import Child, Children
from onebar.stack.servers import free_port, start_broker, start_valkey
from onebar.stack.variables import environment
from stream.kafka.topics import TOPICS, delete_topics, ensure_topics

log = structlog.get_logger(__name__)

WORKERS = ("stream", "generator", "api")
NEIGHBORS = "neighbors"
"""Also started where the settings name an embedder."""
START_TIMEOUT_S = 60.0
STOP_GRACE_S = 8.0
WATCH_EVERY_S = 0.2

Result = TypeVar("Result")


class PortTakenError(UsageError, OSError):
    """Another program listens on the port that was asked for."""


class LocalStack:
    """Servers, topics and workers for as long as the block runs: `async with LocalStack(...)`.

    A server that the settings name (`kafka_bootstrap`, `redis_url`: given, or read from the
    environment) is used, the other is started. With `own_names` the run has topics, consumer
    groups and keys of its own, which it removes at the end, so that it disturbs nothing else on
    servers it shares.
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
        self._uses_kafka = "kafka_bootstrap" in settings.model_fields_set
        self._uses_redis = "redis_url" in settings.model_fields_set
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
        """Raises `MissingExtraError`, `ChildError`, `PortTakenError`, `KafkaUnavailableError`,
        `TopicError`, `StoreUnavailableError`; whatever was started has been ended by then.
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
        await ensure_topics(self.settings)
        ready = []
        ports = {worker: free_port() for worker in self._workers if worker != "api"}
        targets = tuple(f"{worker}=127.0.0.1:{port}" for worker, port in ports.items())
        for worker in self._workers:
            settings, path = self.settings, "/healthz"
            if worker == "api":
                port, path = settings.api_port, "/readyz"
                settings = settings.model_copy(update={"metrics_targets": targets})
            else:
                port = ports[worker]
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
        if not self._uses_kafka:
            update["kafka_bootstrap"] = start_broker(self._processes, self.run_dir)
            update["idempotent_producer"] = False
            update["replication_factor"] = 1
            update["fetch_max_wait_ms"] = min(10, settings.fetch_max_wait_ms)
            # A group begins after half of it there.
            update["session_timeout_s"] = min(6.0, settings.session_timeout_s)
            update["heartbeat_interval_s"] = min(2.0, settings.heartbeat_interval_s)
            self._say(f"broker: {update['kafka_bootstrap']} (embedded, in memory)")
        if not self._uses_redis:
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
        if not self._uses_kafka or self._own_names:
            update["index"] = None  # a snapshot is of one log, and these topics are new
        if settings.api_port == 0:
            update["api_port"] = free_port()
        elif "api_port" not in settings.model_fields_set:
            update["api_port"] = _default_or_free(settings.api_host, settings.api_port)
        elif not _is_free(settings.api_host, settings.api_port):
            raise PortTakenError(
                f"something listens on {settings.api_host}:{settings.api_port} already; end it, or "
                "name another port (0 takes a free one)"
            )
        return settings.model_copy(update=update)

    async def _check_redis(self) -> None:
        store = self.store()
        try:
            await store.probe()
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
                raise child.late(START_TIMEOUT_S)
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
        if self._uses_kafka:
            names = [settings.topic_prefix + spec.name for spec in TOPICS]
            try:
                await delete_topics(settings, names)
            except Exception as error:
                log.warning("topics_left_behind", topics=names, error=str(error))
        if self._uses_redis:
            store = self.store()
            try:
                await drop_keys(store)
            except Exception as error:
                log.warning("keys_left_behind", namespace=settings.namespace, error=str(error))
            finally:
                await store.close()


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
    return port if _is_free(host, port) else free_port()


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
