"""The TypeScript package: built from nothing, its own tests, and a running server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest
from doc_pages import blocks
from feed_tour import serving, tour, without_onebar
from support import Workers

from onebar.settings import Settings
from onebar.stack.servers import free_port

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]

NOWHERE = "http://127.0.0.1:1"
SOURCE = Path(__file__).parents[2] / "clients" / "typescript"


async def run(*command: str, cwd: Path, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    said = out.decode(errors="replace")
    assert process.returncode == 0, said[-3000:]
    return said


async def test_it_builds_and_speaks_to_a_server(
    settings: Settings, workers: Workers, tmp_path: Path
) -> None:
    served = settings.model_copy(update={"api_port": free_port()})
    workers.start("stream")
    api = workers.start("api", settings=served)
    package = tmp_path / "clients" / "typescript"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "examples").mkdir()
    for file in ("docs/openapi.json", "examples/videos.jsonl"):
        shutil.copy(SOURCE.parents[1] / file, tmp_path / file)
    await run("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", cwd=package)
    await run("npm", "run", "generate", cwd=package)
    types = Path("src", "schema.d.ts")
    stale = "run `make schemas`, and `npm run generate` in clients/typescript"
    assert (package / types).read_text() == (SOURCE / types).read_text(), stale
    # What the page says is typed right: it is built with the examples.
    [page] = [b.text for b in blocks(package / "README.md") if b.language == "ts"]
    (package / "examples" / "readme.ts").write_text(page)
    await run("npm", "run", "build", cwd=package)
    await workers.ready(api, served)
    url = f"http://127.0.0.1:{served.api_port}"
    said = await run("node", "--test", "test/", cwd=package, ONEBAR_URL=url)
    counted = dict(re.findall(r"^# (pass|fail|skipped) (\d+)$", said, re.MULTILINE))
    assert counted["fail"] == counted["skipped"] == "0", said[-3000:]
    assert int(counted["pass"]) >= 8
    await asyncio.to_thread(use_the_feed_service, package, url)


def use_the_feed_service(package: Path, url: str) -> None:
    """The example, before this server and before none."""
    for onebar in (url, NOWHERE):
        port = free_port()
        env = {**os.environ, "ONEBAR_URL": onebar, "PORT": str(port)}
        with serving(["node", "dist/examples/feed-service.js"], port, cwd=package, env=env) as app:
            if onebar is NOWHERE:
                without_onebar(app)
            else:
                tour(app, url)
