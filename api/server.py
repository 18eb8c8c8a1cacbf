"""Running the API: granian, from the settings."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from granian import Granian
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels

from api import METRICS_DIRECTORY
from api.http.auth import KeyRing, check_bind, parse_api_keys
from onebar.errors import OneBarError
from onebar.process.garbage import spare_garbage_collection
from onebar.process.logging import configure_logging
from onebar.process.start import begin
from onebar.process.tasks import end_soon
from onebar.process.tracing import check_tracing
from onebar.settings import Settings

if TYPE_CHECKING:  # what counts anything is imported when METRICS_DIRECTORY has been set
    from api.watching.watch import Watchers
if sys.platform != "win32":
    import resource

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 6
"""How long a process may finish what it answers: no answer takes as long, but one whose body is
owed does."""
BACKLOG = 2048
"""Connections that wait to be accepted; the kernel may hold fewer (`net.core.somaxconn`)."""
HEAD_BYTES = 32 * 1024
"""Longest head of a request: what a connection may have this process keep for it."""
SPARE = 0.25
"""Share of connections more than are kept that may be accepted meanwhile."""
FILES = 256
"""Open files that a process needs besides."""
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_LEVELS = {
    "debug": LogLevels.debug,
    "info": LogLevels.warning,  # granian's own start and stop lines are no news
    "warning": LogLevels.warning,
    "error": LogLevels.error,
}


class AddressInUseError(OneBarError, OSError):
    """Something else listens at the address already."""


def serve(settings: Settings) -> None:
    """Answer HTTP until SIGTERM or SIGINT; then finish what is under way, and return.

    Raises `ApiKeyError`, `UnsafeBindError`, `TracingError` and `AddressInUseError` before anything
    is started.
    Port 0 takes a free one; the line `api_listening` in the log names it.
    """
    begin(settings, "api")
    check_tracing()
    check_bind(settings.api_host, KeyRing(parse_api_keys(settings.api_keys)))
    port = free_port(settings.api_host, settings.api_port)
    most = most_connections(settings.api_connections)
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    scheme = "http" if settings.api_tls_certificate is None else "https"
    server = Granian(
        "api.app:app_factory",
        address=settings.api_host,
        port=port,
        interface=Interfaces.ASGI,
        workers=settings.api_workers,
        websockets=False,
        # HTTP/2 is for a proxy in front of it: here one connection could ask hundreds of things.
        http=HTTPModes.http1,
        backlog=BACKLOG,
        backpressure=round(most * (1 + SPARE)),
        http1_settings=HTTP1Settings(
            header_read_timeout=round(settings.api_idle_s * 1000),
            keep_alive=True,
            max_buffer_size=HEAD_BYTES,
        ),
        log_level=_LEVELS[settings.log_level],
        log_access=False,
        ssl_cert=settings.api_tls_certificate,
        ssl_key=settings.api_tls_key,
        ssl_key_password=settings.api_tls_key_password or None,
        ssl_protocol_min=SSLProtocols.tls12,
        ssl_ca=settings.api_tls_client_ca,
        ssl_client_verify=settings.api_tls_client_ca is not None,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_WITHIN_S,
    )
    with tempfile.TemporaryDirectory(prefix="onebar-metrics-") as directory:
        if settings.api_workers > 1:
            os.environ[METRICS_DIRECTORY] = directory
        log.info("api_listening", url=f"{scheme}://{host}:{port}", workers=settings.api_workers)
        server.serve(
            target_loader=partial(_load, settings, port, most, os.getpid()), wrap_loader=False
        )


def _load(settings: Settings, port: int, most: int, parent: int) -> Callable[..., Any]:
    """Runs in each worker."""
    _end_with(parent, signal.SIGKILL)  # nothing listens to SIGTERM yet, and what follows takes long
    from api.app import create_app
    from api.connections import Doorkeeper
    from onebar.recommending.loading import warm_up

    configure_logging(settings.log_level, settings.log_json, "api")
    door = Doorkeeper(port, most=most, idle_s=settings.api_idle_s)

    async def beside() -> None:
        _when_told_to_end(app.state.services.watchers)
        _end_with(parent, signal.SIGTERM)
        await door.watch()

    app = create_app(settings, beside=beside)
    warm_up()
    spare_garbage_collection()
    return app


def _when_told_to_end(watchers: Watchers) -> None:
    """Have what is being watched end when the server is told to: it waits for open answers before
    it says so to the application. And have this process end in time whatever hangs in it, also
    where what started it is gone. The server's own handlers are called as before."""
    loop = asyncio.get_running_loop()

    def chained(signum: int, before: Any) -> None:
        def handle(number: int, frame: Any) -> None:
            end_soon(STOP_WITHIN_S)
            loop.call_soon_threadsafe(watchers.close)
            if callable(before):
                before(number, frame)

        signal.signal(signum, handle)

    for signum in (signal.SIGTERM, signal.SIGINT):
        chained(signum, signal.getsignal(signum))


def _end_with(parent: int, signum: int) -> None:
    """Have Linux send this worker a signal when the process that started it is gone, killed even:
    an orphan would go on serving and hold the port. Raises `SystemExit` where it is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:
            raise SystemExit(1)


def free_port(host: str, port: int) -> int:
    """`port` if nothing listens there, or a free one for 0. Raises `AddressInUseError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AddressInUseError(
                error.errno,
                f"can't listen on {host}:{port} ({error.strerror}); end what listens there, or "
                "set ONEBAR_API_PORT (0 takes a free one)",
            ) from error
        return int(probe.getsockname()[1])


def most_connections(wanted: int) -> int:
    """As many connections as there may be open files for, `wanted` at most; the limit of the
    process is raised to what that needs, as far as it may be."""
    if sys.platform == "win32":
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = int(wanted * (1 + SPARE)) + FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = max(1, int((soft - FILES) / (1 + SPARE)))
    log.warning("few_open_files", limit=soft, connections=most, wanted=wanted)
    return most
