"""The hidden truth of a simulated log: written beside it, for evaluation only.

Nothing that serves or trains may read it. `LOG.truth.jsonl` has one object a line, each told by
its `record`: one `world` first, then `video` and `user` records as they first appear in the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from stream.logs.compression import DECOMPRESSION_ERRORS, decompressed
from stream.simulator.config import LATER, SimulatorConfig
from stream.simulator.texts.lexicon import Lexicon, Product, world_lexicon
from stream.simulator.texts.wording import Intent, Traits, likely_wordings


class TruthError(OneBarError, ValueError):
    """A truth file that is none. The text names the line."""


class WorldTruth(Struct, frozen=True, tag_field="record", tag="world"):
    """The world a log was written from."""

    config: SimulatorConfig


class VideoTruth(Struct, frozen=True, tag_field="record", tag="video"):
    """What a video is about."""

    video_id: str
    kind: str
    """`product` or `info`."""
    category: str
    product: str
    """The canonical name."""
    attributes: tuple[str, str]
    """What it stresses, the main one first."""
    use: str
    brand: str | None
    sensitive: str | None
    """The topic that forbids a query, flagged or not; None for all other videos."""
    misleading: bool
    """The title speaks of something else."""
    told_by: tuple[str, ...]
    """Fields whose text names the product."""


class UserTruth(Struct, frozen=True, tag_field="record", tag="user"):
    """How a user words things (`Traits`) and what they care for."""

    user_id: str
    synonym: float
    phrasing: int
    modifier: float
    modifies: bool
    tastes: tuple[str, ...]


TruthRecord = WorldTruth | VideoTruth | UserTruth


def video_truth(
    video_id: str,
    intent: Intent,
    *,
    sensitive: str | None,
    misleading: bool,
    told_by: tuple[str, ...],
) -> VideoTruth:
    product = intent.product
    return VideoTruth(
        video_id=video_id,
        kind=product.category.kind,
        category=product.category.key,
        product=product.name,
        attributes=(product.facet(intent.a), product.facet(intent.b)),
        use=product.facet(intent.use),
        brand=None if intent.brand is None else product.facet(intent.brand),
        sensitive=sensitive,
        misleading=misleading,
        told_by=told_by,
    )


_ANYBODY = tuple(
    Traits(synonym=(step + 0.5) / 6, phrasing=int(step % 3 == 2), modifier=0.0, modifies=False)
    for step in range(6)
)


class Truth:
    """The truth of one log, asked about queries."""

    def __init__(self, records: Iterable[TruthRecord]) -> None:
        self.videos: dict[str, VideoTruth] = {}
        self.users: dict[str, UserTruth] = {}
        world: WorldTruth | None = None
        for record in records:
            if isinstance(record, VideoTruth):
                self.videos[record.video_id] = record
            elif isinstance(record, UserTruth):
                self.users[record.user_id] = record
            else:
                world = record
        if world is None:
            raise TruthError("the truth has no `world` record")
        self.config = world.config
        self.lexicon: Lexicon = world_lexicon(self.config)
        self._products = {product.name: product for product in self.lexicon.products}
        self._names = sorted(
            (
                (name.lower(), product)
                for product in self.lexicon.products
                for name in product.names
            ),
            key=lambda pair: (-len(pair[0]), pair[0]),
        )

    def intent(self, video_id: str) -> Intent:
        """Raises KeyError for a video the log does not have."""
        truth = self.videos[video_id]
        product = self._products[truth.product]
        facets = [
            product.facet(i)
            for i in range(
                len(product.attributes) + len(product.uses) + len(product.category.brands)
            )
        ]
        attributes = len(product.attributes)
        a = facets.index(truth.attributes[0])
        b = facets.index(truth.attributes[1])
        use = facets.index(truth.use, attributes)
        brand = None if truth.brand is None else facets.index(truth.brand, attributes + 1)
        mask = 1 << a | 1 << b | 1 << use | (0 if brand is None else 1 << brand)
        return Intent(product, a, b, use, brand, mask)

    def relevance(self, video_id: str, query: str) -> int:
        """How well a query, whatever wrote it, fits a video: 0 to 3.

        3: names the thing and nothing about it that is wrong. 2: names the thing, with an
        attribute, use or brand that is not this video's. 1: names a thing of the same category.
        0: anything else, and whatever is said about a sensitive video.
        """
        truth = self.videos[video_id]
        if truth.sensitive is not None:
            return 0
        intent = self.intent(video_id)
        product = intent.product
        text = " ".join(query.lower().split())
        named = self._named(text, product)
        if named is None:
            return 0
        if named[1] is not product:
            return int(named[1].category is product.category)
        rest = text.replace(named[0], " ", 1)
        for number in range(
            len(product.attributes) + len(product.uses) + len(product.category.brands)
        ):
            words = product.facet(number).lower()
            if not intent.mask >> number & 1 and says(rest, words):
                right = (
                    product.facet(bit).lower()
                    for bit in range(intent.mask.bit_length())
                    if intent.mask >> bit & 1
                )
                if not any(words in other and says(rest, other) for other in right):
                    return 2
        return 3

    def _named(self, text: str, first: Product) -> tuple[str, Product] | None:
        """The longest name of a thing in the text; `first`'s names go before equally long."""
        for name in sorted(first.names, key=len, reverse=True):
            if says(text, name.lower()):
                return name.lower(), first
        for name, product in self._names:
            if says(text, name):
                return name, product
        return None

    def oracle(self, video_id: str, user_id: str | None = None, k: int = 8) -> list[str]:
        """The queries that one who knows everything would offer: the user's likeliest wordings
        of the video's intent, or the average user's; none for a sensitive video."""
        if self.videos[video_id].sensitive is not None:
            return []
        intent = self.intent(video_id)
        user = None if user_id is None else self.users.get(user_id)
        if user is not None:
            traits = Traits(user.synonym, user.phrasing, user.modifier, user.modifies)
            ranked = likely_wordings(self.lexicon, self.config, intent, traits)
            return [text for text, _ in ranked[:k]]
        total: dict[str, float] = {}
        for traits in _ANYBODY:
            for text, weight in likely_wordings(self.lexicon, self.config, intent, traits):
                total[text] = total.get(text, 0.0) + weight
        ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))
        return [text for text, _ in ranked[:k]]


def says(text: str, words: str) -> bool:
    """The words stand in the text, as whole words where they are Latin."""
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        before = at > 0 and text[at - 1].isascii() and text[at - 1].isalnum()
        after = end < len(text) and text[end].isascii() and text[end].isalnum()
        starts = words[0].isascii() and words[0].isalnum()
        ends = words[-1].isascii() and words[-1].isalnum()
        if not (before and starts) and not (after and ends):
            return True
        at = text.find(words, at + 1)
    return False


def encode_record(record: TruthRecord) -> bytes:
    """A line of the truth. What a world has not of `LATER` is left out, so that the truth of an old
    world has the bytes that it always had."""
    if not isinstance(record, WorldTruth):
        return msgspec.json.encode(record)
    plain = msgspec.to_builtins(record)
    first = msgspec.to_builtins(SimulatorConfig())
    config = {
        name: value
        for name, value in plain["config"].items()
        if name not in LATER or value != first[name]
    }
    return msgspec.json.encode({**plain, "config": config})


def load_truth(path: str | os.PathLike[str]) -> Truth:
    """The truth beside a log. Raises `TruthError` naming the line, or OSError."""
    decoder = msgspec.json.Decoder(TruthRecord)

    def records() -> Iterable[TruthRecord]:
        with Path(path).open("rb") as file:
            number = 0
            try:
                for line in decompressed(file):
                    number += 1
                    yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise TruthError(f"{path}, line {number}: {error}") from None
            except (*DECOMPRESSION_ERRORS, EOFError) as error:
                raise TruthError(f"{path} can't be read after line {number}: {error}") from None

    return Truth(records())
