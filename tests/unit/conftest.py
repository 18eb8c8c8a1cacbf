"""Shared by the unit tests; nothing here starts a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from toy import train_toy

from onebar.generator.checkpoint import Checkpoint, open_checkpoint

# A machine that stalls is no fault of the test which runs just then.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model trained on the toy task: read it, never write to it.

    Trained once; the other processes of pytest-xdist wait for it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory: Path = shared / "toy"
    with FileLock(shared / "toy.lock"):
        trained = directory / "trained"
        if not trained.exists():
            directory.mkdir(exist_ok=True)
            trained.write_text(train_toy(directory).name)
    return open_checkpoint(directory / trained.read_text())
