"""What words are to the name of a thing, and queries put together of words that stand apart."""

from __future__ import annotations

import pytest

from onebar.evidence.text import clean_video
from onebar.evidence.words import words
from onebar.recommending.phrases.names import go_together, joint_features, role, synonyms
from onebar.recommending.phrases.spans import fields, spans, variants
from onebar.recommending.ranker import shipped_ranker
from onebar.records import VideoText


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("backpack", "H"),
        ("wireless", "Q"),
        ("camera", "B"),
        ("Zorvex", "U"),
        ("zorvex", "u"),
        ("TN-2110", "n"),
        ("the", "f"),
        ("explained", "v"),
        ("grandma", "p"),
        ("weekend", "t"),
        ("favourite", "j"),
        ("键盘", ""),
        ("кофе", "o"),
        ("бабушка", "p"),
    ],
)
def test_the_part_a_word_plays(word: str, part: str) -> None:
    assert role(words(word)[0]) == part


def test_neighbours_of_a_taxonomy_go_together() -> None:
    hard, drive, hub = words("hard drive hub")
    assert go_together(hard, drive)
    assert not go_together(drive, hub)
    assert joint_features(words("hard 键盘 drive")) == []
    assert len(joint_features(words("hard drive hub"))) == 2


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("Zorvex K200 silent wireless mouse black", "zorvex mouse"),
        ("Zorvex K200 silent wireless mouse black", "silent mouse"),
        ("Zorvex TN-21 toner cartridge", "zorvex toner cartridge"),
        ("Zorvex, in black: headphones with microphone", "zorvex headphones"),
        ("Zorvex DVD/Blu-ray player", "dvd player"),
    ],
)
def test_names_are_put_together(title: str, query: str) -> None:
    assert query in {span.text.lower() for span in spans(VideoText(title=title))}


@pytest.mark.parametrize(
    ("title", "query"),
    [
        # Over a word that joins, or into another part of the text.
        ("tips for dog owners with mouse", "dog mouse"),
        ("silent keyboard, wireless mouse", "silent mouse"),
        # What follows belongs to the name.
        ("Zorvex K200 silent mouse pad", "zorvex mouse"),
        # No number is put before a thing.
        ("2000 silent wireless mouse", "2000 mouse"),
    ],
)
def test_what_does_not_belong_together_stays_apart(title: str, query: str) -> None:
    assert query not in {span.text.lower() for span in spans(VideoText(title=title))}


def _called(title: str) -> set[str]:
    video = clean_video(VideoText(title=title))
    text = frozenset(word.key for field in fields(video) for word in field.words)
    return {span.text.lower() for span in variants(list(spans(video)), text)}


def test_what_a_thing_is_also_called() -> None:
    assert "gaming laptop" in _called("Zorvex gaming notebook Intel i7 16 GB")
    assert "zorvex memory stick" in _called("Zorvex USB flash drive 64 GB") | _called(
        "Zorvex flash drive 64 GB"
    )
    # A word with two meanings needs another that says which.
    assert not {text for text in _called("A5 dotted notebook hardcover") if "laptop" in text}
    assert list(synonyms(words("robot"), frozenset())) == []


def test_what_a_thing_is_also_called_is_among_the_best_spans() -> None:
    video = clean_video(VideoText(title="Zorvex gaming notebook Intel i7 16 GB"))
    best = shipped_ranker().best_spans(video)
    assert len({span.text for span in best}) == len(best)
    assert any("laptop" in span.text for span in best)
    few = shipped_ranker().best_spans(video, 2, {"laptop", "intel"})
    assert [span.text for span in few[:2]] == [span.text for span in best[:2]]
    assert "intel" in {span.text.lower() for span in few}
