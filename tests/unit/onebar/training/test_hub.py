"""Models by their name on a hub: fetched from a server here, and what is said without one."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bart_source import bart, byte_level_tokenizer, write_bart

from onebar.generator.checkpoint import CheckpointNotFoundError
from onebar.training.models.hub import fetch
from onebar.training.models.pretrained import load_pretrained

NAME = "someone/bart-mini"
COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs: `/NAME/resolve/main/FILE`."""

    def __init__(self, root: Path, asked: list[str], *args: object) -> None:
        self._root = root
        self._asked = asked
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        name, _, file = self.path.removeprefix("/").partition("/resolve/main/")
        self._asked.append(file)
        path = self._root / name / file
        error = "" if path.is_file() else "EntryNotFound"
        if not (self._root / name).is_dir():
            error = "RepoNotFound"
        data = b"" if error else path.read_bytes()
        self.send_response(404 if error else 200)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def hub(tmp_path: Path, asked: list[str]) -> Iterator[tuple[str, Path]]:
    """Its address, and the directory it serves."""
    root = tmp_path / "hub"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, root, asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_a_model_needs_is_fetched_once(
    hub: tuple[str, Path], asked: list[str], tmp_path: Path
) -> None:
    endpoint, root = hub
    write_bart(root / NAME, bart(415), byte_level_tokenizer())
    (root / NAME / "flax_model.msgpack").write_text("not needed")
    found = fetch(NAME, endpoint=endpoint, cache=tmp_path / "cache")
    assert {path.name for path in found.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    }
    assert load_pretrained(found, tmp_path)[0].config.vocab_size == 417
    asked.clear()
    assert fetch(NAME, endpoint=endpoint, cache=tmp_path / "cache") == found
    assert asked == []


def test_older_files_do(hub: tuple[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    endpoint, root = hub
    path = write_bart(root / NAME, bart(415))
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    raw = byte_level_tokenizer()
    special = {added["content"]: added["id"] for added in raw["added_tokens"]}
    (path / "vocab.json").write_text(json.dumps(raw["model"]["vocab"] | special))
    merges = "\n".join(" ".join(pair) for pair in raw["model"]["merges"])
    (path / "merges.txt").write_text(merges)
    found = fetch(NAME, endpoint=endpoint, cache=tmp_path / "cache")
    assert load_pretrained(found, tmp_path)[0].config.vocab_size == 417


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_model_without_a_needed_file_is_told(
    hub: tuple[str, Path], tmp_path: Path, lost: str
) -> None:
    endpoint, root = hub
    write_bart(root / NAME, bart(415), byte_level_tokenizer())
    (root / NAME / lost).unlink()
    with pytest.raises(CheckpointNotFoundError, match="lacks"):
        fetch(NAME, endpoint=endpoint, cache=tmp_path / "cache")


def test_no_such_model_is_told(hub: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no such model"):
        fetch("no/such-model", endpoint=hub[0], cache=tmp_path / "cache")


def test_without_a_network_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointNotFoundError, match=r"hf download facebook/bart-base --local-dir"
    ):
        fetch("facebook/bart-base", cache=tmp_path / "cache")


def test_without_a_network_the_cache_does(hub: tuple[str, Path], tmp_path: Path) -> None:
    endpoint, root = hub
    write_bart(root / NAME, bart(415), byte_level_tokenizer())
    found = fetch(NAME, endpoint=endpoint, cache=tmp_path / "cache")
    shutil.rmtree(root / NAME)
    assert fetch(NAME, endpoint=endpoint, cache=tmp_path / "cache") == found
