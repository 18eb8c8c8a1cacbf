"""What generated queries are held against."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.words import words
from onebar.recommending.grounding import (
    Drop,
    Ground,
    Lexicon,
    LexiconError,
    calibrated_floor,
    presentable,
    token_log_probability,
)
from onebar.records import Candidate

KAYAK = Ground(
    ["Our first time on an inflatable kayak", "双人充气皮划艇 Intex K2", "paddle holder"]
)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("inflatable kayak", None),
        ("kayaks", None),
        ("kayaking gear", None),
        ("充气艇", None),
        ("皮划艇 2025", Drop.NONWORD),
        ("intex", None),
        ("mixed nuts", Drop.UNGROUNDED),
        ("the for 2", Drop.FRAGMENT),
        ("inflatable kayak in", Drop.FRAGMENT),
        ("at inflatable kayak", Drop.FRAGMENT),
        ("in inflatable kayak", None),
        ("皮划艇怎么样", None),
        ("kayak k2000", Drop.NONWORD),
        ("kayak kayaks", Drop.REPEATED),
        ("каяк", Drop.SCRIPT),
        ("น้ำหอม", Drop.SCRIPT),
        ("kayak 皮划艇", None),
    ],
)
def test_verdicts(query: str, why: Drop | None) -> None:
    assert KAYAK.drop(words(query)) == why


def test_a_word_that_exists_nowhere_is_none() -> None:
    lexicon = Lexicon.of(["volume paddle boards", "inflatable dinghy"])
    assert KAYAK.drop(words("kayak volumumizing"), lexicon) is Drop.NONWORD
    assert KAYAK.drop(words("inflatable dinghy"), lexicon) is None
    assert KAYAK.drop(words("kayak dinghy"), lexicon) is Drop.STRANGE
    # A taxonomy of products and jieba's dictionary are always at hand.
    assert KAYAK.drop(words("kayak accessories"), lexicon) is None
    assert KAYAK.drop(words("kayak helmet"), lexicon) is Drop.STRANGE
    assert KAYAK.drop(words("皮划艇 头盔"), lexicon) is None
    assert KAYAK.drop(words("kayak 头盔"), lexicon) is Drop.STRANGE
    # Without a lexicon there is no telling.
    assert KAYAK.drop(words("kayak volumumizing")) is None


def test_evidence_of_pictures_only_is_empty() -> None:
    assert Ground(["!!! ...", ""]).empty
    assert not KAYAK.empty


def test_a_lexicon_survives_its_file(tmp_path: Path) -> None:
    lexicon = Lexicon.of(["wi-fi routers", "羽绒服", "น้ำหอม"])
    lexicon.save(tmp_path / "lexicon.bin")
    read = Lexicon.load(tmp_path / "lexicon.bin")
    assert len(read) == len(lexicon)
    assert all(key in read for key in ("wi", "fi", "router", "羽绒服"))
    assert "zapper" not in read
    (tmp_path / "broken.bin").write_bytes(b"12345")
    with pytest.raises(LexiconError, match="no whole words"):
        Lexicon.load(tmp_path / "broken.bin")
    (tmp_path / "mixed.bin").write_bytes(b"\xff\xff\xff\xff" + bytes(4))
    with pytest.raises(LexiconError, match="not in order"):
        Lexicon.load(tmp_path / "mixed.bin")


def test_the_floor_lies_below_most_good_candidates() -> None:
    good = [Candidate("trail shoes", -0.1 * i) for i in range(1, 101)]
    floor = calibrated_floor(good, 0.02)
    assert sum(token_log_probability(one) < floor for one in good) <= 2
    assert token_log_probability(Candidate("trail shoes", -30.0)) < floor
    with pytest.raises(ValueError, match="at least one"):
        calibrated_floor([])


def test_a_word_of_nothing_that_a_key_keeps_is_no_failure() -> None:
    [lone] = words("\u0640")  # a tatweel, which only stretches letters
    assert lone.key == ""
    assert Ground(["inflatable kayak"]).drop(words("kayak \u0640")) is Drop.SCRIPT


@given(st.text("abC 9皮é[<sep>/]?\ufffd", max_size=70))
def test_most_queries_are_presentable_at_a_glance_and_none_otherwise(text: str) -> None:
    # With space around it no text is taken for a plain one.
    assert presentable(text) == presentable(f" {text} ")
