"""The TypeScript package: built from nothing, its own tests, and a running server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest
from support import Workers

from onebar.settings import Settings
from onebar.stack.servers import free_port

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]

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
    shutil.copy(SOURCE.parents[1] / "docs" / "openapi.json", tmp_path / "docs")
    await run("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", cwd=package)
    await run("npm", "run", "generate", cwd=package)
    types = Path("src", "schema.d.ts")
    stale = "run `make schemas`, and `npm run generate` in clients/typescript"
    assert (package / types).read_text() == (SOURCE / types).read_text(), stale
    await run("npm", "run", "build", cwd=package)
    await workers.ready(api, served)
    url = f"http://127.0.0.1:{served.api_port}"
    said = await run("node", "--test", "test/", cwd=package, ONEBAR_URL=url)
    counted = dict(re.findall(r"^# (pass|fail|skipped) (\d+)$", said, re.MULTILINE))
    assert counted["fail"] == counted["skipped"] == "0", said[-3000:]
    assert int(counted["pass"]) >= 8
