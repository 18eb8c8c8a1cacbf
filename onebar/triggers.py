"""Triggers: logged impressions with the evidence of that moment and what the user then did.

What training and evaluation read. A dataset is a directory that `onebar dataset` wrote:

dataset.json        the card: where it came from, how it was split, how many of what
train.parquet       triggers of the first part of the time
valid.parquet       of the part after it
test.parquet        of the last part
embedder/           what chose the histories, if an embedder did: `onebar embed dataset`
texts.parquet       cleaned text of the train part, one `text` a row, for the tokenizer and for
                    denoising pre-training
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.evidence.evidence import Evidence, one_line
from onebar.process.files import occupied, publish, staging

CARD = "dataset.json"
FORMAT = 1
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
TEXTS = "texts.parquet"
EMBEDDER = "embedder"
ROWS = 4096
"""Rows written together."""
Kind = Literal["click", "search", "reject", "shown"]


class DatasetError(OneBarError, ValueError):
    """A dataset that can't be used. The text says what is wrong and what to do."""


class DatasetNotFoundError(DatasetError):
    """There is no dataset where one was expected."""


class DatasetCorruptError(DatasetError):
    """A file of a dataset is missing, damaged or of another format."""


class EmptyDatasetError(DatasetError):
    """There is nothing to train on."""


class Preference(Struct, frozen=True):
    """One query of a trigger's preference list (paper, Table 2).

    `level` is 1 (clicked and engaged by this user) to 6 (retrieved, not exposed); `exposures`
    and `clicks` are those of the query under this video before the impression.
    """

    query: str
    level: int
    exposures: int = 0
    clicks: int = 0


class Shown(Struct, frozen=True):
    """A query that stood in the bar at a position (from 0), whether it was tapped, and how likely
    it was to stand there: 1 where nothing was left to chance, or it was not told."""

    query: str
    position: int
    clicked: bool
    propensity: float = 1.0


class Counted(Struct, frozen=True):
    """How often a query was exposed, clicked and engaged with under one video."""

    query: str
    exposures: int = 0
    clicks: int = 0
    engagements: int = 0


class Trigger(Struct, frozen=True, kw_only=True):
    """One logged impression.

    `kind` says what came of it: a `click`, a `search` (typed after the video), `reject` (the
    video must not carry a query: the target is `[REJECT]`), or nothing (`shown`: no target).
    `text`, `summary`, `anchors` and `history` are the evidence as it was at `ts`: nothing later
    is in it. Queries are normalised.
    """

    trigger_id: str
    kind: Kind
    ts: float
    """UTC epoch seconds of the impression."""
    video_id: str
    user_id: str = ""
    category: str = ""
    text: str = ""
    summary: str = ""
    anchors: tuple[str, ...] = ()
    anchor_weights: tuple[float, ...] = ()
    """Of `anchors`, in their order, decayed to `ts`, 0 of those that near videos and the log
    propose; empty in datasets that did not keep them."""
    history: tuple[str, ...] = ()
    recent: tuple[str, ...] = ()
    """The user's newest queries, newest first: what `history` was chosen from."""
    target: str = ""
    preferences: tuple[Preference, ...] = ()
    """Best first, at most one a level; the first is the target where the user clicked."""
    shown: tuple[Shown, ...] = ()
    """By position."""
    counts: tuple[Counted, ...] = ()
    """The video's counters before `ts`, of the queries most exposed; most exposed first."""
    video_behaviors: int = 0
    """Searches, clicks and engagements under the video before `ts`: 0 is a cold start."""
    video_age_s: float = 0.0
    """Since the video's first event."""
    teacher: str = ""
    """Who wrote the target where no user did (`onebar teach`): the model, and the digest of the
    prompt that it was asked with."""

    @property
    def video_text(self) -> str:
        """What relevance is judged by and what is embedded, as
        `onebar.evidence.evidence.trigger_text`."""
        return one_line(self.text, self.summary, self.category)

    @property
    def evidence(self) -> Evidence:
        """The evidence as the prompt builder takes it."""
        return Evidence(self.text, self.summary, self.anchors, self.history)

    @property
    def own_evidence(self) -> Evidence:
        """The same without the anchors that near videos and the log propose: what a model is
        given whose prompt has no neighbours."""
        weights = self.anchor_weights
        own = sum(weight > 0 for weight in weights) if weights else len(self.anchors)
        return Evidence(self.text, self.summary, self.anchors[:own], self.history)


class DatasetCard(Struct, frozen=True, kw_only=True):
    """What a dataset says of itself.

    `splits` has, by split, the time it begins and ends (UTC epoch seconds, half open) and how
    many triggers of each kind it holds.
    """

    format: int = FORMAT
    created_at: str
    source: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    skewed: int = 0
    """Reactions whose clock was behind their impression's, and which were put after it."""
    neighbors: bool = False
    """Whether the anchors of near videos stand behind a trigger's own."""
    splits: dict[str, dict[str, float | int]] = {}


class TriggerDataset(Struct, frozen=True):
    """An opened dataset."""

    path: Path
    card: DatasetCard

    @property
    def embedder(self) -> Path | None:
        """The embedder that chose the histories; None: terms did."""
        path = self.path / EMBEDDER
        return path if path.is_dir() else None

    def read(self, split: Split, kinds: tuple[Kind, ...] = ()) -> Iterator[Trigger]:
        """The triggers of a split by time, of these kinds only where any are named.

        Raises `DatasetCorruptError`.
        """
        for row in _rows(self.path / f"{split}.parquet"):
            if kinds and row["kind"] not in kinds:
                continue
            try:
                yield msgspec.convert(row, Trigger)
            except msgspec.ValidationError as error:
                raise DatasetCorruptError(
                    f"{self.path / split}.parquet holds a row that is no trigger ({error}): make "
                    "the dataset again"
                ) from None

    def bars(self, split: Split) -> Iterator[Trigger]:
        """What stood in the bars of a split's clicks, searches and impressions without a tap, and
        nothing else of them: much sooner read than all. Raises `DatasetCorruptError`."""
        columns = ["trigger_id", "kind", "ts", "video_id", "user_id", "shown"]
        for row in _rows(self.path / f"{split}.parquet", columns):
            if row["shown"] and row["kind"] != "reject":
                yield msgspec.convert(row, Trigger)

    def size(self, split: Split, kinds: tuple[Kind, ...] = ()) -> int:
        """How many triggers `read` gives, as the card says."""
        counts = self.card.splits.get(split, {})
        return sum(int(counts.get(kind, 0)) for kind in kinds or get_args(Kind))

    def texts(self) -> Iterator[str]:
        """The cleaned texts of the train part. Raises `DatasetCorruptError`."""
        for row in _rows(self.path / TEXTS):
            yield row["text"]


def open_dataset(path: Path | str) -> TriggerDataset:
    """The dataset at `path`. Raises `DatasetNotFoundError`, `DatasetCorruptError`."""
    path = Path(path)
    card = path / CARD
    if not card.is_file():
        raise DatasetNotFoundError(
            f"{path} is no dataset: it has no {CARD}; make one with `onebar dataset`"
        )
    try:
        found = msgspec.json.decode(card.read_bytes(), type=DatasetCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetCorruptError(f"{card} can't be read ({error})") from None
    if found.format != FORMAT:
        raise DatasetCorruptError(
            f"{card} has format {found.format}, this program reads {FORMAT}: make the dataset again"
        )
    for name in (*(f"{split}.parquet" for split in SPLITS), TEXTS):
        if not (path / name).is_file():
            raise DatasetCorruptError(f"{path / name} is missing: make the dataset again")
    return TriggerDataset(path, found)


def write_dataset(
    path: Path | str,
    splits: Mapping[Split, Iterable[Trigger]],
    texts: Iterable[str] = (),
    *,
    card: DatasetCard | None = None,
    embedder: Path | None = None,
) -> TriggerDataset:
    """Write triggers and texts to `path`, whole or not at all; a dataset that is there is replaced.

    The card's counts are of what is written; `embedder` is the directory of what chose the
    histories. Raises `DatasetError` where `path` is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if occupied(path, CARD):
        raise DatasetError(
            f"{path} exists and is no dataset: choose another directory or remove it"
        )
    card = card or DatasetCard(created_at=datetime.now(UTC).isoformat(timespec="seconds"))
    facts: dict[str, dict[str, float | int]] = {}
    with staging(path) as staged:
        for split in SPLITS:
            counts: Counter[str] = Counter()
            triggers = iter(splits.get(split, ()))
            with pq.ParquetWriter(
                staged / f"{split}.parquet", schema(), compression="zstd"
            ) as writer:
                while rows := [msgspec.to_builtins(each) for each in islice(triggers, ROWS)]:
                    counts.update(row["kind"] for row in rows)
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema()))
            known = card.splits.get(split, {})
            facts[split] = {name: known[name] for name in known if name in ("begin", "end")}
            facts[split].update(counts)
        if embedder is not None:
            shutil.copytree(embedder, staged / EMBEDDER)
        columns = pa.schema([("text", pa.string())])
        lines = iter(texts)
        with pq.ParquetWriter(staged / TEXTS, columns, compression="zstd") as writer:
            while chunk := list(islice(lines, ROWS)):
                writer.write_table(pa.table({"text": chunk}, schema=columns))
        card = msgspec.structs.replace(card, splits=facts)
        (staged / CARD).write_bytes(
            msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"
        )
        publish(staged, path)
    return open_dataset(path)


def schema() -> Any:
    """The columns of a trigger in Parquet."""
    import pyarrow as pa

    preference = pa.struct(
        {"query": pa.string(), "level": pa.int8(), "exposures": pa.int64(), "clicks": pa.int64()}
    )
    shown = pa.struct(
        {
            "query": pa.string(),
            "position": pa.int32(),
            "clicked": pa.bool_(),
            "propensity": pa.float64(),
        }
    )
    counted = pa.struct(
        {
            "query": pa.string(),
            **{name: pa.int64() for name in ("exposures", "clicks", "engagements")},
        }
    )
    types = {
        "ts": pa.float64(),
        "anchors": pa.list_(pa.string()),
        "anchor_weights": pa.list_(pa.float64()),
        "history": pa.list_(pa.string()),
        "recent": pa.list_(pa.string()),
        "preferences": pa.list_(preference),
        "shown": pa.list_(shown),
        "counts": pa.list_(counted),
        "video_behaviors": pa.int64(),
        "video_age_s": pa.float64(),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in Trigger.__struct_fields__])


def _rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DatasetCorruptError(f"{path} can't be read ({error}): make it again") from None
