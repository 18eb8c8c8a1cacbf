"""How soon a command says something, and a process is ready.

    python benchmarks/start.py
    python benchmarks/start.py --rounds 1

Turn by turn: `python -c pass`, `onebar --help`, and the API from its start until `/readyz` is 200,
with the shipped checkpoint loaded, beside a FastAPI application of one route on the same server
until that answers. The broker and Valkey run already. Prints medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
from rich.progress import track

from onebar.stack.processes import Children
from onebar.stack.servers import free_port, start_broker, start_valkey

WITHIN_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onebar-") as directory, Children() as children:
        work = Path(directory)
        env = {
            **os.environ,
            "ONEBAR_REDIS_URL": start_valkey(children, work),
            "ONEBAR_KAFKA_BOOTSTRAP": start_broker(children, work),
            "ONEBAR_IDEMPOTENT_PRODUCER": "0",
            "ONEBAR_LOG_LEVEL": "error",
        }
        onebar = [sys.executable, "-P", "-m", "onebar"]
        body = work / "body.json"
        body.write_text("{}")
        app = str(Path(__file__).with_name("static_apps.py"))
        static = [sys.executable, app, "fastapi", "--body", str(body), "--port"]
        things: dict[str, Callable[[], float]] = {
            "python": lambda: ended([sys.executable, "-c", "pass"], env),
            "help": lambda: ended([*onebar, "--help"], env),
            "fastapi_ready": lambda: ready(children, work, [*static], env, "/v1/queries"),
            "api_ready": lambda: ready(children, work, [*onebar, "api", "--port"], env, "/readyz"),
        }
        for measure in things.values():
            measure()  # files are in memory from here on
        took: dict[str, list[float]] = {name: [] for name in things}
        for _ in track(range(options.rounds), description="starting", transient=True):
            for name, measure in things.items():
                took[name].append(measure())
    medians = {name: round(statistics.median(times), 3) for name, times in took.items()}
    print(json.dumps({"rounds": options.rounds, "seconds": medians}))


def ended(command: Sequence[str], env: Mapping[str, str]) -> float:
    """Seconds a command takes to its end."""
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def ready(
    children: Children, work: Path, command: Sequence[str], env: Mapping[str, str], path: str
) -> float:
    """Seconds until a server, told its port behind `command`, answers `path` with 200."""
    port = free_port()
    began = time.perf_counter()
    child = children.start("server", [*command, str(port)], work / "log", env)
    child.wait_until(lambda: answers(f"http://127.0.0.1:{port}{path}"), WITHIN_S)
    took = time.perf_counter() - began
    children.end(child)
    return took


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
