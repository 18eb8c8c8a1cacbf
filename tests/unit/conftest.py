"""Shared by the unit tests; nothing here starts a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import train_toy

from onebar.checkpoint import Checkpoint, open_checkpoint


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model trained on the toy task: read it, never write to it."""
    directory: Path = tmp_path_factory.mktemp("toy")
    return open_checkpoint(train_toy(directory))
