"""The vocabulary of one language: what is sold and talked about, and how people word it.

Read once from `data/lexicon.LANG.toml` and `data/phrases.LANG.toml` (format: `data/README.md`).
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from onebar.errors import OneBarError
from stream.simulator.config import Lang, SimulatorConfig

_DATA = Path(__file__).parents[1] / "data"

SUBSETS = ("a", "none", "u", "ab", "r", "au", "b", "ra")
"""Which parts of an intent a wording names: attributes a and b, use u, brand r."""
SUBSET_WEIGHTS = {
    "a": 0.34, "none": 0.16, "u": 0.15, "ab": 0.10, "r": 0.09, "au": 0.06, "b": 0.06, "ra": 0.04,
}  # fmt: skip
"""How often people name just these parts."""


class LexiconError(OneBarError, ValueError):
    """A vocabulary file that breaks its format. The text names the file and the entry."""


class Category(Struct, frozen=True, eq=False):
    key: str
    name: str
    kind: str
    """`product` for what is bought, `info` for what is watched and learnt."""
    audiences: tuple[str, ...]
    brands: tuple[str, ...]
    price: tuple[float, float]
    modifiers: tuple[str, ...]
    """Templates around a wording (`{q}`): those of the kind, then the audiences'."""
    kind_modifiers: int
    """How many of `modifiers` belong to the kind."""


class Product(Struct, frozen=True, eq=False):
    """A product type, or a topic. Facets are numbered: attributes, then uses, then brands."""

    index: int
    names: tuple[str, ...]
    """The canonical name first, then what else people call it."""
    category: Category
    own_attributes: int
    attributes: tuple[str, ...]
    """Its own, then the category's."""
    uses: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]

    def facet(self, number: int) -> str:
        """The words of a facet."""
        a, u = len(self.attributes), len(self.uses)
        if number < a:
            return self.attributes[number]
        return self.uses[number - a] if number < a + u else self.category.brands[number - a - u]


class Phrases(Struct, frozen=True, eq=False):
    """How a feed talks: lists of templates by section and name, as in the file."""

    queries: dict[str, tuple[str, ...]]
    lists: dict[str, tuple[str, ...]]
    """`section.name` → templates; also `section.name/unbranded`, those without `{r}`."""
    sensitive: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    """Topic, texts, hints."""


class Lexicon(Struct, frozen=True, eq=False):
    lang: Lang
    categories: tuple[Category, ...]
    products: tuple[Product, ...]
    phrases: Phrases


def _strings(value: Any, where: str, *, least: int = 1) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) < least
        or not all(isinstance(item, str) for item in value)
    ):
        raise LexiconError(f"{where}: expected a list of at least {least} strings, got {value!r}")
    return tuple(value)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LexiconError(f"{where}: expected a table, got {value!r}")
    return value


def parse_phrases(data: dict[str, Any], where: str) -> Phrases:
    """The phrases in a decoded file. Raises `LexiconError`."""
    lists: dict[str, tuple[str, ...]] = {}
    for section, table in data.items():
        if section in ("queries", "sensitive"):
            continue
        for name, value in _table(table, f"{where} [{section}]").items():
            if isinstance(value, str):
                value = [value]
            templates = _strings(value, f"{where} [{section}] {name}")
            lists[f"{section}.{name}"] = templates
            plain = tuple(template for template in templates if "{r}" not in template)
            lists[f"{section}.{name}/unbranded"] = plain or templates
    queries = {
        subset: _strings(_table(data.get("queries"), where).get(subset), f"{where} {subset}")
        for subset in SUBSETS
    }
    sensitive = tuple(
        (
            topic,
            _strings(table.get("texts"), f"{where} [sensitive.{topic}] texts"),
            _strings(table.get("hints"), f"{where} [sensitive.{topic}] hints"),
        )
        for topic, table in _table(data.get("sensitive"), where).items()
    )
    if not sensitive:
        raise LexiconError(f"{where} [sensitive]: expected at least one topic")
    missing = [name for name in REQUIRED_LISTS if name not in lists]
    if missing:
        raise LexiconError(f"{where}: missing {', '.join(missing)}")
    return Phrases(queries, lists, sensitive)


REQUIRED_LISTS = (
    "modifiers.product", "modifiers.info", "modifiers.audience", "titles.clear",
    "titles.clear_info", "titles.vague", "titles.mislead", "captions.clear",
    "captions.clear_info", "captions.vague", "noise.offtopic", "noise.promo", "noise.hashtags",
    "noise.mentions", "noise.emoji", "noise.authors", "item_titles.templates", "ocr.clear",
    "ocr.clear_info", "ocr.noise", "asr.clear", "asr.clear_info", "asr.noise",
    "summaries.templates", "summaries.templates_info", "summaries.sensitive",
)  # fmt: skip


def parse_lexicon(lang: Lang, data: dict[str, Any], phrases: Phrases, where: str) -> Lexicon:
    """The vocabulary in a decoded file. Raises `LexiconError`."""
    categories: list[Category] = []
    products: list[Product] = []
    seen: dict[str, str] = {}
    for key, raw in data.items():
        at = f"{where} [{key}]"
        table = _table(raw, at)
        kind = table.get("kind")
        if kind not in ("product", "info"):
            raise LexiconError(f"{at}: kind must be 'product' or 'info', not {kind!r}")
        audiences = _strings(table.get("audiences", []), f"{at} audiences", least=0)
        brands = _strings(table.get("brands", []), f"{at} brands", least=int(kind == "product"))
        price = table.get("price", [0, 0])
        if not (isinstance(price, list) and len(price) == 2 and 0 <= price[0] <= price[1]):
            raise LexiconError(f"{at}: price must be [lowest, highest], not {price!r}")
        own = phrases.lists[f"modifiers.{kind}"]
        audience = phrases.lists["modifiers.audience"][0]
        category = Category(
            key=key,
            name=str(table.get("name") or key),
            kind=kind,
            audiences=audiences,
            brands=brands,
            price=(float(price[0]), float(price[1])),
            modifiers=own + tuple(audience.replace("{w}", word) for word in audiences),
            kind_modifiers=len(own),
        )
        categories.append(category)
        shared = _strings(table.get("with", []), f"{at} with", least=0)
        for name, item in _table(table.get("items"), f"{at} items").items():
            item_at = f"{at} {name!r}"
            names = (name, *_strings(_table(item, item_at).get("also", []), item_at, least=0))
            for other in names:
                if other in seen:
                    raise LexiconError(f"{item_at}: {other!r} is already in {seen[other]}")
                seen[other] = item_at
            attributes = _strings(item.get("with"), f"{item_at} with", least=2)
            products.append(
                Product(
                    index=len(products),
                    names=names,
                    category=category,
                    own_attributes=len(attributes),
                    attributes=attributes + tuple(a for a in shared if a not in attributes),
                    uses=_strings(item.get("for"), f"{item_at} for"),
                )
            )
    if not products:
        raise LexiconError(f"{where}: no items")
    return Lexicon(lang, tuple(categories), tuple(products), phrases)


def _read(name: str) -> dict[str, Any]:
    path = _DATA / name
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LexiconError(f"{name}: not TOML: {error}") from None


@lru_cache(maxsize=4)
def load_lexicon(lang: Lang) -> Lexicon:
    """The shipped vocabulary of a language. Raises `LexiconError`."""
    phrases = parse_phrases(_read(f"phrases.{lang}.toml"), f"phrases.{lang}.toml")
    return parse_lexicon(lang, _read(f"lexicon.{lang}.toml"), phrases, f"lexicon.{lang}.toml")


def world_lexicon(config: SimulatorConfig) -> Lexicon:
    """The vocabulary of a world: the shipped one, with new names for its new things.

    Raises `LexiconError`.
    """
    lexicon = load_lexicon(config.lang)
    if not config.new_things:
        return lexicon
    new = new_things(config, len(lexicon.products))
    rand = random.Random(f"{config.seed}:{config.lang}:names").random
    taken = {name for product in lexicon.products for name in product.names}
    products = tuple(
        structs.replace(product, names=_invented(config.lang, taken, rand))
        if product.index in new
        else product
        for product in lexicon.products
    )
    return structs.replace(lexicon, products=products)


def new_things(config: SimulatorConfig, count: int) -> frozenset[int]:
    """Which of `count` things are new in a world, by index: at least one where any are to be."""
    if not config.new_things:
        return frozenset()
    order = list(range(count))
    random.Random(f"{config.seed}:{config.lang}:new").shuffle(order)
    return frozenset(order[: max(1, round(config.new_things * count))])


_ONSETS = (*"bdfghjklmnprstvz", "br", "cl", "dr", "fl", "gr", "kl", "pl", "st", "tr")
_VOWELS = (*"aeiou", "ai", "ee", "oo")
_CODAS = ("", "", "n", "r", "x", "sh", "m", "lt", "p")
_SYLLABLES = "米洛迪琪娜布麦诺科蒂芙珂尔达露克塔格菲卡泰拉戴果"


def _invented(lang: Lang, taken: set[str], rand: Callable[[], float]) -> tuple[str, ...]:
    """Two names that mean nothing, for one thing."""

    def pick(items: Sequence[str]) -> str:
        return items[int(rand() * len(items))]

    names: list[str] = []
    while len(names) < 2:
        if lang == "zh":
            name = "".join(pick(_SYLLABLES) for _ in range(3))
        else:
            name = "".join(pick(_ONSETS) + pick(_VOWELS) for _ in range(2)) + pick(_CODAS)
        if name not in taken:
            taken.add(name)
            names.append(name)
    return tuple(names)
