"""What one request wants."""

from __future__ import annotations

from typing import get_args

import pytest

from api.http.schemas import Language
from onebar.gating.rules import LANGUAGES
from onebar.gating.wants import select, wants_of
from onebar.records import Candidate

QUERIES = tuple(
    Candidate(text, -1.0)
    for text in ("Red shoes", "red shoes men", "红色 鞋", "42", "waterproof trail running shoes")
)


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ((["RED  shoes"], [], None, 0.0), [1, 2, 3, 4]),
        (([], ["zh"], None, 0.0), [2, 3]),
        (([], ["en", "zh"], None, 0.0), [0, 1, 2, 3, 4]),
        (([], [], 9, 0.0), [0, 2, 3]),
        (([], [], None, 0.5), [0, 2, 3, 4]),
        (([], [], None, 1.0), [0, 2, 3]),
    ],
)
def test_what_is_wanted_is_left(
    asked: tuple[list[str], list[str], int | None, float], left: list[int]
) -> None:
    wants = wants_of(*asked)
    assert wants is not None
    assert select(QUERIES, wants) == tuple(QUERIES[n] for n in left)


def test_nothing_in_particular_is_none() -> None:
    assert wants_of([], [], None, 0.0) is None


def test_the_languages_of_a_request_are_those_of_rules() -> None:
    assert get_args(Language) == LANGUAGES
