"""What the benchmark of degraded modes calls saturation."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def saturation() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("saturation", BENCHMARKS / "saturation.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["saturation"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@given(most=st.floats(1, 1e5), part=st.floats(0, 1.2), steps=st.integers(1, 6))
def test_the_highest_rate_that_holds_is_found(
    saturation: ModuleType, most: float, part: float, steps: int
) -> None:
    limit, tried = part * most, []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = saturation.highest(holds, most, halvings=5, steps=steps)
    assert len(tried) <= 6 + steps
    if limit >= most / 2**5:
        assert found <= limit
        assert min(limit, most) <= found * (1 + 2.0**-steps) * (1 + 1e-9)
    else:
        assert found == 0


@pytest.mark.parametrize(
    ("per_s", "shed", "holds"),
    [
        (1000.0, 0.0, True),
        (950.0, 0.0, True),
        (949.0, 0.0, False),  # it does not keep up
        (1000.0, 0.03, True),
        (1000.0, 0.031, False),  # more is shed than at a light load
    ],
)
def test_a_rate_is_held(saturation: ModuleType, per_s: float, shed: float, holds: bool) -> None:
    def told(rate: float, share: float) -> object:
        return saturation.Told(
            per_s=rate, asked=1, late=0, refused=0, broken=0, shed_share=share,
            mean_ms=1.0, p50_ms=1.0, p99_ms=1.0, max_ms=1.0,
        )  # fmt: skip

    assert saturation.held(1000.0, told(per_s, shed), told(50.0, 0.02)) is holds
