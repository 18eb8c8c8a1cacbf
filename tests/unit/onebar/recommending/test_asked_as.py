"""What people ask for in the place of what a Chinese text calls a thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.chinese import chinese_kinds
from onebar.evidence.text import clean_video
from onebar.evidence.words import words
from onebar.recommending.phrases.names import asked_as, called_so
from onebar.recommending.phrases.spans import (
    ASKED,
    ASKED_WORDS,
    Span,
    fields,
    signature,
    spans,
    variants,
)
from onebar.recommending.ranker import MOST_ASKED, Ranker, shipped_ranker
from onebar.records import VideoText

_THINGS = ("百褶裙", "滴眼液", "足金", "耳钉", "一脚蹬", "钓竿", "家居服", "裤", "裙子", "手机壳")
_OTHERS = ("回力", "高腰", "女", "男士", "防水", "新款", "的", "，", " ", "包邮", "2件", "red")
titles = st.lists(st.sampled_from([*_THINGS, *_OTHERS]), max_size=14).map("".join)
videos = st.builds(VideoText, title=titles, caption=titles).map(clean_video)


def _asked(text: str) -> set[str]:
    return {asked for _, _, asked in asked_as(words(text))}


def _made(video: VideoText, ranker: Ranker | None = None) -> list[Span]:
    found = (ranker or shipped_ranker()).best_spans(video)
    return [span for span in found if ASKED in span.context]


@pytest.mark.parametrize(
    ("called", "asked"),
    [
        ("半裙", "半身裙"),
        ("萘敏维滴眼液", "眼药水"),
        ("软底凉拖女", "拖鞋"),
        ("机车皮夹克女士", "皮衣"),
        ("高腰阔腿裤", "裤子"),
        ("草本洗发露", "洗发水"),
    ],
)
def test_what_people_ask_for(called: str, asked: str) -> None:
    assert asked in _asked(called)


def test_a_compound_that_the_list_has_not_is_of_the_kind_that_it_ends_with() -> None:
    assert "登山裤" not in {called for called in called_so() if not called.startswith("-")}
    assert _asked("登山裤") == {"裤子"}
    assert not _asked("牛奶")
    assert not _asked("面包")


@pytest.mark.parametrize("text", ["高腰内裤", "围裙", "收纳盒贴纸", "豆豆被豆豆毯", "二手手机"])
def test_nothing_is_called_what_it_is_not(text: str) -> None:
    assert not _asked(text)


@pytest.mark.parametrize("text", ["女", "手机壳收纳", "waterproof boots", "的", "裤子加厚"])
def test_only_the_thing_itself_is_called_otherwise(text: str) -> None:
    assert not _asked(text)


def test_the_list_says_nothing_twice_and_names_nothing_by_itself() -> None:
    for called, asked in called_so().items():
        assert called not in asked
        assert len(set(asked)) == len(asked)
        assert all(len(one) > 1 for one in asked)
        assert all(chinese_kinds().get(one) != "selling" for one in asked)


def test_a_title_is_answered_in_words_that_it_has_not() -> None:
    made = {span.text for span in _made(VideoText(title="欧货新款高腰百褶裙女显瘦"))}
    assert made
    assert made <= {"裙子", "半身裙", "裙子女", "半身裙女", "高腰裙子", "高腰半身裙", "显瘦裙子"}


def test_what_only_says_which_keeps_its_name() -> None:
    made = {span.text for span in _made(VideoText(title="电动车头盔夏季半盔男女"))}
    assert not [text for text in made if "电瓶车" in text]
    alone = {span.text for span in _made(VideoText(title="电动车夏季半盔男女"))}
    assert "电瓶车" in alone


def test_no_word_is_said_twice() -> None:
    made = {span.text for span in _made(VideoText(title="儿童电话手表防水小学生"))}
    assert "儿童手表" in made
    assert not [text for text in made if text.count("儿童") > 1]


@given(videos)
def test_such_a_span_is_short_and_says_nothing_twice(video: VideoText) -> None:
    text = " ".join(field.text for field in fields(video))
    made = _made(video)
    assert len(made) <= MOST_ASKED
    assert made == _made(video)
    for span in made:
        assert len(span.words) == len(span.seen) <= ASKED_WORDS
        keys = [word.key for word in span.words]
        assert len(set(keys)) == len(keys)
        assert not any(word.function for word in span.words)
        assert _of_the_text(span.text, text)


def _of_the_text(query: str, text: str) -> bool:
    """Whether all of a query is of a text but for one thing that the list has."""
    listed = {asked for row in called_so().values() for asked in row}
    rests = [query.split(asked, 1) for asked in listed if asked in query]
    return any(all(part.strip() in text for part in rest) for rest in rests)


@given(videos)
def test_none_stands_beside_one_that_says_the_same(video: VideoText) -> None:
    signatures = [signature(span.words) for span in shipped_ranker().best_spans(video)]
    assert len(set(signatures)) == len(signatures)


@given(videos)
def test_a_ranker_without_a_weight_for_it_has_none(video: VideoText) -> None:
    assert not _made(video, Ranker({"O:k:thing": 1.0}))
    assert not list(variants(list(spans(video)), frozenset(), asked=False))
