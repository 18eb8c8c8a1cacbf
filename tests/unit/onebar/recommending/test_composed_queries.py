"""Composed queries: what they are made of, how they are written, what they are worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.chinese import chinese_kinds
from onebar.evidence.text import clean_video
from onebar.evidence.words import words
from onebar.recommending.candidates import choose
from onebar.recommending.material import Material
from onebar.recommending.phrases.composed import COMPOSED, Pair, apart, compose, pieces
from onebar.recommending.phrases.spans import Field, fields, signature, spans
from onebar.recommending.ranker import Proposal, Ranker, features, shipped_ranker
from onebar.records import VideoText

_THINGS = ("苏泊尔", "不粘", "炒锅", "家用", "女", "夏季", "连衣裙", "收纳", "盒", "手机壳", "红烧")
_OTHERS = ("官方", "正品", "包邮", "拍2件", "的", "，", "iPhone15", "4L", "red", " ")
titles = st.lists(st.sampled_from([*_THINGS, *_OTHERS]), max_size=12).map("".join)
videos = st.builds(VideoText, title=titles, item_title=titles).map(clean_video)


def _all(field: Field) -> list[Pair]:
    found = pieces(field)
    return [Pair(one, two) for one in found for two in found if apart(field, one, two)]


def _keys(text: str) -> list[str]:
    return [word.key for word in words(text)]


def _said(title: str) -> set[str]:
    return {
        compose(field, pair).text
        for field in fields(VideoText(title=title))
        for pair in _all(field)
    }


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("苏泊尔官方正品不粘炒锅家用", "苏泊尔炒锅"),
        ("夏季收腰显瘦连衣裙女", "夏季连衣裙"),
        ("女夏季收腰显瘦连衣裙", "连衣裙女"),
        ("磁吸手机壳适用iPhone15全包防摔", "iPhone15手机壳"),
        ("红烧排骨这样做，软烂脱骨，孩子爱吃", "红烧排骨 孩子"),
    ],
)
def test_what_people_type_of_a_title(title: str, query: str) -> None:
    assert query in _said(title)


def test_shops_talk_is_in_no_query() -> None:
    title = VideoText(title="官方旗舰店正品包邮苏泊尔炒锅家用不粘")
    said = {span.text for span in spans(title)} | _said(title.title)
    assert said
    assert not {
        word for text in said for word in ("官方", "旗舰店", "正品", "包邮") if word in text
    }


def test_no_piece_is_half_a_things_name() -> None:
    title = "回力防滑电工绝缘鞋透气耐磨"
    assert {"绝缘", "鞋"} <= {word.text for word in words(title)}
    said = _said(title)
    assert "回力绝缘鞋" in said
    assert not {"回力绝缘", "回力鞋", "透气绝缘"} & said


@pytest.mark.parametrize("title", ["Red trail running shoes for women", "घर का सामान सस्ता", ""])
def test_other_languages_are_left_alone(title: str) -> None:
    assert not _said(title)


@given(videos)
def test_a_composed_query_is_made_of_its_field(video: VideoText) -> None:
    for field in fields(video):
        for pair in _all(field):
            found = compose(field, pair)
            assert {word.key for word in found.words} <= {word.key for word in field.words}
            assert len({word.key for word in found.words}) == len(found.words)
            assert not found.words[0].function
            assert not found.words[-1].function
            assert all(chinese_kinds().get(word.text) != "selling" for word in found.words)


@given(videos)
def test_the_fast_sum_is_the_sum_of_the_features(video: VideoText) -> None:
    ranker = Ranker({**shipped_ranker().weights, COMPOSED: 0.1})
    found = ranker.best_spans(video)
    proposals = [Proposal(span.text, span.words, span) for span in found]
    scores = ranker.scores(proposals)
    assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    for proposal, score in zip(proposals, scores, strict=True):
        summed = sum(ranker.weights.get(name, 0.0) * value for name, value in features(proposal))
        assert score == pytest.approx(summed, abs=1e-6)
    signatures = [signature(span.words) for span in found]
    assert len(set(signatures)) == len(signatures)


@given(videos)
def test_a_ranker_that_knows_of_none_composes_none(video: VideoText) -> None:
    contiguous = {span.text for span in spans(video)}
    assert {span.text for span in Ranker({"O:k:thing": 1.0}).best_spans(video)} <= contiguous


def test_a_title_is_answered_as_people_search() -> None:
    title = "苏泊尔官方正品旗舰店麦饭石不粘锅炒锅家用新款包邮"
    shown = [query.text for query in choose(Material(VideoText(title=title)), (), 8).queries]
    assert "不粘锅" in shown
    assert any(query.startswith("苏泊尔") and query.endswith("锅") for query in shown)
