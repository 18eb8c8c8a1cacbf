"""A file is replaced whole or not at all."""

from __future__ import annotations

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
