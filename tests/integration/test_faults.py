"""The short form of `make test-faults`: what can befall OneBar on servers that others use too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.faults import FAULTS, Step
from tests.faults.run import run, settings_of
from tests.faults.world import given_servers, world

pytestmark = pytest.mark.integration

SEED = 7
STEPS = (
    ("redis_silent", "rebalance"),
    ("workers_killed", "redis_slow"),
    ("worker_frozen", "redis_cut"),
)


async def test_after_faults_the_state_is_that_of_the_log(servers: Any, tmp_path: Path) -> None:
    async with given_servers(servers.bootstrap, servers.redis_url) as given:
        assert all(FAULTS[name].can(given) for names in STEPS for name in names)
        settings = settings_of(given, SEED).model_copy(
            update={"idempotent_producer": not servers.embedded}
        )
        async with world(given, settings, tmp_path, seed=SEED, stream=2, generators=1) as made:
            steps = (Step(names, 1.0, SEED + at) for at, names in enumerate(STEPS))
            report = await run(made, SEED, steps, print)
    print(report.text())
    assert report.found == []
    assert report.steps == len(STEPS)
