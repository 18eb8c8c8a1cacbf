"""No id can forge another's key or leave its own slot."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.keys import SEAL, Keys, StateKey, escape, unescape

nasty = st.text(st.one_of(st.sampled_from(list("{}:%\n\r\0 \"'*?[]/a0é中")), st.characters()))
sendable = st.text(st.sampled_from(list('{}:%\n "/é中')) | st.characters(codec="utf-8"))
KEYS = Keys("n", "g")
NAMES = {
    "text": KEYS.text,
    "anchors": KEYS.anchors,
    "neighbors": KEYS.neighbors,
    "counters": KEYS.counters,
    "fence": KEYS.fence,
    "seal": KEYS.seal,
    "seen": lambda video_id: KEYS.seen(video_id, 7),
    "cached": KEYS.cached,
    "cached_for": lambda video_id: KEYS.cached_for(video_id, "u"),
    "history": KEYS.history,
    "deletion": KEYS.deletion,
    "personal_videos": KEYS.personal_videos,
}


@given(nasty)
def test_unescape_undoes_escape(entity_id: str) -> None:
    assert unescape(escape(entity_id)) == entity_id


@given(nasty)
def test_an_escaped_id_holds_nothing_keys_are_built_with(entity_id: str) -> None:
    assert not re.search(r"[\x00-\x20\x7f\"{}:]", escape(entity_id))


@given(nasty, nasty, st.sampled_from(sorted(NAMES)), st.sampled_from(sorted(NAMES)))
def test_different_entities_have_different_keys(a: str, b: str, kind: str, other: str) -> None:
    assert (NAMES[kind](a) == NAMES[other](b)) == (a == b and kind == other)


@given(nasty, nasty, nasty, nasty)
def test_personal_keys_name_exactly_one_pair(v1: str, u1: str, v2: str, u2: str) -> None:
    assert (KEYS.cached_for(v1, u1) == KEYS.cached_for(v2, u2)) == ((v1, u1) == (v2, u2))


@given(nasty, nasty)
def test_what_answers_a_pair_is_named_as_elsewhere(video_id: str, user_id: str) -> None:
    video = [KEYS.cached(video_id), KEYS.seal(video_id)]
    user = [KEYS.cached_for(video_id, user_id), KEYS.deletion(user_id)]
    assert KEYS.answering([(video_id, user_id), (video_id, None)]) == [*video, *user, *video]


@given(sendable, sendable)
def test_a_key_says_what_it_holds(video_id: str, user_id: str) -> None:
    names = [name.encode() for name in KEYS.answering([(video_id, user_id)])]
    pairs = [(video_id, None), (video_id, SEAL), (video_id, user_id)]
    assert list(map(KEYS.slot, names)) == [*pairs, user_id]
    assert list(map(Keys("n", "g2").slot, names)) == [None, None, None, None]


@given(sendable, st.sampled_from(sorted(set(NAMES) - {"cached", "cached_for", "deletion", "seal"})))
def test_other_keys_hold_nothing_that_answers(entity_id: str, kind: str) -> None:
    assert KEYS.slot(NAMES[kind](entity_id).encode()) is None
    assert KEYS.slot(b"\xff") is None


@given(nasty, st.sampled_from(sorted(NAMES)))
def test_the_hash_tag_is_the_entity(entity_id: str, kind: str) -> None:
    key = NAMES[kind](entity_id)
    tag = key[key.index("{") + 1 : key.index("}")]
    assert unescape(tag[2:]) == entity_id
    assert tag[:2] == ("u:" if kind in ("history", "deletion", "personal_videos") else "v:")


@pytest.mark.parametrize(
    ("entity_id", "escaped"),
    [("v1", "v1"), ("a b", "a%20b"), ("}:t", "%7d%3at"), ("%7d", "%257d"), ("\n", "%0a")],
)
def test_escapes(entity_id: str, escaped: str) -> None:
    assert escape(entity_id) == escaped


STATE = {
    "text": "text",
    "anchors": "anchors",
    "counters": "counters",
    "history": "history",
    "deletion": "deletion",
}


@given(nasty, st.sampled_from(sorted(NAMES)))
def test_a_key_says_what_of_the_state_it_holds(entity_id: str, kind: str) -> None:
    found = KEYS.state_key(NAMES[kind](entity_id))
    assert found == (StateKey(STATE[kind], entity_id) if kind in STATE else None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["", "n:g:", "n:g:recent", "n:g2:{v:a}:t", "n:g:{v", "n:g:{d:a}:t"]
)
def test_other_keys_hold_no_state(name: str) -> None:
    assert KEYS.state_key(name) is None


@given(nasty)
def test_the_keys_of_a_video_are_named_as_elsewhere(video_id: str) -> None:
    for kind, name in KEYS.video(video_id)._asdict().items():
        assert name == NAMES[kind](video_id)


def test_versions_of_the_state_do_not_meet() -> None:
    assert KEYS.text("v") != Keys("n", "g2").text("v") != Keys("m", "g2").text("v")
