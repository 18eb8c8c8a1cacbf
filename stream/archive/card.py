"""What an archive says of itself (`archive.json`), and what can be wrong with one."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.process.files import replace_file
from stream.logs.files import Identity

CARD = "archive.json"
FORMAT = 1
_FILE = re.compile(r"(?P<topic>.+)-(?P<partition>\d+)-(?P<first>\d{20})-(?P<last>\d{20})\.parquet")


class ArchiveError(OneBarError, ValueError):
    """An archive that can't be used. The text says what is wrong and what to do."""


class ArchiveNotFoundError(ArchiveError):
    """There is no archive where one was expected."""


class ArchiveCorruptError(ArchiveError):
    """A file of an archive is damaged, or of another format."""


class ArchiveInUseError(ArchiveError):
    """Another process writes to the archive."""


class OtherSourceError(ArchiveError):
    """An archive holds one log; this is another."""


class LogGapError(ArchiveError):
    """Records between what is archived and what Kafka still has are lost, or the topic is another
    one than before."""


class Gap(Struct, frozen=True):
    """Offsets that were gone from Kafka before they were archived: from `begin` to before `end`."""

    topic: str
    partition: int
    begin: int
    end: int


class ArchiveCard(Struct, kw_only=True):
    """`positions` are the offsets to go on from, by topic and partition; everything before is in
    the archive, but for `gaps`. `counts` are records by event type, `invalid` among them.

    Positions mean something in one log only: that of the topics with `topic_prefix`, or the file
    `log`.
    """

    format: int = FORMAT
    topic_prefix: str | None = None
    log: Identity | None = None
    positions: dict[str, dict[int, int]] = {}
    counts: dict[str, int] = {}
    gaps: list[Gap] = []

    def position(self, topic: str, partition: int) -> int | None:
        """Where to go on, None where nothing of the partition was archived."""
        return self.positions.get(topic, {}).get(partition)


def read_card(directory: Path) -> ArchiveCard:
    """The card of an archive. Raises `ArchiveNotFoundError`, `ArchiveCorruptError`."""
    path = directory / CARD
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArchiveNotFoundError(
            f"{directory} is no archive: it has no {CARD}; make one with `onebar archive`"
        ) from None
    try:
        card = msgspec.json.decode(data, type=ArchiveCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArchiveCorruptError(f"{path} can't be read ({error}): restore it") from None
    if card.format != FORMAT:
        raise ArchiveCorruptError(
            f"{path} has format {card.format}, this program reads {FORMAT}: use the onebar "
            "version that wrote it"
        )
    return card


def is_flushed(path: Path, card: ArchiveCard) -> bool:
    """Whether the card knows the file; else a flush is under way, or was when its writer died."""
    found = _FILE.fullmatch(path.name)
    if found is None:  # no file of ours
        return True
    return int(found["first"]) < (card.position(found["topic"], int(found["partition"])) or 0)


def write_card(directory: Path, card: ArchiveCard) -> None:
    """Replace the card, atomically and durably."""
    replace_file(directory / CARD, msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
