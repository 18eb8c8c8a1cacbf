"""A primary that Sentinels name: found, lost, and found again where it is then."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_fixtures import SMALL
from support import eventually

from feature_store.keys import Keys
from feature_store.redis.client import Command, StoreUnavailableError, connect, pipelined
from feature_store.redis.login import Login
from feature_store.store import FeatureStore
from onebar.stack.processes import Child, Children
from onebar.stack.servers import free_port

pytestmark = pytest.mark.integration


class Watched:
    """A primary, its replica and two Sentinels, each with a password."""

    def __init__(self, children: Children, directory: Path) -> None:
        self._children = children
        self._directory = directory
        self.ports = [free_port(), free_port()]
        self.sentinels = [free_port(), free_port()]
        login = ("--requirepass", "data", "--masterauth", "data")
        quick = ("--repl-diskless-sync-delay", "0", "--save", "")
        self.nodes = [
            self._start(f"redis-{number}", port, *login, *quick)
            for number, port in enumerate(self.ports)
        ]

    def _start(self, name: str, port: int, *options: str) -> Child:
        home = self._directory / name
        home.mkdir()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
        return self._children.start(name, [*command, *options], home / "log")

    def watch(self) -> None:
        """Have the Sentinels watch."""
        for number, port in enumerate(self.sentinels):
            home = self._directory / f"sentinel-{number}"
            home.mkdir()
            (home / "sentinel.conf").write_text(
                f"port {port}\nbind 127.0.0.1\ndir {home}\nrequirepass watch\n"
                "sentinel sentinel-pass watch\n"
                f"sentinel monitor mymaster 127.0.0.1 {self.ports[0]} 2\n"
                "sentinel auth-pass mymaster data\n"
                "sentinel down-after-milliseconds mymaster 500\n"
                "sentinel failover-timeout mymaster 3000\n"
            )
            command = ["redis-server", str(home / "sentinel.conf"), "--sentinel"]
            self._children.start(f"sentinel-{number}", command, home / "log")

    @property
    def url(self) -> str:
        where = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{where}/mymaster/0"


@pytest.fixture
def watched(servers: Any, tmp_path: Path) -> Iterator[Watched]:
    if servers.embedded:
        pytest.skip("has servers of its own, and needs no second run")
    if shutil.which("redis-server") is None:
        pytest.fail("redis-server is not installed", pytrace=False)
    with Children() as children:
        yield Watched(children, tmp_path)


async def asked(port: int, password: str, *words: str) -> Any:
    """One command, of one server. Raises `StoreUnavailableError`."""
    client = connect(f"redis://127.0.0.1:{port}", timeout_s=2.0, login=Login(password=password))
    try:
        [reply] = await pipelined(client, [Command(words[0], (), words[1:])])
        return reply
    finally:
        await client.aclose()


async def tried(*arguments: str | int) -> Any:
    try:
        return await asked(*arguments)  # type: ignore[arg-type]
    except StoreUnavailableError:
        return None


async def test_the_primary_is_followed_through_a_failover(watched: Watched) -> None:
    first, second = watched.ports
    await eventually(lambda: tried(first, "data", "PING"))
    await eventually(lambda: tried(second, "data", "REPLICAOF", "127.0.0.1", str(first)))

    async def replicates() -> bool:
        told = await tried(first, "data", "INFO", "replication")
        return told is not None and b"state=online" in told

    await eventually(replicates)
    watched.watch()

    async def both_know() -> bool:
        told = [await tried(port, "watch", "INFO", "sentinel") for port in watched.sentinels]
        return all(each and b"slaves=1,sentinels=2" in each for each in told)

    await eventually(both_know)

    login = Login(password="data", sentinel_password="watch")
    store = FeatureStore(connect(watched.url, timeout_s=1.0, login=login), Keys("s"), SMALL)
    nobody = FeatureStore(
        connect(watched.url.replace("mymaster", "other"), timeout_s=1.0, login=login), Keys(), SMALL
    )
    try:
        await store.note_lost("something")
        await pipelined(store.client, [Command("WAIT", (), (1, 2000))])
        with pytest.raises(StoreUnavailableError, match="the Sentinels name no primary"):
            await nobody.probe()

        watched.nodes[0].kill_group()
        with pytest.raises(StoreUnavailableError):
            await store.probe()

        async def back() -> bool:
            try:
                return await store.probe() == "something"
            except StoreUnavailableError:
                return False

        await eventually(back, 20.0)
        assert b"role:master" in await asked(second, "data", "INFO", "replication")
    finally:
        await asyncio.gather(store.close(), nobody.close())
