"""What no reader would type is in no list: half words, bare qualities, numbers left hanging."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.words import words
from onebar.recommending.candidates import choose
from onebar.recommending.grounding import Drop, Ground
from onebar.recommending.material import Material
from onebar.recommending.phrases.names import measures
from onebar.recommending.phrases.spans import spans
from onebar.recommending.phrases.whole import repeats
from onebar.records import Candidate, VideoText

_QUALITIES = ("black", "blk", "interactive", "crispy", "small", "medium", "gray", "universal")
_THINGS = ("keyboard", "backpack", "kettle", "lamp", "tent")
_CHINESE = (
    "迪士尼",
    "电动车",
    "洗发水",
    "小龙虾",
    "汉服",
    "续航",
    "羽绒服",
    "泡泡玛特",
    "芝士",
)
_MEASURED = ("weeks", "pieces", "inch", "days", "euros")


def _said(title: str) -> set[str]:
    return {span.text for span in spans(VideoText(title=title))}


@given(
    st.lists(st.sampled_from(_QUALITIES), min_size=1, max_size=3, unique=True),
    st.sampled_from(_THINGS),
)
def test_a_quality_needs_a_thing(qualities: list[str], thing: str) -> None:
    said = _said(" ".join([*qualities, thing]))
    assert thing in said
    assert f"{qualities[-1]} {thing}" in said
    assert not [text for text in said if set(text.split()) <= set(_QUALITIES)]


@given(st.sampled_from(_THINGS), st.integers(2, 900), st.sampled_from(_MEASURED))
def test_a_number_stays_with_what_it_counts(thing: str, number: int, measure: str) -> None:
    said = _said(f"{thing} for {number} {measure} at home")
    assert not [text for text in said if text.endswith(str(number))]
    assert not [text for text in said if text.startswith(measure)]
    assert f"{thing} for {number} {measure}" in said


@pytest.mark.parametrize(
    ("title", "kept", "left"),
    [
        ("file your 15 forms before May", "file your 15 forms", "file your 15"),
        ("case for iPhone 15 with a strap", "case for iPhone 15", "15 with a strap"),
        ("云南小土豆10斤新鲜", "云南小土豆", "云南小土豆10"),
        ("packing the hospital bag", "hospital bag", "bag packing"),
        ("a filter for the coffee maker", "coffee maker", "filter for the coffee"),
        ("Day 12 of couch to 5k", "couch to 5k", "12 of couch"),
        ("Acme self cleaning litter box", "Acme litter box", "self litter box"),
        ("孩子写作业磨蹭的三个原因", "写作业", "孩子写"),
        ("原神新角色抽到手软", "新角色", "原神新"),
        ("十三香小龙虾刷干净", "小龙虾", "小龙虾刷"),
        ("沙发罩全包防滑", "沙发罩", "沙发"),
    ],
)
def test_pieces_of_a_sentence(title: str, kept: str, left: str) -> None:
    said = _said(title)
    assert kept in said
    assert left not in said


@given(st.lists(st.sampled_from(_CHINESE), min_size=1, max_size=4, unique=True), st.data())
def test_half_a_chinese_word_is_none(title: list[str], data: st.DataObject) -> None:
    text = "".join(title)
    ground = Ground([text])
    edges = {0, *(word.end for word in words(text))}
    first = data.draw(st.integers(0, len(text) - 1))
    last = data.draw(st.integers(first + 1, len(text)))
    query = text[first:last]
    whole = {first, last} <= edges
    why = ground.drop(words(query))
    if whole:
        assert why is None
    elif first not in edges:
        assert why is not None


@pytest.mark.parametrize(
    ("title", "query", "why"),
    [
        ("新国标电动车实测续航", "电动车续航", None),
        ("新国标电动车实测续航", "新国标电动自行车", None),
        ("新国标电动车实测续航", "车实测续航", Drop.NONWORD),
        ("新国标电动车实测续航", "电动车实", Drop.NONWORD),
        ("新国标电动车实测续航", "新国标电动", Drop.NONWORD),
        ("生姜防脱洗发水控油", "发水控油", Drop.NONWORD),
        ("迪士尼儿童内衣", "迪士尼内衣女", None),
        ("迪士尼儿童内衣", "士尼内衣", Drop.NONWORD),
        ("植物染发剂染发膏", "染发染发剂", Drop.REPEATED),
        ("国庆去哪儿人少", "国庆去", Drop.FRAGMENT),
        ("国庆去哪儿人少", "国庆去哪儿", None),
        ("健康掉到80要不要换", "健康掉", Drop.FRAGMENT),
        ("健康掉到80要不要换", "换", Drop.FRAGMENT),
        ("孩子写作业磨蹭的三个原因", "三个原因", Drop.FRAGMENT),
        ("毛线钩一朵向日葵", "毛线钩一朵", Drop.FRAGMENT),
        ("My sourdough never rises", "rises for sourdough", Drop.STRANGE),
        ("tennis drills for beginners", "tennis for beginners", None),
        ("I replaced my laptop for a week", "laptop for a week", Drop.STRANGE),
        ("Conical burr coffee grinder, 31 settings", "coffee grinder 31", Drop.STRANGE),
        ("case that fits the iPhone 15", "iphone 15 case", None),
        ("Learning to play Blackbird", "play black", Drop.NONWORD),
        ("Our first kayaking trip", "kayak trip", None),
        ("Our parrot learned to swear", "our parrot", Drop.FRAGMENT),
    ],
)
def test_what_a_model_may_make_of_a_title(title: str, query: str, why: Drop | None) -> None:
    assert Ground([title]).drop(words(query)) == why


@pytest.mark.parametrize(
    ("run", "again"), [("妈妈妈", True), ("染发染发剂", True), ("瘦瘦靴", False)]
)
def test_characters_said_again(run: str, again: bool) -> None:
    assert repeats(run) is again


def test_a_measure_is_a_match_key() -> None:
    assert all(words(measure)[0].key == measure for measure in measures() if measure.isascii())


def test_nothing_of_a_beam_of_half_words_is_shown() -> None:
    beam = [
        Candidate(text, -1.0 - at) for at, text in enumerate(("虾刷干", "小龙虾刷", "香小龙虾"))
    ]
    shown = choose(Material(VideoText(title="十三香小龙虾刷干净")), beam, 8)
    assert not {"虾刷干", "小龙虾刷", "香小龙虾"} & {query.text for query in shown.queries}
