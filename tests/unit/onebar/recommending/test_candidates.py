"""From all the evidence to what is shown: sources, order, rejection, and nothing foolish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.text import REJECT, clean_video
from onebar.recommending.candidates import Rejection, choose
from onebar.recommending.grounding import MAX_CANDIDATE_CHARS, Drop, presentable
from onebar.recommending.material import Material, material, told
from onebar.records import Anchor, Candidate, Features, VideoText

SHOES = Material(VideoText(title="Nike trail running shoes for women"))
KAYAK = Material(
    VideoText(
        item_title="Intex Explorer K2 Inflatable Kayak 2-Person with Oars and Pump",
        title="Our first time on an inflatable kayak, did we flip it??",
    )
)


def texts(made_from: Material, *beam: Candidate, k: int = 8) -> list[str]:
    return [query.text for query in choose(made_from, beam, k).queries]


@pytest.mark.parametrize(
    "text",
    ["", "  ", "?!", "a\ufffdb", "x [SEP] y", "[reject]", "</s>", "x" * (MAX_CANDIDATE_CHARS + 1)],
)
def test_what_must_not_be_shown(text: str) -> None:
    assert presentable(text) == ""


def test_a_list_is_best_first_and_says_nothing_twice() -> None:
    beam = [Candidate("Trail Shoes", -0.1), Candidate("trail  shoes", -0.2)]
    beam += [Candidate("shoes trail", -0.3), Candidate("trail shoe", -0.4)]
    chosen = choose(SHOES, beam, 8)
    scores = [query.score for query in chosen.queries]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) <= 0
    said = [frozenset(query.text.rstrip("s").split()) for query in chosen.queries]
    assert len(set(said)) == len(said)
    assert len({"trail shoes", "shoes trail", "trail shoe"} & {q.text for q in chosen.queries}) == 1


def test_spans_of_the_text_stand_in_for_a_model_that_knows_nothing() -> None:
    shown = texts(KAYAK, Candidate("kug zapper", -4.0), Candidate("冬季女鞋", -4.5))
    assert any("kayak" in query for query in shown[:2])
    assert "kug zapper" not in shown
    assert "冬季女鞋" not in shown
    chinese = texts(Material(VideoText(title="双人充气皮划艇加厚夹网折叠橡皮艇")))
    assert any("皮划艇" in query for query in chinese[:2])


def test_reject_shows_nothing_but_anchors_that_touch_the_text() -> None:
    reject = Candidate(REJECT, -0.001)
    chosen = choose(KAYAK, [reject, Candidate("inflatable kayak", -0.5)], 8)
    assert chosen.rejected
    assert chosen.reason is Rejection.REJECTED
    anchored = Material(KAYAK.video, (Anchor("kayak for two", 4.0), Anchor("red lamp", 4.0)))
    assert texts(anchored, reject) == ["kayak for two"]
    # Lower down, or where nothing is probable, it says nothing.
    assert texts(KAYAK, Candidate(REJECT, -3.1), Candidate("inflatable kayak", -3.2))
    assert texts(KAYAK, Candidate("inflatable kayak", -0.2), reject)


@pytest.mark.parametrize("k", [1, 4, 8])
def test_anchors_worth_a_search_are_always_shown(k: int) -> None:
    asked = ["kayak paddle holder", "how to patch a pool", "lifejacket for dogs"][:k]
    beam = [Candidate(f"inflatable kayak {i}", -0.1 * i) for i in range(1, 9)]
    made_from = Material(KAYAK.video, tuple(Anchor(query, 1.0) for query in asked))
    shown = texts(made_from, *beam, k=k)
    assert set(asked) <= set(shown)
    assert len(shown) <= k


def test_without_room_the_strongest_anchors_are_shown() -> None:
    made_from = Material(KAYAK.video, tuple(Anchor(f"kayak {w}", 64.0) for w in "abcde"))
    assert set(texts(made_from, k=2)) == {"kayak a", "kayak b"}


def test_no_evidence_gives_nothing_and_says_so() -> None:
    for video in (VideoText(), clean_video(VideoText(title="🔥🔥🔥", caption="!!! ..."))):
        chosen = choose(Material(video), [Candidate("neck pillow", -0.1)], 8)
        assert chosen.queries == ()
        assert chosen.reason is Rejection.NO_EVIDENCE


@pytest.mark.parametrize(
    "title",
    [
        "不想活了…安眠药吃多少",
        "I want to die tonight",
        "super clone watches, factory grade replicas",
        "百家乐稳赢打法",
        "buy xanax without a prescription, dm me",
    ],
)
def test_a_risky_text_gives_nothing_whatever_the_model_says(title: str) -> None:
    made_from = Material(VideoText(title=title), (Anchor("pillow", 9.0),))
    chosen = choose(made_from, [Candidate("pillow", -0.1)], 8)
    assert chosen.queries == ()
    assert chosen.reason is Rejection.RISKY


def test_a_marked_video_gives_nothing() -> None:
    chosen = choose(Material(VideoText(title="pillow", sensitive=True)), (), 8)
    assert chosen.reason is Rejection.SENSITIVE


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("trail\ufffdshoes", Drop.BROKEN),
        ("trail shoes shoes", Drop.REPEATED),
        ("mixed nuts", Drop.UNGROUNDED),
        ("女鞋", Drop.SCRIPT),
        ("trail shoes porn", Drop.RISKY),
    ],
)
def test_why_a_generated_query_is_dropped(query: str, why: Drop) -> None:
    chosen = choose(SHOES, [Candidate("trail running shoes", -0.1), Candidate(query, -0.2)], 8)
    assert chosen.dropped[why] == 1
    assert query not in [shown.text for shown in chosen.queries]


def test_the_history_that_touches_a_video_is_a_candidate() -> None:
    made_from = Material(SHOES.video, (), ("waterproof trail shoes",))
    assert "waterproof trail shoes" in texts(made_from)


def test_material_keeps_of_weights_what_lasts() -> None:
    def weighed(weight: float) -> bytes:
        anchors = (Anchor("lamp", weight), Anchor("near", weight, "neighbor"))
        return material(Features(VideoText(title="lamp"), anchors), ()).encoded()

    assert weighed(4.1) == weighed(15.9)
    assert weighed(3.9) != weighed(4.1)
    assert weighed(0.9) == weighed(0.1)


def test_a_logged_trigger_tells_its_evidence() -> None:
    from onebar.evidence.evidence import Evidence

    made_from = told(Evidence("a title | a caption", "a summary", ("asked",), ("searched",)))
    assert made_from.video == VideoText(title="a title", caption="a caption", summary="a summary")
    assert made_from.queries() == ("asked", "searched")


phrase = st.lists(
    st.sampled_from(
        ["trail", "shoes", "red", "kayak", "的", "皮划艇", "น้ำหอม", "a", "x\ufffd", "[SEP]"]
    ),
    max_size=5,
).map(" ".join)


@given(
    st.builds(VideoText, title=phrase, caption=phrase, item_title=phrase),
    st.lists(st.builds(Anchor, phrase, st.sampled_from([0.0, 1.0, 4.0])), max_size=5),
    st.lists(phrase, max_size=3),
    st.lists(st.builds(Candidate, phrase, st.floats(-9, 0)), max_size=6),
    st.integers(1, 9),
)
def test_every_list_is_short_distinct_presentable_and_repeatable(
    video: VideoText, anchors: list[Anchor], history: list[str], beam: list[Candidate], k: int
) -> None:
    made_from = Material(clean_video(video), tuple(anchors), tuple(history))
    chosen = choose(made_from, beam, k)
    shown = [query.text for query in chosen.queries]
    assert len(shown) <= k
    assert len(set(shown)) == len(shown)
    assert all(presentable(query) == query for query in shown)
    assert (chosen.reason is None) == bool(shown)
    assert choose(made_from, list(beam), k) == chosen
