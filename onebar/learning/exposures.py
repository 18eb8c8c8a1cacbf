"""What a click ranker learns from: every query that stood in a bar and was looked at, tapped or
not, among all that might have stood there, each with its features as they were at that moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from onebar.evaluation.bars import up_to_tap
from onebar.evaluation.predict import material_of
from onebar.evidence.text import normalize_query
from onebar.recommending.candidates import choose, proposals
from onebar.recommending.features import FEATURES, describe
from onebar.recommending.material import told
from onebar.recommending.pool import SPANS, Taste
from onebar.records import Candidate
from onebar.triggers import Trigger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_SHOWN = -1
BAR = 8
"""Queries of a bar that is measured."""
SERVED = 8
"""Candidates of the generator that a checkpoint without a click ranker chooses from."""


class Rows(Struct, frozen=True):
    """Candidates of many impressions, those of one next to each other; arrays of one length.

    `before` is the rank in the bar that the checkpoint itself makes, `NOT_SHOWN` where it is not in
    it, or the impression brought no tap. `position` is where a candidate stood in the bar,
    `NOT_SHOWN` where it did not; `tapped` says which was; `sourced` whether it would be a candidate
    now, or only stood there; `target` whether it is what the user clicked or typed.
    """

    features: NDArray[np.float32]
    text: NDArray[np.str_]
    impression: NDArray[np.int64]
    before: NDArray[np.int64]
    position: NDArray[np.int64]
    tapped: NDArray[np.bool_]
    sourced: NDArray[np.bool_]
    target: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.position)

    def save(self, path: Path) -> None:
        """Write it in one rename."""
        import numpy as np

        from onebar.process.files import replacing

        with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in _COLUMNS})

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Rows:
        """What `save` wrote, one after the other."""
        import numpy as np

        parts = []
        for path in paths:
            with np.load(path, allow_pickle=False) as arrays:
                parts.append({name: arrays[name] for name in _COLUMNS})
        return cls(**{name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS})


_COLUMNS = Rows.__struct_fields__


def rows_of(
    triggers: Sequence[Trigger],
    beams: Sequence[Sequence[Candidate]],
    taste: Taste,
    *,
    first: int = 0,
) -> Rows:
    """The rows of some impressions, of which the first is called `first`."""
    import numpy as np

    blocks: list[NDArray[np.float32]] = []
    columns: list[tuple[str, int, int, int, bool, bool, bool]] = []
    plain = msgspec.structs.replace(taste, scorer=None, book=None)
    for number, (trigger, beam) in enumerate(zip(triggers, beams, strict=True), first):
        material = material_of(trigger)
        shown = {item.query: (item.position, item.clicked) for item in up_to_tap(trigger.shown)}
        found = proposals(material, beam, taste, exact=True, spans=SPANS, also=list(shown))
        if not found:
            continue
        blocks.append(describe(found, material, taste.ranker, taste.book))
        bar: dict[str, int] = {}
        if any(clicked for _, clicked in shown.values()):
            made = choose(told(trigger.evidence), beam[:SERVED], BAR, plain)
            bar = {one.text: at for at, one in enumerate(made.queries)}
        target = normalize_query(trigger.target)
        for one in found:
            at, tapped = shown.get(one.text, (NOT_SHOWN, False))
            was = bar.get(one.text, NOT_SHOWN)
            columns.append((one.text, number, was, at, tapped, one.sourced, one.text == target))
    names: list[tuple[Any, ...]] = list(zip(*columns, strict=True)) if columns else [()] * 7
    texts, impressions, before, positions, taps, sourced, targets = names
    return Rows(
        np.concatenate(blocks) if blocks else np.zeros((0, len(FEATURES)), np.float32),
        np.array(texts, dtype=np.str_),
        np.array(impressions, dtype=np.int64),
        np.array(before, dtype=np.int64),
        np.array(positions, dtype=np.int64),
        np.array(taps, dtype=np.bool_),
        np.array(sourced, dtype=np.bool_),
        np.array(targets, dtype=np.bool_),
    )
