"""What nobody would type of a Chinese title: half words, a character said again and again, two
things glued."""

from __future__ import annotations

from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.words import words
from onebar.recommending.candidates import choose
from onebar.recommending.grounding import Drop, Ground, is_fragment
from onebar.recommending.material import Material
from onebar.recommending.phrases.names import glues, measures
from onebar.recommending.phrases.spans import spans
from onebar.recommending.pool import shipped_taste
from onebar.records import Candidate, VideoText

_THINGS = ("马面裙", "保温杯", "行李箱", "充电宝", "羽毛球拍", "电热毯")
_QUALITIES = ("防水", "加厚", "便携", "复古")
_GOES_WITH_ANY = ("飞机", "奶奶", "牛奶", "豆沙", "法式", "木耳")
_AGAIN = "巨哈绝冲香爆"


def _said(title: str) -> set[str]:
    """Every span of a title, and all that are put together of it."""
    video = VideoText(title=title)
    best = shipped_taste().ranker.best_spans(video)
    return {span.text for span in (*spans(video), *best)}


@given(st.sampled_from(_AGAIN), st.integers(3, 6), st.sampled_from(_THINGS), st.booleans())
def test_a_character_said_again_and_again_is_in_no_query(
    char: str, times: int, thing: str, behind: bool
) -> None:
    shouted = char * times
    said = _said(f"{thing}{shouted}" if behind else f"{shouted}好用的{thing}")
    assert thing in said
    assert not [text for text in said if char * 2 in text]


@given(st.sampled_from(_THINGS), st.sampled_from(_QUALITIES), st.data())
def test_two_things_are_not_glued(thing: str, quality: str, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([one for one in _THINGS if one != thing]))
    said = _said(f"{thing}{quality}女 {other}")
    assert {thing, other} <= said
    assert f"{thing}{quality}" in said
    assert not [text for text in said if f"{thing}{other}" in text.replace(" ", "")]


@given(st.permutations(("马面裙", "加绒", "飞机")))
def test_a_model_glues_none(order: list[str]) -> None:
    ground = Ground(["马面裙 加绒 飞机"])
    why = ground.drop(words("".join(order)))
    between = order.index("加绒") == 1
    assert (why is None) == between
    if not between:
        assert why is Drop.STRANGE


def test_what_a_text_has_together_stays_together() -> None:
    assert Ground(["马面裙飞机袖上衣"]).drop(words("马面裙飞机袖")) is None
    for first, then in permutations(_THINGS, 2):
        assert glues(words(first)[-1], words(then)[0])
    assert not glues(words("运动鞋")[-1], words("女")[0])


@given(st.sampled_from(_GOES_WITH_ANY), st.sampled_from("味款风袖边"), st.sampled_from(_THINGS))
def test_a_word_keeps_the_character_that_goes_with_it(word: str, char: str, thing: str) -> None:
    said = _said(f"新款{word}{char} {thing}防水")
    assert thing in said
    assert not [text for text in said if word in text and f"{word}{char}" not in text]
    assert not [text for text in said if text.startswith(char)]


def test_half_of_what_is_said_twice_is_none() -> None:
    said = _said("宽松暖暖保暖外套")
    assert "保暖外套" in said
    assert not [text for text in said if text.startswith("暖保") or text.endswith("松暖")]


@given(
    st.sampled_from(sorted(key for key in measures() if not key.isascii() and len(key) == 1)),
    st.integers(2, 90),
)
def test_a_model_leaves_no_measure_without_its_number(measure: str, number: int) -> None:
    ground = Ground([f"{number}{measure}饼干"])
    found = words(f"{measure}饼干")
    counts = any(
        one.tag == "m" and other.text == measure
        for one, other in pairwise(words(f"{number}{measure}饼干"))
    )
    if counts and found[0].text == measure:
        assert ground.drop(found) is not None
    assert ground.drop(words("饼干")) is None


def test_a_beam_of_them_shows_none() -> None:
    foolish = ("马面裙飞机", "驼男鞋", "巨巨巨", "根饼干")
    beam = [Candidate(text, -0.5 - at / 10) for at, text in enumerate(foolish)]
    title = "马面裙女春 巨巨巨好看 骆驼男鞋 飞机袖上衣 10根饼干"
    shown = choose(Material(VideoText(title=title)), beam, 8)
    assert shown.queries
    assert not set(foolish) & {query.text for query in shown.queries}


@given(
    st.sampled_from(("贴贴", "透明", "小熊猫", "葡萄籽")), st.sampled_from("霜膏茶灯"), st.data()
)
def test_no_query_begins_with_the_rest_of_a_name(
    before: str, char: str, data: st.DataObject
) -> None:
    thing = data.draw(st.sampled_from(_THINGS))
    said = _said(f"{before}{char}{thing}防水")
    assert thing in said
    assert not [text for text in said if text.startswith(char + thing[0])]


@given(st.sampled_from(("海竿", "地垫", "枕头")), st.sampled_from(("竿包", "垫子", "头绳")))
def test_no_character_is_said_twice_where_two_pieces_meet(first: str, then: str) -> None:
    said = _said(f"{first}加厚女 红色{then}")
    assert first in said
    assert not [text for text in said if first[-1] * 2 in text]


def test_two_things_are_not_glued_over_whom_one_is_for() -> None:
    said = _said("耳环男简约磨砂 木耳")
    assert {"耳环男", "木耳"} <= said
    assert not [text for text in said if "耳环男木耳" in text]


def test_things_that_a_slash_parts_are_no_query() -> None:
    assert is_fragment("苹果/华为")
    assert not is_fragment("dvd/blu-ray player")


_TELLS = ("见到", "愣住", "必看", "没想到", "居然", "果然", "变成", "最火", "忍不住", "停不下来")
_ANYBODY = ("孩子", "爸妈", "阿姨", "普通人", "现场", "地方", "每天", "周末")


@given(st.sampled_from(_TELLS), st.sampled_from(_THINGS), st.booleans())
def test_what_only_tells_a_story_is_in_no_query(tells: str, thing: str, behind: bool) -> None:
    said = _said(f"{thing}，{tells}了" if behind else f"{tells}了，{thing}")
    assert thing in said
    assert not [text for text in said if tells in text]


@given(st.sampled_from(_ANYBODY), st.sampled_from(_THINGS))
def test_what_is_in_any_video_is_no_query_by_itself(anything: str, thing: str) -> None:
    said = _said(f"{anything}，{thing}")
    assert thing in said
    assert anything not in said
