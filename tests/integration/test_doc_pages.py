"""What the pages of the documents say to type, typed: shell and Python against one local stack.

Every block that is not marked (`<!-- not run: … -->`) runs as it stands, page by page, in a
directory that holds what the page takes for granted. Addresses and sizes alone are others.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, SHELL, blocks, name, prompted
from feed_tour import serving, tour, without_onebar
from forked_cli import caller
from msgspec import Struct
from python_page import PAGE, parts
from support import Stack, eventually_sync

import onebar
from onebar.generator.checkpoint import SHIPPED
from onebar.stack.processes import Children
from onebar.stack.servers import free_port

pytestmark = pytest.mark.integration

DOCS = ROOT / "docs"
FORKED = Path(__file__).parents[1] / "helpers" / "forked_cli.py"
SMALLER = {
    "--events 1000000": "--events 500",
    "--events 20000": "--events 200",
    "--events 8000": "--events 200",
    "--out head.jsonl": "--out head.jsonl --events 500",
}
PREAMBLE = """
pip() { :; }  # it is all there
curl() { command curl --fail-with-body "$@"; }
"""


class Place(Struct):
    """A stack, the commands, and a small world: a log, its archive, a checkpoint."""

    stack: Stack
    env: dict[str, str]
    world: Path
    model: str = ""

    @property
    def url(self) -> str:
        """The API's. Where a part of the stack has ended, this fails and says why."""
        assert self.stack.up()
        return self.stack.url

    def sh(self, script: str, directory: Path) -> str:
        """What the script prints; fails with all of it where a command does."""
        port = self.url.rpartition(":")[2]
        script = re.sub(r"\b(localhost|127\.0\.0\.1):808[01]\b", rf"127.0.0.1:{port}", script)
        script = script.replace("/srv/onebar", str(directory)).replace("demo-1a2b3c4d", self.model)
        for said, done in SMALLER.items():
            script = script.replace(said, done)
        found = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", PREAMBLE + script],
            cwd=directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert found.returncode == 0, f"{script}\n{found.stdout}\n{found.stderr}"
        return found.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("pages")
    stack = Stack(root, ONEBAR_PARTITIONS="1", ONEBAR_LATE_AFTER_S="600")
    with Children() as children:
        try:
            command = [sys.executable, str(FORKED), str(root / "socket")]
            server = children.start("onebar", command, root / "forked.log")
            binaries = root / "bin"
            binaries.mkdir()
            (binaries / "onebar").write_text(caller(str(root / "socket")))
            (binaries / "onebar").chmod(0o755)
            server.wait_until((root / "socket").exists, 60)
            eventually_sync(stack.up, 120)
            path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"
            env = {**os.environ, **stack.exports, "PATH": path, "EDITOR": "true"}
            made = Place(stack, env, root / "world")
            made.world.mkdir()
            made.model = made.sh(WORLD, made.world).split()[-1]
            yield made
        finally:
            stack.end()


WORLD = f"""
onebar simulate --out feed.jsonl.zst --events 600 --days 20 --set start_ts=1772500000
onebar simulate --out clicks.jsonl.gz --events 600 --days 20 --set start_ts=1772500000
onebar archive --out archive --log feed.jsonl.zst
mkdir checkpoints && cp -r {SHIPPED} checkpoints/mine
onebar models add checkpoints/mine --registry models
"""

CLICKS = """\
1772500001000\tana\tv1\ttap\twhetstone
1772500002000\tben\tv1\tview\t
"""


def mapping(place: Place, here: Path) -> None:
    """The mapping that the page writes, and rows for it."""
    [toml] = [block.text for block in blocks(DOCS / "mapping.md") if "[table]" in block.text]
    (here / "mine.toml").write_text(toml)
    (here / "clicks.csv").write_text(CLICKS)


def rules(place: Place, here: Path) -> None:
    """A list to import; a video, and what one person asked after it."""
    (here / "blocked.jsonl").write_text('{"rule_id": "b1", "action": "block", "word": "bootleg"}\n')
    title = "Trail shoes, knock off or real?"
    who = {"video_id": "v42", "user_id": "ben"}
    with onebar.Client(place.url, timeout_s=60.0) as client:
        client.send(
            [
                {"type": "video", "video_id": "v42", "title": title},
                {"type": "search", "query": "john smith home", **who},
            ]
        )
        eventually_sync(lambda: "john" in place.sh("onebar inspect video v42 --json", here))


def letters(place: Place, here: Path) -> None:
    """Twenty dead letters: events from the future. And a mapping."""
    mapping(place, here)
    late = {"type": "search", "user_id": "ben", "query": "boots", "ts": time.time() + 1e6}
    lines = (json.dumps({**late, "event_id": f"late{n}"}) + "\n" for n in range(20))
    (here / "late.jsonl").write_text("".join(lines))
    place.sh("onebar replay late.jsonl", here)
    eventually_sync(
        lambda: len(json.loads(place.sh("onebar dead-letters list --json", here))) >= 20
    )


def no_archive(place: Place, here: Path) -> None:
    """The page makes one, of what the topics hold."""
    shutil.rmtree(here / "archive")


GIVEN: dict[str, Callable[[Place, Path], None]] = {
    "docs/archive.md": no_archive,
    "docs/content-safety.md": rules,
    "docs/mapping.md": mapping,
    "docs/operations.md": letters,
}
"""What else a page takes for granted."""

RUN = [
    page
    for page in PAGES
    if name(page) != "docs/commands.md"  # the helps' examples: each stands for itself
    and any(block.language in SHELL and not block.not_run for block in blocks(page))
]


@pytest.mark.parametrize("page", RUN, ids=name)
def test_the_shell_of(page: Path, place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.world, tmp_path, dirs_exist_ok=True)
    GIVEN.get(name(page), lambda *_: None)(place, tmp_path)
    script = ""
    for block in blocks(page):
        if block.language not in SHELL or block.not_run:
            continue
        if block.language != "console":
            script += block.text
            continue
        place.sh(script, tmp_path)
        script = ""
        for command, said in prompted(block):
            assert place.sh(command, tmp_path).strip("\n") == said, command
    place.sh(script, tmp_path)


async def test_the_python_of_python_md(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    _, client = parts()
    program = compile(client.replace("http://127.0.0.1:8080", place.url), str(PAGE), "exec")
    page: dict[str, object] = {"__name__": "page"}
    await asyncio.to_thread(exec, program, page)
    assert isinstance(page["answer"], onebar.Answer)
    assert "user_id" in capsys.readouterr().out  # what the wrong event lacks

    # Many at once, in order; the server takes 256 in one request.
    async with onebar.AsyncClient(place.url, timeout_s=30.0) as both:
        found = await both.queries_many(f"v{n}" for n in range(300))
        assert [answer.video_id for answer in found] == [f"v{n}" for n in range(300)]
        sent = await both.send({"type": "impression", "video_id": f"v{n}"} for n in range(1200))
        assert sent == 1200
        with pytest.raises(onebar.InvalidRequestError) as caught:
            await both.queries("v", k=9999)
        assert [fault.name for fault in caught.value.faults] == ["k"]


@pytest.mark.parametrize("away", [False, True])
def test_the_feed_service_of_the_examples(place: Place, away: bool) -> None:
    port = free_port()
    command = [str(Path(sys.executable).with_name("granian")), "--interface", "asgi", "--port"]
    command += [str(port), "--working-dir", str(ROOT / "examples"), "feed_service:app"]
    url = "http://127.0.0.1:1" if away else place.url
    with serving(command, port, env={**os.environ, "ONEBAR_URL": url}) as app:
        if away:
            without_onebar(app)
        else:
            tour(app, url)
