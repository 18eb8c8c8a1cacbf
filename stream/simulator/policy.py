"""The logging policy: what chose the exposed queries of the log.

It stands for the cascade a platform runs before this system, and sees only what such a cascade
sees: terms that stand in a video's text, searches and clicks so far, the user's own past queries.
Never an intent or a trait.
"""

from __future__ import annotations

from operator import itemgetter

from msgspec import Struct

from stream.simulator.config import SimulatorConfig
from stream.simulator.texts.lexicon import SUBSETS, Lexicon, Product
from stream.simulator.texts.wording import Intent, Rand, Wording, make_wording

POOL_LIMIT = 64
ANCHOR_LIMIT = 16
RECENT_LIMIT = 64
MENTION_LIMIT = 4


class Counts:
    """Queries with their counts; of more than twice `limit` only the `limit` greatest stay."""

    __slots__ = ("entries", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.entries: dict[str, tuple[float, Wording]] = {}

    def add(self, wording: Wording, weight: float) -> None:
        old = self.entries.get(wording.text)
        self.entries[wording.text] = (weight + (old[0] if old else 0.0), wording)
        if len(self.entries) > 2 * self.limit:
            kept = sorted(self.entries.items(), key=lambda item: (-item[1][0], item[0]))
            # Halving lets what is new overtake what was once popular.
            self.entries = {text: (w * 0.5, q) for text, (w, q) in kept[: self.limit]}


class _Terms(Struct, frozen=True, eq=False):
    """One mention, taken apart: facet numbers by sort."""

    product: Product
    mask: int
    attributes: tuple[int, ...]
    uses: tuple[int, ...]
    brand: int | None
    first_use: int


def _terms(product: Product, mask: int) -> _Terms:
    attributes = len(product.attributes)
    brands = attributes + len(product.uses)
    named = tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    return _Terms(
        product,
        mask,
        tuple(bit for bit in named if bit < attributes),
        tuple(bit for bit in named if attributes <= bit < brands),
        next((bit for bit in named if bit >= brands), None),
        attributes,
    )


class Shelf:
    """What the policy knows of one video."""

    __slots__ = ("anchors", "impressions", "matches", "mentions", "refresh_at", "terms")

    def __init__(self, mentions: tuple[tuple[int, int], ...]) -> None:
        self.terms: list[_Terms] = []
        """`mentions` as of the last refresh."""
        self.mentions = mentions
        self.anchors = Counts(ANCHOR_LIMIT)
        self.matches: list[Wording] = []
        self.impressions = 0
        self.refresh_at = 0


class LoggingPolicy:
    def __init__(self, config: SimulatorConfig, lexicon: Lexicon, rand: Rand) -> None:
        self._config = config
        self._lexicon = lexicon
        self._rand = rand
        self._pools = [Counts(POOL_LIMIT) for _ in lexicon.products]
        self._recent: list[Wording] = []
        self._recent_at = 0
        self._by_category: dict[str, list[Wording]] = {c.key: [] for c in lexicon.categories}

    def learn(self, shelf: Shelf | None, wording: Wording, weight: float) -> None:
        """A search or a click was seen, under a video or not."""
        self._pools[wording.product].add(wording, weight)
        if shelf is not None:
            shelf.anchors.add(wording, weight)
        if len(self._recent) < RECENT_LIMIT:
            self._recent.append(wording)
        else:
            self._recent[self._recent_at % RECENT_LIMIT] = wording
        self._recent_at += 1
        recent = self._by_category[self._lexicon.products[wording.product].category.key]
        if len(recent) < RECENT_LIMIT:
            recent.append(wording)
        else:
            recent[self._recent_at % RECENT_LIMIT] = wording

    def _refresh(self, shelf: Shelf) -> None:
        """Others' queries that share terms with the video's text, best first."""
        self._believe(shelf)
        scored: list[tuple[float, Wording]] = []
        for product, mask in shelf.mentions:
            for weight, wording in self._pools[product].entries.values():
                named = wording.mask
                hits = (named & mask).bit_count()
                misses = named.bit_count() - hits
                scored.append((weight * (1.0 + 2.0 * hits) / (1.0 + 2.0 * misses), wording))
        products = self._lexicon.products
        shelf.terms = [_terms(products[product], mask) for product, mask in shelf.mentions]
        # Stable: equals stay in the order they were first seen.
        scored.sort(key=itemgetter(0), reverse=True)
        shelf.matches = [wording for _, wording in scored[:16]]
        shelf.refresh_at = 2 * shelf.impressions + 3

    @staticmethod
    def read_summary(shelf: Shelf, mentions: tuple[tuple[int, int], ...]) -> None:
        """The video's summary is there: its terms come before those of the text."""
        known = dict(shelf.mentions)
        for product, mask in mentions:
            mask |= known.pop(product, 0)
            shelf.mentions = ((product, mask), *known.items())[:MENTION_LIMIT]
        shelf.refresh_at = 0

    @staticmethod
    def _believe(shelf: Shelf) -> None:
        """Terms of queries that people searched or clicked under the video twice and more
        count as terms of its text, and come first: so a title that misleads is found out."""
        strength: dict[int, float] = {}
        named: dict[int, int] = {}
        for weight, wording in shelf.anchors.entries.values():
            strength[wording.product] = strength.get(wording.product, 0.0) + weight
            named[wording.product] = named.get(wording.product, 0) | wording.mask
        for product, weight in sorted(strength.items(), key=lambda item: (item[1], item[0])):
            if weight < 2.0:
                continue
            known = dict(shelf.mentions)
            mask = known.pop(product, 0) | named[product]
            shelf.mentions = ((product, mask), *known.items())[:MENTION_LIMIT]

    def _extract(
        self, shelf: Shelf, seen: dict[int, Wording], last: Wording | None
    ) -> Wording | None:
        """A wording composed from terms of the text, in the user's way as far as it shows."""
        if not shelf.terms:
            return None
        rand = self._rand
        terms = shelf.terms[int(rand() * rand() * len(shelf.terms))]
        product, own, used = terms.product, terms.attributes, terms.uses
        number = product.index
        subset = SUBSETS[int(rand() * rand() * len(SUBSETS))]
        if ("u" in subset and not used) or ("r" in subset and terms.brand is None):
            subset = "a"
        if "b" in subset and len(own) < 2:
            subset = "a"
        if "a" in subset and not own:
            subset = "u" if used else "none"
        first = second = 0
        if own:
            at = int(rand() * len(own))
            first, second = own[at], own[(at + 1) % len(own)]
        use = used[int(rand() * len(used))] if used else terms.first_use
        intent = Intent(product, first, second, use, terms.brand, terms.mask)
        past = seen.get(number)
        name = past.name if past is not None else int(rand() * len(product.names))
        guide = past or last
        phrasing = guide.phrasing if guide is not None and rand() < 0.8 else int(rand() < 0.3)
        modifier = -1
        modifiers = product.category.modifiers
        if guide is not None and rand() < 0.75:
            same = self._lexicon.products[guide.product].category
            if guide.modifier < 0 or (
                guide.modifier < len(modifiers)
                and same.modifiers[guide.modifier] == modifiers[guide.modifier]
            ):
                modifier = guide.modifier
        elif rand() < 0.5:
            modifier = int(rand() * len(modifiers))
        return make_wording(self._lexicon, intent, subset, name, phrasing, modifier)

    def expose(
        self, shelf: Shelf, category: str | None, seen: dict[int, Wording], last: Wording | None
    ) -> list[Wording]:
        """The bar's queries, best position first; fewer than `slots` where little is known."""
        config, rand = self._config, self._rand
        if shelf.impressions >= shelf.refresh_at:
            self._refresh(shelf)
        shelf.impressions += 1
        pool_from = config.mix_extract
        anchor_from = pool_from + config.mix_pool
        explore_from = anchor_from + config.mix_anchor
        scored: dict[str, tuple[float, Wording]] = {}
        for _ in range(config.slots):
            draw = rand()
            chosen: Wording | None = None
            if draw < pool_from:
                chosen = self._extract(shelf, seen, last)
                bonus = 0.4
            elif draw < anchor_from and shelf.matches:
                chosen = shelf.matches[int(rand() * rand() * len(shelf.matches))]
                bonus = 0.3
            elif draw < explore_from and shelf.anchors.entries:
                entries = list(shelf.anchors.entries.values())
                first = entries[int(rand() * len(entries))]
                second = entries[int(rand() * len(entries))]
                chosen = first[1] if first[0] >= second[0] else second[1]
                bonus = 0.5
            if chosen is None:
                recent = self._by_category[category] if category else self._recent
                if not recent or rand() < 0.2:
                    recent = self._recent
                if not recent:
                    continue
                chosen = recent[int(rand() * len(recent))]
                bonus = 0.0
            if chosen.text not in scored:
                scored[chosen.text] = (bonus + rand(), chosen)
        ranked = sorted(scored.items(), key=lambda item: (-item[1][0], item[0]))
        return [wording for _, (_, wording) in ranked]
