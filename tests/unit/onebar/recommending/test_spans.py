"""Spans of a text: their shape, their order, and that the fast sum is the sum of the features."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.text import clean_video
from onebar.evidence.words import words
from onebar.ranking.overlap import likeness
from onebar.recommending.phrases.composed import COMPOSED
from onebar.recommending.phrases.spans import (
    ANY_WORDS,
    ASKED,
    MAX_HAN_WORDS,
    SHAPELESS,
    signature,
    spans,
)
from onebar.recommending.ranker import (
    Proposal,
    Ranker,
    features,
    nearness,
    shipped_ranker,
    spread,
    worth,
)
from onebar.records import VideoText

texts = st.lists(
    st.sampled_from(
        [
            "the",
            "Robot",
            "vacuum",
            "30",
            "days",
            ",",
            "扫地机器人",
            "的",
            "基站",
            "น้ำหอมผู้ชาย",
            "जूते",
            "Q5",
        ]
    ),
    max_size=9,
).map(" ".join)
videos = st.builds(VideoText, title=texts, caption=texts, item_title=texts).map(clean_video)


def test_spans_neither_begin_nor_end_with_words_that_join() -> None:
    found = {span.text for span in spans(VideoText(title="Coffee in bed, 3 of the best mugs"))}
    assert "Coffee in bed" in found
    assert "mugs" in found
    assert not {"in bed", "Coffee in", "bed, 3", "of the best", "3"} & found


@pytest.mark.parametrize(
    ("title", "span"),
    [
        ("双人充气皮划艇加厚夹网", "充气皮划艇"),
        ("น้ำหอมผู้ชาย กลิ่นหอม", "น้ำหอมผู้ชาย"),
        ("महिलाओं के जूते", "महिलाओं के जूते"),
        ("کتاب\u200cهای درسی ارزان", "کتاب\u200cهای درسی"),
        ("ワイヤレスイヤホンの比較", "ワイヤレスイヤホン"),
        ("무선 이어폰 추천", "무선 이어폰"),
    ],
)
def test_every_script_has_spans_as_they_were_written(title: str, span: str) -> None:
    assert span in {found.text for found in spans(VideoText(title=title))}


def test_a_question_is_another_query_than_what_it_asks_about() -> None:
    keys = [signature(words(text)) for text in ("胃酸过多吃什么", "胃酸过多怎么吃", "胃酸过多吃")]
    assert len(set(keys)) == 3


@given(videos)
def test_loose_spans_come_besides_and_are_marked(video: VideoText) -> None:
    """Nothing of what has the shape of a query is lost or changed by them."""
    shaped = list(spans(video))
    any_shape = list(spans(video, any_shape=True))
    assert [one for one in any_shape if SHAPELESS not in one.context] == shaped
    text = " ".join((video.item_title, video.title, video.caption))
    for one in any_shape:
        if SHAPELESS in one.context:
            assert one.text in text
            assert len(one.words) <= ANY_WORDS


def test_loose_spans_may_end_with_words_that_ask() -> None:
    video = VideoText(title="胃酸过多吃什么好百度知道")
    assert "胃酸过多吃什么" not in {one.text for one in spans(video)}
    assert "胃酸过多吃什么" in {one.text for one in spans(video, any_shape=True)}


@given(videos)
def test_a_span_is_part_of_its_text(video: VideoText) -> None:
    text = " ".join((video.item_title, video.title, video.caption))
    for span in spans(video):
        rest = span.text
        if rest not in text:
            # Put together: a word that stands further ahead, and what stands there.
            lead, _, rest = rest.partition(" ")
            assert text.index(lead) < text.rindex(rest)
        assert rest in text
        assert 1 <= len(span.words) <= MAX_HAN_WORDS
        keys = [word.key for word in span.words]
        assert len(set(keys)) == len(keys)
        assert not span.words[0].function
        assert not span.words[-1].function


@pytest.mark.parametrize("any_shape", [False, True])
@given(video=videos)
def test_the_best_spans_are_best_by_the_sum_of_their_features(
    video: VideoText, any_shape: bool
) -> None:
    weights = {
        name: x for name, x in shipped_ranker().weights.items() if name not in (COMPOSED, ASKED)
    }
    ranker = Ranker({**weights, SHAPELESS: -0.7} if any_shape else weights)
    everything = [
        Proposal(span.text, span.words, span) for span in spans(video, any_shape=any_shape)
    ]
    scores = ranker.scores(everything)
    for proposal, score in zip(everything, scores, strict=True):
        summed = sum(ranker.weights.get(name, 0.0) * value for name, value in features(proposal))
        assert score == pytest.approx(summed, abs=1e-6)
    best: dict[str, float] = {}
    for proposal, score in zip(everything, scores, strict=True):
        key = signature(proposal.words)
        best[key] = max(score, best.get(key, score))
    found = ranker.best_spans(video)
    assert len(found) == len(best)
    ordered = ranker.scores([Proposal(span.text, span.words, span) for span in found])
    assert ordered == pytest.approx(sorted(best.values(), reverse=True), abs=1e-5)
    assert ranker.best_spans(video, 3) == found[:3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("trail shoes", "shoes trail"),
        ("trail shoes", "trail shoe"),
        ("trail shoes", "best trail shoes for the"),
        ("女童公主裙", "公主裙女童"),
        ("café table", "cafe tables"),
    ],
)
def test_what_says_the_same_has_one_signature(one: str, other: str) -> None:
    assert signature(words(one)) == signature(words(other))


def test_what_says_something_else_has_another() -> None:
    assert signature(words("trail shoes")) != signature(words("trail shoes women"))
    assert signature(words("the best")) != signature(words("for"))


class TestSpread:
    def test_it_takes_the_likeliest_first_and_then_what_is_new(self) -> None:
        near = nearness(["red shoes", "red shoes women", "blue lamp"], [0.5, 0.3, 0.2])
        assert spread(near, 2) == [0, 2]

    def test_what_must_be_in_is_in(self) -> None:
        near = nearness(["lamp", "red shoes", "shoes"], [0.01, 0.6, 0.39])
        assert spread(near, 2, kept=1) == [0, 1]

    @given(st.lists(st.text("ab c", max_size=6), max_size=8), st.integers(0, 9), st.integers(0, 9))
    def test_each_at_most_once_and_never_too_many(self, said: list[str], k: int, kept: int) -> None:
        chosen = spread(nearness(said, [1 / (1 + at) for at in range(len(said))]), k, kept)
        assert len(set(chosen)) == len(chosen) == min(k, len(said))


@given(st.lists(st.text("ab c", max_size=6), min_size=1, max_size=8), st.data())
def test_how_near_one_comes_is_its_overlap_by_what_the_other_is_worth(
    said: list[str], data: st.DataObject
) -> None:
    weights = [data.draw(st.floats(0.1, 1.0)) for _ in said]
    near = nearness(said, weights)
    for at, one in enumerate(said):
        expected = [likeness(one, other) * w for other, w in zip(said, weights, strict=True)]
        assert near[at].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "title", ["马面裙女春秋加绒新款汉服套装", "Acme K200 silent wireless mouse"]
)
def test_a_span_brings_the_score_that_its_features_have(title: str) -> None:
    ranker = shipped_ranker()
    for span in ranker.best_spans(VideoText(title=title)):
        with_it = Proposal(span.text, span.words, span)
        without = Proposal(span.text, span.words, span._replace(scored=("", 0.0)))
        assert ranker.scores([with_it]) == pytest.approx(ranker.scores([without]), abs=1e-5)


def test_of_two_that_are_as_likely_the_nearer_to_all_is_worth_more() -> None:
    weights = [0.34, 0.33, 0.33]
    merit = worth(nearness(["rotary", "phone", "rotary phone"], weights), weights)
    assert max(merit) == merit[2]


def test_weights_survive_their_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ranker = Ranker({"beam": 1.5, "S:id:女": -0.25}, {"texts": 3})
    ranker.save(tmp_path / "ranker.json")
    read = Ranker.load(tmp_path / "ranker.json")
    assert read.weights == ranker.weights
    assert read.digest == ranker.digest
    assert read.trained == {"texts": 3}
