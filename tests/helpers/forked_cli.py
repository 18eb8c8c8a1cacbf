"""`onebar` for scripts that call it often: each call is forked from one process that has loaded it.

    python forked_cli.py SOCKET        serves until it is ended; prints `ready`
    caller(SOCKET)                     the program that asks it, to be called `onebar`

A call has the arguments, the working directory, the environment and the standard streams of
its caller, and its exit status is the caller's.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import socket
import sys
import traceback

LOADED = (
    *("feature_store.opening", "onebar.client", "onebar.recommending.loading", "onebar.settings"),
    *("pyarrow.dataset", "pyarrow.parquet", "rich.progress", "stream.archive", "stream.dataset"),
    *("stream.kafka.producer", "stream.logs.dead_letters", "stream.logs.replay"),
    *("stream.mapping", "stream.simulator", "stream.simulator.loop"),
)
"""What most commands load; none of it starts a thread."""

CALLER = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    answer = server.recv(1)
sys.exit(answer[0] if answer else 255)
"""


def caller(path: str) -> str:
    """The text of the program."""
    return CALLER.format(python=sys.executable, path=path)


def serve(path: str) -> None:
    for module in LOADED:
        importlib.import_module(module)
    from onebar.cli.main import main

    gc.freeze()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            asked, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _run(asked, main)
            asked.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _run(asked: socket.socket, main: object) -> None:
    assert callable(main)
    _, streams, _, _ = socket.recv_fds(asked, 1, 3)
    said = b""
    while part := asked.recv(1 << 16):
        said += part
    arguments, directory, environment = json.loads(said)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["onebar", *arguments]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    asked.sendall(bytes([status & 0xFF]))
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
