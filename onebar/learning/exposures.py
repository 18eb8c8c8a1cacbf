"""What a click ranker learns from: every query that stood in a bar and was looked at, tapped or
not, among all that might have stood there, each with its features as they were at that moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from onebar.evaluation.bars import up_to_tap
from onebar.evaluation.predict import material_of
from onebar.evidence.text import normalize_query
from onebar.recommending.candidates import proposals
from onebar.recommending.clicks import FEATURES, describe
from onebar.recommending.pool import POOL, Taste
from onebar.records import Candidate
from onebar.triggers import Trigger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_SHOWN = -1


class Rows(Struct, frozen=True):
    """Candidates of many impressions, those of one next to each other; arrays of one length.

    `position` is where a candidate stood in the bar, `NOT_SHOWN` where it did not; `tapped` says
    which was; `sourced` whether it would be a candidate now, or only stood there; `target` whether
    it is what the user clicked or typed.
    """

    features: NDArray[np.float32]
    text: NDArray[np.str_]
    impression: NDArray[np.int64]
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
    columns: list[tuple[str, int, int, bool, bool, bool]] = []
    for number, (trigger, beam) in enumerate(zip(triggers, beams, strict=True), first):
        material = material_of(trigger)
        shown = {item.query: (item.position, item.clicked) for item in up_to_tap(trigger.shown)}
        found = proposals(material, beam, taste, exact=True, spans=POOL, also=list(shown))
        if not found:
            continue
        blocks.append(describe(found, material, taste.ranker, taste.book))
        target = normalize_query(trigger.target)
        for one in found:
            at, tapped = shown.get(one.text, (NOT_SHOWN, False))
            columns.append((one.text, number, at, tapped, one.sourced, one.text == target))
    names: list[tuple[Any, ...]] = list(zip(*columns, strict=True)) if columns else [()] * 6
    texts, impressions, positions, taps, sourced, targets = names
    return Rows(
        np.concatenate(blocks) if blocks else np.zeros((0, len(FEATURES)), np.float32),
        np.array(texts, dtype=np.str_),
        np.array(impressions, dtype=np.int64),
        np.array(positions, dtype=np.int64),
        np.array(taps, dtype=np.bool_),
        np.array(sourced, dtype=np.bool_),
        np.array(targets, dtype=np.bool_),
    )
