"""Intents and their wordings: what people mean, and the many ways they type it.

The one place where a wording's text and its probability come from; the world samples from it, the
truth scores with it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from stream.simulator.config import SimulatorConfig
from stream.simulator.texts.lexicon import SUBSET_WEIGHTS, SUBSETS, Lexicon, Product

Rand = Callable[[], float]
"""`random.Random(...).random`: the one draw whose stream is the same on every Python."""


NO_THING = -1
"""The `product` of a text that names nothing of its world."""


class Intent(Struct, frozen=True, eq=False):
    """What a video is about. Facets are facet numbers of the product; `brand` may be None."""

    product: Product
    a: int
    b: int
    use: int
    brand: int | None
    mask: int
    """One bit for each facet of the intent."""


class Traits(Struct, frozen=True, eq=False):
    """How one user words things, whatever they search for."""

    synonym: float
    """In [0, 1): which of a thing's names they prefer."""
    phrasing: int
    """0 or 1: which word order they prefer."""
    modifier: float
    """In [0, 1): which modifier is their habit, where `modifies`."""
    modifies: bool

    def name_index(self, product: Product) -> int:
        return int(self.synonym * len(product.names))

    def modifier_index(self, product: Product) -> int:
        """The index of the habitual modifier in the category's list, -1 for none."""
        if not self.modifies:
            return -1
        category = product.category
        audiences = len(category.audiences)
        if self.modifier < 0.7 or not audiences:
            share = self.modifier / 0.7 if audiences or self.modifier < 0.7 else self.modifier
            return int(share * category.kind_modifiers)
        return category.kind_modifiers + int((self.modifier - 0.7) / 0.3 * audiences)


class Wording(Struct, frozen=True, eq=False):
    """A query and what it names. Everything but `text` can be read off `text`."""

    text: str
    product: int
    mask: int
    subset: str
    name: int
    phrasing: int
    modifier: int
    """Index in the category's modifiers, -1 for none."""


def make_intent(product: Product, rand: Rand) -> Intent:
    """An intent about a product: some attributes, uses and brands are commoner than others."""
    a = int(rand() * rand() * product.own_attributes)
    b = int(rand() * (len(product.attributes) - 1))
    b += b >= a
    attributes, uses = len(product.attributes), len(product.uses)
    use = attributes + int(rand() * uses)
    brands = len(product.category.brands)
    first = attributes + uses
    brand = first + int(rand() * rand() * brands) if brands and rand() < 0.7 else None
    mask = 1 << a | 1 << b | 1 << use | (0 if brand is None else 1 << brand)
    return Intent(product, a, b, use, brand, mask)


def _mask(intent: Intent, subset: str) -> int:
    mask = 0
    if "a" in subset:
        mask |= 1 << intent.a
    if "b" in subset:
        mask |= 1 << intent.b
    if "u" in subset:
        mask |= 1 << intent.use
    if "r" in subset and intent.brand is not None:
        mask |= 1 << intent.brand
    return mask


def _attribute(text: str, slot: str, words: str, thing: str) -> str:
    """The attribute in its slot; nothing where the thing's name says it already; behind the
    name where it begins with 'with'."""
    if words in thing:
        words = ""
    elif words.startswith("with "):
        text, words = text.replace("{p}", f"{{p}} {words}"), ""
    return text.replace(slot, words)


def make_wording(
    lexicon: Lexicon, intent: Intent, subset: str, name: int, phrasing: int, modifier: int
) -> Wording:
    """The wording of a subset of an intent. The subset must not name a brand that is None."""
    product = intent.product
    subset_mask = _mask(intent, subset)
    templates = lexicon.phrases.queries[subset]
    phrasing = min(phrasing, len(templates) - 1)
    text = templates[phrasing]
    thing = product.names[name]
    if "a" in subset:
        text = _attribute(text, "{a}", product.attributes[intent.a], thing)
    if "b" in subset:
        text = _attribute(text, "{b}", product.attributes[intent.b], thing)
    if "u" in subset:
        text = text.replace("{u}", product.facet(intent.use))
    if "r" in subset and intent.brand is not None:
        text = text.replace("{r}", product.facet(intent.brand))
    text = text.replace("{p}", thing)
    if modifier >= 0:
        around = product.category.modifiers[modifier]
        if around.replace("{q}", "").strip() not in text:
            text = around.replace("{q}", text)
    text = " ".join(text.lower().split())
    return Wording(text, product.index, subset_mask, subset, name, phrasing, modifier)


def _pick_subset(intent: Intent, rand: Rand) -> str:
    while True:
        draw = rand()
        for subset in SUBSETS:
            draw -= SUBSET_WEIGHTS[subset]
            if draw < 0:
                break
        if intent.brand is not None or "r" not in subset:
            return subset


def sample_wording(
    lexicon: Lexicon, config: SimulatorConfig, intent: Intent, traits: Traits, rand: Rand
) -> Wording:
    """What this user would type for this intent."""
    product = intent.product
    subset = _pick_subset(intent, rand)
    name = traits.name_index(product)
    if rand() >= config.dialect_strength:
        name = int(rand() * len(product.names))
    phrasing = traits.phrasing
    if rand() >= config.phrasing_strength:
        phrasing = 1 - phrasing
    modifier = traits.modifier_index(product)
    draw = rand()
    if draw < 0.03:
        modifier = int(rand() * len(product.category.modifiers))
    elif draw >= 0.03 + 0.97 * config.modifier_rate:
        modifier = -1
    return make_wording(lexicon, intent, subset, name, phrasing, modifier)


def style_weights(
    config: SimulatorConfig, product: Product, traits: Traits
) -> list[tuple[float, int, int, int]]:
    """(probability, name, phrasing, modifier) of a user's likely styles, most likely first.

    Sums to a little under 1: modifiers that are not the user's own are left out.
    """
    names = len(product.names)
    own_name = traits.name_index(product)
    own_modifier = traits.modifier_index(product)
    rate = 0.97 * config.modifier_rate
    modifiers = [(own_modifier, rate), (-1, 0.97 - rate)] if own_modifier >= 0 else [(-1, 0.97)]
    styles = [
        (
            (config.dialect_strength * (name == own_name) + (1 - config.dialect_strength) / names)
            * (
                config.phrasing_strength
                if phrasing == traits.phrasing
                else 1 - config.phrasing_strength
            )
            * share,
            name,
            phrasing,
            modifier,
        )
        for name in range(names)
        for phrasing in (0, 1)
        for modifier, share in modifiers
    ]
    styles.sort(key=lambda style: (-style[0], style[1:]))
    return styles


def likely_wordings(
    lexicon: Lexicon, config: SimulatorConfig, intent: Intent, traits: Traits
) -> list[tuple[str, float]]:
    """A user's wordings of an intent with their probabilities, most likely first."""
    weights: dict[str, float] = {}
    total = sum(
        weight
        for subset, weight in SUBSET_WEIGHTS.items()
        if intent.brand is not None or "r" not in subset
    )
    for probability, name, phrasing, modifier in style_weights(config, intent.product, traits):
        for subset in SUBSETS:
            if "r" in subset and intent.brand is None:
                continue
            text = make_wording(lexicon, intent, subset, name, phrasing, modifier).text
            share = probability * SUBSET_WEIGHTS[subset] / total
            weights[text] = weights.get(text, 0.0) + share
    return sorted(weights.items(), key=lambda item: (-item[1], item[0]))
