"""Queries that anybody wrote, read as the world's users read them: what they name, and how."""

from __future__ import annotations

from functools import lru_cache

from stream.simulator.taps import fit
from stream.simulator.texts.lexicon import SUBSETS, Lexicon, Product
from stream.simulator.texts.wording import NO_THING, Intent, Wording, make_wording
from stream.simulator.truth import says
from stream.simulator.users import User

ODD = -1
"""The `phrasing` of a text that no template of the world makes: nobody's preferred one."""
INTENTS = 4096
"""Intents whose wordings are remembered."""


class Reader:
    """Reads texts before a video with an intent.

    A text that the world's own templates can make of the intent is read as just that. Any other is
    read by the name in it (the longest), and what else it says of the thing: what is right of it,
    and any one thing that is not. Its phrasing is nobody's then.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._named = sorted(
            ((name.lower(), product, number) for product in lexicon.products
             for number, name in enumerate(product.names)),
            key=lambda found: (-len(found[0]), found[0]),
        )  # fmt: skip
        self._wordings = lru_cache(maxsize=INTENTS)(self._made)

    def read(self, text: str, intent: Intent, user: User | None = None) -> Wording:
        """The wording that a text is, for a user who sees it under a video about `intent`; of
        several, the one that suits them best (the first where nobody is named)."""
        plain = " ".join(text.lower().split())
        known = self._wordings(intent.product.index, intent.a, intent.b, intent.use, intent.brand)
        found = known.get(plain)
        if found is None:
            return self._otherwise(plain, intent)
        if user is None:
            return found[0]
        return max(found, key=lambda wording: fit(user, intent, wording))

    def _made(
        self, product: int, a: int, b: int, use: int, brand: int | None
    ) -> dict[str, list[Wording]]:
        thing = self._lexicon.products[product]
        mask = 1 << a | 1 << b | 1 << use | (0 if brand is None else 1 << brand)
        intent = Intent(thing, a, b, use, brand, mask)
        found: dict[str, list[Wording]] = {}
        for subset in SUBSETS:
            if "r" in subset and brand is None:
                continue
            for name in range(len(thing.names)):
                for phrasing in (0, 1):
                    for modifier in range(-1, len(thing.category.modifiers)):
                        made = make_wording(self._lexicon, intent, subset, name, phrasing, modifier)
                        found.setdefault(made.text, []).append(made)
        return found

    def _otherwise(self, text: str, intent: Intent) -> Wording:
        named = self._thing(text, intent.product)
        if named is None:
            return Wording(text, NO_THING, 0, "none", 0, ODD, -1)
        product, name = named
        rest = text.replace(product.names[name].lower(), " ", 1)
        facets = len(product.attributes) + len(product.uses) + len(product.category.brands)
        words = {
            number: product.facet(number).lower()
            for number in range(facets)
            if says(rest, product.facet(number).lower())
        }
        right = [said for number, said in words.items() if intent.mask >> number & 1]
        said = 0
        for number, facet in words.items():
            # What is only a part of something right says nothing wrong.
            if intent.mask >> number & 1 or not any(facet in longer for longer in right):
                said |= 1 << number
        subset = "".join(
            letter
            for letter, number in (
                ("r", intent.brand), ("a", intent.a), ("b", intent.b), ("u", intent.use),
            )
            if number is not None and said >> number & 1
        )  # fmt: skip
        subset = subset if subset in SUBSETS else subset[:1] or "none"
        return Wording(text, product.index, said, subset, name, ODD, self._modifier(text, product))

    def _thing(self, text: str, first: Product) -> tuple[Product, int] | None:
        """The longest name in the text; `first`'s names go before all others."""
        for number, name in sorted(enumerate(first.names), key=lambda one: -len(one[1])):
            if says(text, name.lower()):
                return first, number
        for name, product, number in self._named:
            if says(text, name):
                return product, number
        return None

    @staticmethod
    def _modifier(text: str, product: Product) -> int:
        for number, around in enumerate(product.category.modifiers):
            if says(text, around.replace("{q}", "").strip().lower()):
                return number
        return -1
