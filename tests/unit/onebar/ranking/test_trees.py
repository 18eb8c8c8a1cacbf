"""Trees from LightGBM give in numpy what LightGBM gives, and a damaged file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onebar.ranking.trees import Trees, TreesError

NAMES = ("a", "b", "c")


def grown(
    rows: NDArray[np.float32], labels: NDArray[np.int8], trees: int = 8, leaves: int = 6
) -> Any:
    import lightgbm

    parameters = {
        "objective": "binary", "num_leaves": leaves, "min_data_in_leaf": 2, "verbosity": -1,
        "num_threads": 1, "learning_rate": 0.3,
    }  # fmt: skip
    data = lightgbm.Dataset(rows, labels, feature_name=list(NAMES))
    return lightgbm.train(parameters, data, num_boost_round=trees)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from((0.0, 0.3)), st.sampled_from((6, 9, 17, 33, 64)))
def test_numpy_gives_what_lightgbm_gives(seed: int, absent: float, leaves: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, 3)).astype(np.float32).round(1)
    rows[rng.random(rows.shape) < absent] = np.nan
    labels = (np.nan_to_num(rows[:, 0]) + rng.normal(size=200) > 0).astype(np.int8)
    booster = grown(rows, labels, leaves=leaves)
    trees = Trees.of_lightgbm(booster.dump_model())
    asked = rng.normal(size=(50, 3)).astype(np.float32).round(1)
    asked[rng.random(asked.shape) < 0.2] = np.nan
    assert trees(asked) == pytest.approx(booster.predict(asked, raw_score=True), abs=1e-12)
    # Alone or in company: the same to the last bit.
    assert [float(trees(row[None])[0]) for row in asked] == trees(asked).tolist()


def make(path: Path) -> Trees:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(100, 3)).astype(np.float32)
    trees = Trees.of_lightgbm(
        grown(rows, (rows[:, 1] > 0).astype(np.int8), 3).dump_model(), {"beam": 32}
    )
    trees.save(path)
    return trees


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = make(tmp_path / "trees")
    read = Trees.load(tmp_path / "trees")
    assert (read.digest, len(read), read.settings) == (made.digest, 3, {"beam": 32})
    rows = np.array([[0.1, np.nan, 2.0]], dtype=np.float32)
    assert read(rows).tolist() == made(rows).tolist()


def test_trees_of_other_features_are_refused(tmp_path: Path) -> None:
    trees = make(tmp_path / "trees")
    trees.check(NAMES)
    with pytest.raises(TreesError, match=r"other features.*d"):
        trees.check(("a", "b", "d"))
    with pytest.raises(TreesError, match="their order"):
        trees.check(("b", "a", "c"))


@pytest.mark.parametrize("part", ["left", "right", "roots", "feature", "threshold", "absent_left"])
def test_a_damaged_file_is_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "trees"
    make(path)
    file = msgspec.msgpack.decode(path.read_bytes())
    for broken in (file[part][:-1], b"\xff" * len(file[part]) if part != "threshold" else b""):
        if part == "absent_left" and broken.startswith(b"\xff"):
            continue
        path.write_bytes(msgspec.msgpack.encode({**file, part: broken}))
        with pytest.raises(TreesError):
            Trees.load(path)
    path.write_bytes(b"no trees")
    with pytest.raises(TreesError, match="holds no trees"):
        Trees.load(path)
    with pytest.raises(TreesError):
        Trees.load(tmp_path / "nowhere")
