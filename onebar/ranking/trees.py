"""Gradient-boosted trees in flat arrays: grown by LightGBM, evaluated by numpy alone.

No row goes down a tree. All nodes of all trees are asked at once, and each that a row fails strikes
the leaves on its left out, as bits of a number; the first leaf that is left is where the row would
have come (QuickScorer, Lucchese et al. 2015). A hundred candidates through a hundred trees take
about a millisecond and need no library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.process.files import replace_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
MOST_LEAVES = 64
"""Of a tree: the bits of a number."""
_ALL = (1 << 64) - 1
_KINDS = ("u1", "u2", "u4", "u8")
if TYPE_CHECKING:
    _Bits = tuple[
        NDArray[np.intp], NDArray[np.float32], NDArray[np.unsignedinteger[Any]], NDArray[np.float64]
    ]


class TreesError(OneBarError, ValueError):
    """A file of trees that can't be used."""


class _File(Struct, frozen=True):
    """Nodes of all trees in one row: a split has `feature` >= 0 and goes `left` where the value is
    at most `threshold`, or is absent and `absent_left`; a leaf has -1 and its value in
    `threshold`."""

    format: int
    features: tuple[str, ...]
    roots: bytes
    feature: bytes
    threshold: bytes
    left: bytes
    right: bytes
    absent_left: bytes
    depth: int
    settings: dict[str, Any] = {}


class Trees:
    """A sum of regression trees over named features. Immutable; safe in several threads."""

    def __init__(self, file: _File) -> None:
        """`load` and `of_lightgbm` make one."""
        import numpy as np

        self._file = file
        self.features = file.features
        self.settings: Mapping[str, Any] = file.settings
        self.digest = hashlib.sha256(msgspec.msgpack.encode(file)).hexdigest()[:8]
        self._roots = np.frombuffer(file.roots, dtype="<i4")
        self._trees = _bits(file)

    def __len__(self) -> int:
        return len(self._roots)

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The sum of each row (n, features); NaN is what is absent."""
        import numpy as np

        columns, thresholds, strikes, leaves = self._trees
        many, trees, nodes = len(rows), len(leaves), columns.shape[1]
        if not trees or not many:
            return np.zeros(many)
        values = np.asarray(rows, dtype=np.float32).T
        # NaN is less than nothing; where it is to go left, it stands as the least there is.
        known = np.concatenate([np.where(np.isnan(values), -np.inf, values), values])
        left = known[columns.ravel()] <= thresholds.ravel()[:, None]
        struck = np.where(left, ~strikes.dtype.type(0), strikes.ravel()[:, None])
        struck = np.bitwise_and.reduce(struck.reshape(trees, nodes, many), axis=1)
        # The lowest bit that is left; powers of two have exact logarithms.
        lowest = struck & (~struck + strikes.dtype.type(1))
        first = np.log2(lowest.astype(np.float64)).astype(np.intp)
        found = np.take_along_axis(leaves, first, axis=1)
        # A row's leaves side by side: the sum is the same alone and in company.
        return np.asarray(np.ascontiguousarray(found.T).sum(axis=1))

    def check(self, features: Sequence[str]) -> None:
        """Raises `TreesError` where they were grown on other features."""
        if tuple(features) != self.features:
            other = sorted(set(features) ^ set(self.features)) or ["their order"]
            raise TreesError(
                f"the trees were grown on other features than this version makes "
                f"({', '.join(other)}): train them again with `onebar train clicks`"
            )

    @classmethod
    def load(cls, path: Path) -> Trees:
        """Raises `TreesError`."""
        try:
            file = msgspec.msgpack.decode(path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError) as error:
            raise TreesError(f"{path} holds no trees: {error}") from error
        if file.format != FORMAT:
            raise TreesError(f"{path} has format {file.format}, this program reads {FORMAT}")
        _check_shape(path, file)
        return cls(file)

    def save(self, path: Path) -> None:
        """Write it in one rename."""
        replace_file(path, msgspec.msgpack.encode(self._file))

    @classmethod
    def of_lightgbm(
        cls, model: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> Trees:
        """What `lightgbm.Booster.dump_model()` says; `settings` go into the file."""
        import numpy as np

        nodes: list[tuple[int, float, int, int, bool]] = []

        def put(node: Mapping[str, Any], depth: int) -> tuple[int, int]:
            """Add a node and those under it: its place, and how deep they go."""
            place = len(nodes)
            if "leaf_value" in node:
                nodes.append((0, float(node["leaf_value"]), place, place, False))
                return place, depth
            if node["decision_type"] != "<=" or node["missing_type"] not in ("None", "NaN"):
                raise TreesError(f"a split that is not known here: {node['decision_type']}")
            nodes.append((0, 0.0, 0, 0, False))
            left, deep = put(node["left_child"], depth + 1)
            right, deeper = put(node["right_child"], depth + 1)
            absent = bool(node["default_left"])
            if node["missing_type"] == "None":
                # What is absent counts as 0 there.
                absent = node["threshold"] >= 0.0
            split = (int(node["split_feature"]), float(node["threshold"]), left, right, absent)
            nodes[place] = split
            return place, max(deep, deeper)

        roots, depths = [], [0]
        for tree in model["tree_info"]:
            place, depth = put(tree["tree_structure"], 0)
            roots.append(place)
            depths.append(depth)
        feature, threshold, left, right, absent = zip(*nodes, strict=True) if nodes else [()] * 5
        return cls(
            _File(
                FORMAT,
                tuple(model["feature_names"]),
                np.array(roots, dtype="<i4").tobytes(),
                np.array(feature, dtype="<i2").tobytes(),
                np.array(threshold, dtype="<f8").tobytes(),
                np.array(left, dtype="<i4").tobytes(),
                np.array(right, dtype="<i4").tobytes(),
                np.array(absent, dtype=np.bool_).tobytes(),
                max(depths),
                dict(settings or {}),
            )
        )


def _bits(file: _File) -> _Bits:
    """The trees as what their nodes strike out: of each node (trees, nodes) the column, the
    threshold and the leaves that are struck out where a row fails; of each tree its leaves' values.
    """
    import numpy as np

    feature = np.frombuffer(file.feature, dtype="<i2").tolist()
    threshold = np.frombuffer(file.threshold, dtype="<f8").tolist()
    left = np.frombuffer(file.left, dtype="<i4").tolist()
    right = np.frombuffer(file.right, dtype="<i4").tolist()
    absent_left = np.frombuffer(file.absent_left, dtype=np.bool_).tolist()
    columns: list[list[int]] = []
    thresholds: list[list[float]] = []
    strikes: list[list[int]] = []
    values: list[list[float]] = []
    for root in np.frombuffer(file.roots, dtype="<i4").tolist():
        tests: list[tuple[int, float, int]] = []
        leaves: list[float] = []

        def walk(at: int, below: int, leaves: list[float] = leaves, tests: Any = tests) -> None:
            if left[at] == at:
                leaves.append(threshold[at])
                return
            if not below:
                raise TreesError("a tree is deeper than the file says: train the ranker again")
            start = len(leaves)
            walk(left[at], below - 1, leaves, tests)
            column = feature[at] + (0 if absent_left[at] else len(file.features))
            struck = (1 << len(leaves)) - (1 << start)
            tests.append((column, threshold[at], _ALL & ~struck))
            walk(right[at], below - 1, leaves, tests)

        walk(root, file.depth)
        if len(leaves) > MOST_LEAVES:
            raise TreesError(
                f"a tree of {len(leaves)} leaves, and {MOST_LEAVES} are the most: grow it with "
                "--set leaves=64 or less"
            )
        columns.append([column for column, _, _ in tests])
        thresholds.append([value for _, value, _ in tests])
        strikes.append([struck for _, _, struck in tests])
        values.append(leaves)
    nodes = max(map(len, columns), default=0)
    exact = np.array([row + [np.inf] * (nodes - len(row)) for row in thresholds], dtype=np.float64)
    # What is at most the threshold is so in 32 bits where that is rounded down.
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    bits = np.array([row + [_ALL] * (nodes - len(row)) for row in strikes], dtype=np.uint64)
    most = max(map(len, values), default=0)
    # As few bits as there are leaves: what is struck is what takes the time.
    bits = bits.astype(next(kind for kind in _KINDS if most <= 8 * np.dtype(kind).itemsize))
    rounded = np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return (
        np.array([row + [0] * (nodes - len(row)) for row in columns], dtype=np.intp),
        rounded.astype(np.float32),
        bits,
        np.array([row + [0.0] * (nodes + 1 - len(row)) for row in values], dtype=np.float64),
    )


def _check_shape(path: Path, file: _File) -> None:
    """Raises `TreesError` where a node points anywhere else than at a node or a feature."""
    import numpy as np

    try:
        feature = np.frombuffer(file.feature, dtype="<i2")
        places = [np.frombuffer(one, dtype="<i4") for one in (file.roots, file.left, file.right)]
        sizes = {
            len(feature),
            *map(len, places[1:]),
            len(file.threshold) // 8,
            len(file.absent_left),
        }
        inside = all((one >= 0).all() and (one < len(feature)).all() for one in places)
        known = (feature >= 0).all() and (feature < len(file.features)).all()
    except ValueError as error:
        raise TreesError(f"{path} holds no trees: {error}") from error
    if len(sizes) != 1 or not inside or not known or not 0 <= file.depth <= 64:
        raise TreesError(f"{path} is damaged: train the ranker again with `onebar train clicks`")
