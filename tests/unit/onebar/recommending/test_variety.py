"""A bar's queries differ as much as is asked for."""

from __future__ import annotations

from math import exp

from hypothesis import given
from hypothesis import strategies as st

from onebar.ranking.overlap import likeness
from onebar.recommending.variety import LEADING, SHARPNESS, varied

TEXTS = st.lists(st.text("abcd ", min_size=1, max_size=8), max_size=8, unique=True)


@given(TEXTS, st.data(), st.integers(1, 8), st.floats(0, 1))
def test_the_best_is_in_and_the_order_is_that_of_the_scores(
    texts: list[str], data: st.DataObject, k: int, variety: float
) -> None:
    scores = [data.draw(st.floats(-5, 5)) for _ in texts]
    chosen = varied(texts, scores, k, variety)
    assert len(chosen) == len(set(chosen)) == min(k, len(texts))
    assert [scores[at] for at in chosen] == sorted((scores[at] for at in chosen), reverse=True)
    if texts:
        assert scores[chosen[0]] == max(scores)
    if not variety:
        assert chosen == sorted(range(len(texts)), key=lambda at: (-scores[at], at))[:k]


def test_one_that_says_the_same_makes_room() -> None:
    texts = ["red trail shoes", "red trail shoe", "lamp"]
    assert varied(texts, [2.0, 1.9, 1.0], 2, 0.0) == [0, 1]
    assert varied(texts, [2.0, 1.9, 1.0], 2, 0.9) == [0, 2]


def one_by_one(texts: list[str], scores: list[float], k: int, variety: float) -> list[int]:
    """The definition: of all that are left the one that is worth most now."""
    left = sorted(range(len(texts)), key=lambda at: (-scores[at], at))[: LEADING * k]
    worth = {at: exp(scores[at] - scores[left[0]]) for at in left}
    chosen: list[int] = []
    while left and len(chosen) < k:
        best = max(left, key=lambda at: (worth[at], scores[at], -at))
        chosen.append(best)
        left.remove(best)
        for at in left:
            worth[at] *= 1 - variety * likeness(texts[best], texts[at]) ** SHARPNESS
    return sorted(chosen, key=lambda at: (-scores[at], at))


@given(
    st.lists(st.text("ab ", min_size=1, max_size=8), max_size=24),
    st.data(),
    st.integers(1, 8),
    st.floats(0, 1),
)
def test_what_is_looked_at_late_is_chosen_as_if_all_were(
    texts: list[str], data: st.DataObject, k: int, variety: float
) -> None:
    scores = [data.draw(st.sampled_from((-2.0, -1.0, -0.5, -0.25, 0.0))) for _ in texts]
    assert varied(texts, scores, k, variety) == one_by_one(texts, scores, k, variety)
