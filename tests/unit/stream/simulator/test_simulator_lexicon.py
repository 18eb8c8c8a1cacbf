"""The vocabularies, and what a broken one is told."""

from __future__ import annotations

from typing import Any

import pytest

from stream.simulator.config import LANGS, Lang
from stream.simulator.texts.lexicon import (
    REQUIRED_LISTS,
    SUBSET_WEIGHTS,
    SUBSETS,
    LexiconError,
    load_lexicon,
    parse_lexicon,
    parse_phrases,
)


@pytest.mark.parametrize("lang", LANGS)
def test_the_shipped_vocabulary_is_large_and_varied(lang: Lang) -> None:
    lexicon = load_lexicon(lang)
    products = [p for p in lexicon.products if p.category.kind == "product"]
    topics = [p for p in lexicon.products if p.category.kind == "info"]
    assert len(products) >= 200
    assert len({p.category.key for p in products}) >= 12
    assert len(topics) >= 40
    assert all(len(p.names) >= 2 for p in lexicon.products)


@pytest.mark.parametrize("lang", LANGS)
def test_entries_hold_no_slots_and_no_stray_space(lang: Lang) -> None:
    for product in load_lexicon(lang).products:
        brands = product.category.brands
        for words in (*product.names, *product.attributes, *product.uses, *brands):
            assert words == words.strip()
            assert words
            assert "{" not in words


def test_every_subset_has_a_weight() -> None:
    assert set(SUBSETS) == set(SUBSET_WEIGHTS)
    assert sum(SUBSET_WEIGHTS.values()) == pytest.approx(1.0)


def phrases_data() -> dict[str, Any]:
    data: dict[str, Any] = {"queries": {subset: ["{p}"] for subset in SUBSETS}}
    for name in REQUIRED_LISTS:
        section, key = name.split(".")
        data.setdefault(section, {})[key] = ["{p} {r}", "{p}"]
    data["modifiers"]["audience"] = "{q} {w}"
    data["sensitive"] = {"bad": {"texts": ["x"], "hints": ["y"]}}
    return data


def lexicon_data() -> dict[str, Any]:
    item = {"also": ["thingy"], "with": ["red", "big"], "for": ["home"]}
    return {"cat": {"kind": "product", "brands": ["Acme"], "items": {"thing": item}}}


def parse(data: dict[str, Any]) -> object:
    return parse_lexicon("en", data, parse_phrases(phrases_data(), "p.toml"), "l.toml")


def test_a_small_vocabulary_parses() -> None:
    parse(lexicon_data())


def test_a_name_stands_once() -> None:
    data = lexicon_data()
    data["cat"]["items"]["thingy"] = {"with": ["a", "b"], "for": ["c"]}
    with pytest.raises(LexiconError, match="'thingy' is already in"):
        parse(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "toy"}, "kind must be"),
        ({"brands": []}, "brands"),
        ({"price": [5, 1]}, "price"),
        ({"items": []}, "items"),
        ({"items": {"x": {"with": ["one"], "for": ["y"]}}}, "at least 2"),
        ({"items": {"x": {"with": ["a", "b"]}}}, "for"),
        ({"items": {"x": {"with": ["a", 3], "for": ["y"]}}}, "strings"),
    ],
)
def test_a_broken_category_is_named(change: dict[str, Any], message: str) -> None:
    data = lexicon_data()
    data["cat"] |= change
    with pytest.raises(LexiconError, match=message):
        parse(data)


@pytest.mark.parametrize("section", ["queries", "titles", "sensitive", "noise"])
def test_missing_phrases_are_named(section: str) -> None:
    data = phrases_data()
    del data[section]
    with pytest.raises(LexiconError):
        parse_phrases(data, "p.toml")
