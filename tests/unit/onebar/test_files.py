"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onebar.process.files import replace_file, replacing


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_in_one_go(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "card.json"
    replace_file(path, b"old", durable=durable)
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_nothing_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    replace_file(path, b"old")
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_bytes("half")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(pipe.read_bytes)
        replace_file(pipe, b"said", durable=False)
        assert read.result(5) == b"said"
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_directory_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IsADirectoryError, match="a file was to be named"):
        replace_file(out, b"said")
    assert os.listdir(tmp_path) == ["out"]
