"""Pieces of English sentences are in no list: who does something, what is done to whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.words import words
from onebar.recommending.grounding import Drop, Ground
from onebar.recommending.phrases.clauses import clause_ends, finite, is_clause
from onebar.recommending.phrases.spans import spans
from onebar.records import VideoText

_THINGS = ("laser pointer", "cast iron skillet", "trail running shoes", "litter box", "yogurt")
_ACTORS = ("cat", "toddler", "grandma", "neighbour", "puppy")
_OBJECTS = ("me", "my life", "our kitchen", "their dog")


def _said(title: str) -> set[str]:
    return {span.text for span in spans(VideoText(title=title))}


@given(st.sampled_from(_ACTORS), st.sampled_from(sorted(finite())), st.sampled_from(_THINGS))
def test_who_does_what_is_no_query_but_the_thing_is(actor: str, verb: str, thing: str) -> None:
    title = f"my {actor} {verb} the {thing}"
    said = _said(title)
    assert thing in said
    assert not [text for text in said if verb in text.split()]
    assert Ground([title]).drop(words(f"{actor} {verb} {thing}")) is Drop.FRAGMENT


@given(st.sampled_from(_THINGS), st.sampled_from(("save", "bring", "teach")),
       st.sampled_from(_OBJECTS))  # fmt: skip
def test_a_verb_stays_with_its_object(thing: str, verb: str, whom: str) -> None:
    assert not [text for text in _said(f"{thing} {verb} {whom}") if text.endswith(verb)]


@pytest.mark.parametrize(
    ("title", "kept", "left"),
    [
        ("your cat discovers the laser pointer", "laser pointer", "cat discovers"),
        ("we rented an ebike in amsterdam", "ebike", "rented an ebike"),
        ("my toddler refuses to sleep", "toddler", "toddler refuses"),
        ("we rented an ebike in amsterdam", "ebike in amsterdam", "rented"),
        ("barre chords are killing my fingers", "barre chords", "killing my fingers"),
        ("first time camping in the rain", "camping in the rain", "time camping in the rain"),
        ("home gym in a 6x6 corner", "home gym", "gym in a 6x6"),
        ("baking a chocolate cake", "chocolate cake", "cake baking"),
        ("how we cut our electricity bill", "electricity bill", "how we cut"),
        ("i built a closet under the stairs in one weekend", "closet", "built a closet"),
        ("i built a closet under the stairs in one weekend", "stairs", "stairs in one"),
        ("two ingredient bread", "ingredient bread", "two"),
    ],
)
def test_what_is_left_of_a_sentence(title: str, kept: str, left: str) -> None:
    said = _said(title)
    assert kept in said
    assert left not in said


@pytest.mark.parametrize(
    "query",
    ["how to clean a cast iron skillet", "what makes bread rise", "why does my cat hate baths",
     "baking a cake", "used car", "running shoes", "dance moves", "tv shows", "fried rice"],
)  # fmt: skip
def test_what_people_type_is_no_clause(query: str) -> None:
    assert not is_clause(words(query))


@given(st.lists(st.sampled_from(("cat", "discovers", "the", "killing", "my", "lamp", "rented",
                                 "an", "we", "red", "baking")), max_size=8))  # fmt: skip
def test_the_ends_of_clauses_are_those_of_each_phrase(said: list[str]) -> None:
    found = words(" ".join(said))
    ends = clause_ends(found)
    for first in range(len(found)):
        for last in range(first, len(found)):
            assert (ends[last] >= first) == is_clause(found[first : last + 1])


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("Día de campo, receta de carne asada", "receta de"),
        ("limpiar con bicarbonato y vinagre", "bicarbonato y"),
    ],
)
def test_what_only_joins_in_the_text_ends_no_query(title: str, query: str) -> None:
    assert Ground([title]).drop(words(query)) is Drop.FRAGMENT


def test_words_from_here_and_there_are_loose() -> None:
    ground = Ground(["grwm for my sister's graduation", "curling iron, dewy makeup"])
    assert ground.loose(words("graduation iron"), None) == 1
    assert ground.loose(words("curling iron"), None) == 0
    assert ground.loose(words("makeup for graduation"), None) == 0


def test_a_short_field_is_in_the_language_of_the_others() -> None:
    video = VideoText(title="Como limpiar las zapatillas blancas", caption="bicarbonato y vinagre")
    said = {span.text for span in spans(video)}
    assert "bicarbonato y vinagre" in said
    assert not [text for text in said if "y" in (text.split()[0], text.split()[-1])]
