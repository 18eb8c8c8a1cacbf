"""The prompt's shape holds whatever the fields say, and only relevant history changes it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.evidence import Evidence, assemble, terms
from onebar.evidence.prompt import PromptConfig, build_prompt, evidence_digest
from onebar.evidence.text import SEP, SPECIAL_TOKENS
from onebar.records import Anchor, Features, HistoryEntry, VideoText

SPECIALS = [
    *SPECIAL_TOKENS,
    "［ＳＥＰ］",
    "[sep]",
    "<S>",
    "[S[SEP]EP]",
    "[SE\u200bP]",
    "[ſEP]",
    "＜／s＞",
]
field = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(SPECIALS)), max_size=6).map(
    "".join
)
evidences = st.builds(
    Evidence,
    text=field,
    summary=field,
    anchors=st.lists(field, max_size=5).map(tuple),
    history=st.lists(field, max_size=5).map(tuple),
)
configs = st.builds(
    PromptConfig,
    text=st.booleans(),
    anchors=st.booleans(),
    text_bytes=st.integers(0, 40),
    anchors_bytes=st.integers(0, 40),
)

VIDEO = VideoText(title="Trail running shoes", summary="a runner in the woods")
ANCHORS = (Anchor("trail shoes men", 3.0), Anchor("waterproof sneakers", 1.0))


@given(evidences, configs)
def test_outside_text_cannot_forge_structure(evidence: Evidence, config: PromptConfig) -> None:
    prompt = build_prompt(evidence, config)
    assert prompt.count("[SEP]") == 3
    assert prompt.casefold().count("[sep]") == 3
    for token in SPECIAL_TOKENS[1:]:
        assert token.casefold() not in prompt.casefold()
    assert prompt == build_prompt(evidence, config)
    prompt.encode("utf-8")


def test_fields_stand_in_order() -> None:
    features = Features(VIDEO, ANCHORS, (HistoryEntry("red trail shoes", 5.0),))
    prompt = build_prompt(assemble(features), PromptConfig())
    assert prompt == (
        "Trail running shoes [SEP] a runner in the woods [SEP] "
        "trail shoes men | waterproof sneakers [SEP] red trail shoes"
    )


def test_a_field_can_be_switched_off_and_keeps_its_place() -> None:
    evidence = Evidence("t", "m", ("a",), ("h",))
    assert build_prompt(evidence, PromptConfig(summary=False)) == "t [SEP]  [SEP] a [SEP] h"
    assert build_prompt(Evidence(), PromptConfig()) == " [SEP]  [SEP]  [SEP] "


def test_budgets_cut_text_at_characters_and_lists_at_queries() -> None:
    evidence = Evidence("连衣裙连衣裙", "", ("abc", "defg", "hi"))
    config = PromptConfig(text_bytes=10, anchors_bytes=10)
    assert build_prompt(evidence, config) == "连衣裙 [SEP]  [SEP] abc | defg [SEP] "


def test_irrelevant_history_leaves_the_prompt_alone() -> None:
    plain = build_prompt(assemble(Features(VIDEO, ANCHORS)), PromptConfig())
    strange = (HistoryEntry("iphone case", 9.0), HistoryEntry("the best of", 8.0))
    assert build_prompt(assemble(Features(VIDEO, ANCHORS, strange)), PromptConfig()) == plain


@pytest.mark.parametrize("query", ["running socks", "Waterproof jacket", "SHOE rack", "woods hike"])
def test_history_is_relevant_by_any_shared_word_of_t_m_or_a(query: str) -> None:
    history = (HistoryEntry(query, 1.0),)
    assert assemble(Features(VIDEO, ANCHORS, history)).history == (query,)


def test_chinese_history_is_relevant_by_character_pairs() -> None:
    video = VideoText(title="夏季碎花连衣裙")
    history = (
        HistoryEntry("连衣裙女", 3.0),
        HistoryEntry("蓝牙耳机", 2.0),
        HistoryEntry("夏天裙", 1.0),
    )
    assert assemble(Features(video, (), history)).history == ("连衣裙女",)
    assert terms("Nike连衣裙") == {"nike", "连衣", "衣裙"}


def test_the_newest_three_relevant_queries_stay_whatever_order_they_came_in() -> None:
    entries = [HistoryEntry(f"shoes {i}", float(i)) for i in range(6)]
    expected = ("shoes 5", "shoes 4", "shoes 3")
    assert assemble(Features(VIDEO, (), tuple(entries))).history == expected
    assert assemble(Features(VIDEO, (), tuple(reversed(entries)))).history == expected


def test_the_digest_names_prompt_and_model() -> None:
    digest = evidence_digest("p", "demo-1")
    assert len(digest) == 32
    assert int(digest, 16) >= 0
    assert digest == evidence_digest("p", "demo-1")
    assert len({digest, evidence_digest("p", "demo-2"), evidence_digest("q", "demo-1")}) == 3
    assert evidence_digest("ab", "c") != evidence_digest("b", "ca")


def test_the_config_survives_its_card() -> None:
    config = PromptConfig(history=False, text_bytes=99)
    assert msgspec.json.decode(msgspec.json.encode(config), type=PromptConfig) == config


def test_the_verbose_form_says_the_same_in_sentences() -> None:
    evidence = Evidence("red shoes | sale", "a runner", ("trail shoes", "red shoes"), ("shoes",))
    config = PromptConfig(form="verbose")
    prompt = build_prompt(evidence, config)
    assert SEP not in prompt
    for part in ("red shoes | sale", "a runner", "trail shoes | red shoes", "before for: shoes."):
        assert part in prompt
    assert len(prompt) > 2 * len(build_prompt(evidence, PromptConfig()))
    without = build_prompt(evidence, PromptConfig(form="verbose", anchors=False, history=False))
    assert "trail" not in without
    assert "before for" not in without
    assert "before for" not in build_prompt(Evidence("red shoes"), config)


@given(evidences)
def test_the_verbose_form_can_not_be_forged_either(evidence: Evidence) -> None:
    prompt = build_prompt(evidence, PromptConfig(form="verbose")).casefold()
    assert not any(token.casefold() in prompt for token in SPECIAL_TOKENS)
