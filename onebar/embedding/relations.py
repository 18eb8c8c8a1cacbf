"""Relations: pairs of texts that belong together because people went from one to the other.

What the embedding learns from. A directory that `onebar embed relations` wrote:

relations.json      the card: where they came from, up to when, how many of each kind
relations.parquet   one row a relation: kind, left, right, count; by kind, left, right
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.process.files import occupied, publish, staging

CARD = "relations.json"
ROWS = "relations.parquet"
FORMAT = 1
RelationKind = Literal["q2v", "v2q", "q2q"]
KINDS: tuple[RelationKind, ...] = get_args(RelationKind)
_CHUNK = 20_000


class RelationsError(OneBarError, ValueError):
    """Relations that can't be used. The text says what is wrong and what to do."""


class RelationsNotFoundError(RelationsError):
    """There are no relations where some were expected."""


class RelationsCorruptError(RelationsError):
    """A file of the relations is missing, damaged or of another format."""


class EmptyRelationsError(RelationsError):
    """The log holds nothing that ties a query to anything."""


class Relation(Struct, frozen=True):
    """Two texts that people's behaviour ties, and how often (>= 1).

    `q2v`: a query, and the text of a video it led to a tap or engagement with. `v2q`: the text of
    a video, and a query that was tapped or typed after it. `q2q`: a query, and the one it was
    replaced with. Queries are normalised, texts are those of
    `onebar.evidence.evidence.trigger_text`."""

    kind: RelationKind
    left: str
    right: str
    count: int = 1


class RelationsCard(Struct, frozen=True, kw_only=True):
    """What relations say of themselves. `until` (UTC epoch seconds): no event from then on is in
    them; None where the whole log was read."""

    format: int = FORMAT
    created_at: str
    until: float | None = None
    source: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    counts: dict[str, int] = {}
    """Relations of each kind."""


class RelationSet(Struct, frozen=True):
    """Opened relations."""

    path: Path
    card: RelationsCard

    def read(self, kinds: Collection[RelationKind] = KINDS) -> Iterator[Relation]:
        """The relations of these kinds. Raises `RelationsCorruptError`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path / ROWS
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_CHUNK):
                    for row in batch.to_pylist():
                        if row["kind"] in kinds:
                            yield msgspec.convert(row, Relation)
        except (pa.ArrowException, OSError, KeyError, msgspec.ValidationError) as error:
            raise RelationsCorruptError(f"{path} can't be read ({error}): mine it again") from None


def open_relations(path: Path) -> RelationSet:
    """The relations at `path`. Raises `RelationsNotFoundError`, `RelationsCorruptError`."""
    card = path / CARD
    if not card.is_file():
        raise RelationsNotFoundError(
            f"{path} holds no relations: it has no {CARD}; mine them with `onebar embed relations`"
        )
    try:
        found = msgspec.json.decode(card.read_bytes(), type=RelationsCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RelationsCorruptError(f"{card} can't be read ({error})") from None
    if found.format != FORMAT:
        raise RelationsCorruptError(
            f"{card} has format {found.format}, this program reads {FORMAT}: mine them again"
        )
    if not (path / ROWS).is_file():
        raise RelationsCorruptError(f"{path / ROWS} is missing: mine them again")
    return RelationSet(path, found)


def write_relations(
    path: Path,
    relations: Iterable[Relation],
    *,
    until: float | None = None,
    source: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RelationSet:
    """Write relations to `path`, whole or not at all; relations that are there are replaced.

    Raises `EmptyRelationsError` where there are none, `RelationsError` where `path` is something
    else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if occupied(path, CARD):
        raise RelationsError(f"{path} exists and holds no relations: choose another directory")
    texts = [(name, pa.string()) for name in ("kind", "left", "right")]
    columns = pa.schema([*texts, ("count", pa.int64())])
    counts: Counter[str] = Counter()
    rows = iter(relations)
    with staging(path) as staged:
        with pq.ParquetWriter(staged / ROWS, columns, compression="zstd") as writer:
            while chunk := [msgspec.to_builtins(relation) for relation in islice(rows, _CHUNK)]:
                counts.update(row["kind"] for row in chunk)
                writer.write_table(pa.Table.from_pylist(chunk, schema=columns))
        if not counts:
            raise EmptyRelationsError(
                "the log ties no query to a video or to another query: there is nothing to learn"
            )
        card = RelationsCard(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            until=until,
            source=dict(source or {}),
            settings=dict(settings or {}),
            counts=dict(counts),
        )
        encoded = msgspec.json.format(msgspec.json.encode(card), indent=2)
        (staged / CARD).write_bytes(encoded + b"\n")
        publish(staged, path)
    return open_relations(path)
