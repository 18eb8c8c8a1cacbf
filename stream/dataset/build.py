"""Making a dataset: the engine finds and gathers, Python assembles, Parquet files come out."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import structlog

from onebar.evidence.evidence import video_line
from onebar.evidence.text import clean_video
from onebar.process.files import occupied, publish, staging
from onebar.triggers import (
    CARD,
    SPLITS,
    TEXTS,
    DatasetCard,
    DatasetError,
    EmptyDatasetError,
    Split,
    Trigger,
    TriggerDataset,
    open_dataset,
    schema,
)
from stream.dataset.asof import VERSION, evidence
from stream.dataset.causality import in_order
from stream.dataset.config import DatasetConfig
from stream.dataset.engine import ROWS, Workspace, rows_of, workspace
from stream.dataset.outcomes import commonly_named, outcomes
from stream.dataset.records import may_be_learnt, trigger_of, video_text
from stream.dataset.tables import Table, Tables, read_tables

log = structlog.get_logger(__name__)

Bounds = Mapping[Split, tuple[float, float]]
"""When each split begins and ends, half open."""
Told = Callable[[str, int, int], None]
"""Phase, how much of it is done, out of how much (0: not known)."""


def build_dataset(
    files: Mapping[str, str | None],
    out: Path,
    config: DatasetConfig,
    *,
    source: Mapping[str, Any] | None = None,
    engine: str | None = None,
    told: Told = lambda phase, done, total: None,
) -> TriggerDataset:
    """Make a dataset of the events in these Parquet files (a glob by event type).

    `engine` is the address of any ibis backend; DuckDB in a temporary file where None. The dataset
    appears at `out` whole or not at all. Raises `EmptyDatasetError`, `DatasetConfigError`,
    `DatasetEngineError`.
    """
    config.check()
    if occupied(out, CARD):
        raise DatasetError(f"{out} exists and is no dataset: choose another directory or remove it")
    with ExitStack() as stack:
        staged = stack.enter_context(staging(out))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onebar-")))
        work = stack.enter_context(workspace(engine, scratch))
        told("reading the archive", 0, 0)
        tables, otherwise = commonly_named(read_tables(work, files, config))
        if otherwise:
            log.warning(
                "impressions_named_otherwise",
                hint="no request_id of an impression is that of a reaction; they are joined by "
                "user, video and time. Give an impression none, or the one that its lookup answers",
            )
        tables, skewed = in_order(work, tables, config)
        if skewed:
            log.warning("reactions_before_their_impression", events=skewed)
        told("finding triggers", 0, 0)
        found = outcomes(work, tables, config)
        bounds = split_bounds(found, config)
        chosen = choose(work, found, bounds, config)
        total = int(chosen.count().execute())
        told("gathering evidence", 0, 0)
        gathered = evidence(work, chosen, tables, config)
        counts = _write(gathered, staged, bounds, config, lambda n: told("writing", n, total))
        if not counts["train"]["click"]:
            raise EmptyDatasetError(
                f"no clicks in the train part of the log, {_day(bounds['train'][0])} to "
                f"{_day(bounds['train'][1])} ({dict(counts['train'])}): there is nothing to learn"
            )
        told("collecting texts", 0, 0)
        texts = _write_texts(tables, staged / TEXTS, bounds["train"][1])
        card = DatasetCard(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            source=dict(source or {}),
            settings=msgspec.to_builtins(config),
            skewed=skewed,
            splits={
                split: {"begin": bounds[split][0], "end": bounds[split][1], **counts[split]}
                for split in SPLITS
            },
        )
        content = msgspec.json.format(msgspec.json.encode(card), indent=2)
        (staged / CARD).write_bytes(content + b"\n")
        log.info("dataset_made", triggers=total, texts=texts, out=str(out))
        publish(staged, out)
    return open_dataset(out)


def split_bounds(found: Table, config: DatasetConfig) -> Bounds:
    """When each split begins and ends, half open: the last share of the triggers is the test part,
    the share before it the valid part.

    Shares are of triggers, not of the time they span, so that one event with a wrong clock doesn't
    empty a split. Raises `EmptyDatasetError`.
    """
    ts = found.ts
    row = found.aggregate(
        first=ts.min(),
        valid=ts.quantile(1 - config.test - config.valid),
        test=ts.quantile(1 - config.test),
        last=ts.max(),
    ).to_pyarrow().to_pylist()[0]  # fmt: skip
    if row["first"] is None:
        raise EmptyDatasetError(
            "no impression of the log was followed by an exposure, a click or a search, and no "
            "video is marked sensitive: there is nothing to learn"
        )
    after = row["last"] + 1e-3
    test = row["test"] if config.test else after
    valid = row["valid"] if config.valid else test
    return {"train": (row["first"], valid), "valid": (valid, test), "test": (test, after)}


def chance_of(key: Any, seed: int) -> Any:
    """A fair draw that is the same on every engine: 32 hexadecimal digits, to be compared as text.

    `key` is a column of strings.
    """
    return (key + f":{seed}").hexdigest("md5").lower()


def below(share: float) -> str:
    """The text that this share of all draws lies before."""
    return f"{int(share * (1 << 32)):08x}" if share < 1 else "g"


def choose(
    work: Workspace,
    found: Table,
    bounds: Bounds,
    config: DatasetConfig,
) -> Table:
    """The triggers that are worth their evidence, materialised.

    What a hash chooses is the same on every engine: the same log gives the same dataset. Whether
    a search is a target can only be told by its evidence, so all are taken up to there.
    """
    import ibis

    found = found.mutate(chance=chance_of(found.trigger_id, config.seed))
    decided = found.clicked.notnull()
    if config.searches:
        decided = decided | found.searched.notnull()
    kept = decided | (found.ts >= bounds["valid"][0]) | (found.chance < below(config.shown_share))
    chosen = found.filter(found.flagged | kept)

    place = ibis.row_number().over(
        group_by=["video_id", "flagged"], order_by=["chance", "trigger_id"]
    )
    chosen = chosen.mutate(place=place)
    within = ~chosen.flagged | (chosen.place < config.rejects_per_video)
    if config.per_video is not None:
        within = within & (chosen.place < config.per_video)
    chosen = chosen.filter(within).drop("place")
    if config.limit is not None:
        chosen = chosen.order_by("chance", "trigger_id").limit(config.limit)
    return work.keep("triggers", chosen)


def _write(
    gathered: Table,
    directory: Path,
    bounds: Bounds,
    config: DatasetConfig,
    told: Callable[[int], None],
) -> dict[Split, Counter[str]]:
    """Write the triggers of each split; how many of each kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema()
    counts: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    done = 0
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                pq.ParquetWriter(directory / f"{split}.parquet", columns, compression="zstd")
            )
            for split in SPLITS
        }
        for batch in gathered.to_pyarrow_batches(chunk_size=ROWS):
            rows: dict[Split, list[Any]] = {split: [] for split in SPLITS}
            for row in batch.to_pylist():
                done += 1
                split = next(name for name in SPLITS if row["ts"] < bounds[name][1])
                trigger = trigger_of(row, config)
                if trigger.kind != "shown" or _kept(trigger, split, row["chance"], config):
                    rows[split].append(msgspec.to_builtins(trigger))
                    counts[split][trigger.kind] += 1
            for split, found in rows.items():
                if found:
                    writers[split].write_table(pa.Table.from_pylist(found, schema=columns))
            told(done)
    return counts


def _kept(trigger: Trigger, split: Split, chance: str, config: DatasetConfig) -> bool:
    """Whether to keep an impression that brought nothing: by the same draw as in `choose`."""
    return bool(trigger.shown) and (split != "train" or chance < below(config.shown_share))


def _write_texts(tables: Tables, path: Path, until: float) -> int:
    """Every distinct cleaned text of a video and every query from before `until` that may be
    learnt from; how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = pa.schema([("text", pa.string())])
    count = 0
    with pq.ParquetWriter(path, columns, compression="zstd") as writer:
        for texts in _batched(_texts(tables, until)):
            count += len(texts)
            writer.write_table(pa.table({"text": texts}, schema=columns))
    return count


def _texts(tables: Tables, until: float) -> Iterator[str]:
    import ibis

    videos = tables.videos.filter(tables.videos.ts < until).select(*VERSION).distinct()
    seen: set[int] = set()
    for row in rows_of(videos.order_by(*VERSION)):
        video = clean_video(video_text(row))
        for text in (video_line(video), video.summary):
            if text and hash(text) not in seen:
                seen.add(hash(text))
                yield text
    queries = ibis.union(
        *(
            table.filter(table.ts < until).select("query")
            for table in (tables.searches, tables.clicks)
        ),
        distinct=True,
    )
    for row in rows_of(queries.order_by("query")):
        if may_be_learnt(row["query"]):
            yield row["query"]


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while chunk := list(islice(remaining, 10_000)):
        yield chunk


def _day(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M")
