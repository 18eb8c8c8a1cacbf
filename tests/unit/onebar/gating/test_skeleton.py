"""What is held back is held back however it is spelt; what is allowed must be spelt out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.text import normalize_query
from onebar.gating.gate import Gate
from onebar.gating.risk import shipped_rules
from onebar.gating.rules import About, RuleBook, check_rule
from onebar.gating.skeleton import simplified, skeleton
from onebar.records import Rule

RULES = RuleBook(
    [
        check_rule(Rule("exact", "block", query="fake shoes")),
        check_rule(Rule("word", "block", word="knockoff")),
        check_rule(Rule("chars", "block", word="运动鞋")),
        check_rule(Rule("han", "learn", query="假货")),
        check_rule(Rule("two words", "block", word="bump keys")),
        check_rule(Rule("short", "block", word="penis")),
        check_rule(Rule("traditional", "block", word="盜版")),
        check_rule(Rule("han pattern", "block", pattern="高仿.*[錶鞋]")),
        check_rule(Rule("allowed", "allow", query="weed grinder")),
    ]
)
V = About("v")
GATE = Gate(RULES, risk=shipped_rules())


def reason(query: str) -> str | None:
    held = GATE.judge(normalize_query(query), V, 0.0)
    return None if held is None else held.reason


@pytest.mark.parametrize(
    ("query", "held"),
    [
        *((q, "rule") for q in ("ＦＡＫＥ　ｓｈｏｅｓ", "fake🔥shoes", "fake-shoes!", "fakeshoes")),
        *((q, "rule") for q in ("f a k e shoes", "f\u0430ke shoes", "fáke shoes", "𝐟𝐚𝐤𝐞 shoes")),
        *((q, "rule") for q in ("fake\u200bshoes", "k.n.o.c.k.o.f.f bag", "knоckоff bag")),
        *((q, "rule") for q in ("运 动 鞋 男", "运🔥动鞋", "假 货", "假🔥货")),
        *(
            (q, "rule")
            for q in ("運動鞋", "運 動 鞋 男", "假貨", "盗版", "盜版光碟", "高仿手錶", "高仿的手表")
        ),
        *((q, "rule") for q in ("knock off bag", "knockoffs", "knock-offs", "Knock Offs bags")),
        *((q, "rule") for q in ("bump key set", "bumpkeys", "bumpkey", "bump-key", "a bump's key")),
        *((q, None) for q in ("the pen is red", "knock on wood", "off knock", "bump", "keys")),
        *(
            (q, "harmful")
            for q in (
                "自殺方法",
                "how to commit s u i c i d e",
                "su\u0456cide how to",
                "自🔥杀方法",
            )
        ),
        *((q, "personal") for q in ("call ０１７１ ５５５ ０１９９", "1 3 8 1 2 3 4 5 6 7 8")),
        *((q, "personal") for q in ("138.1234.5678", "一三八一二三四五六七八", "٠١٧١ ٥٥٥ ٠١٩٩")),
        *((q, "personal") for q in ("w e i x i n abc12345", "微 信 abc12345", "www . evil . com")),
        *((q, "personal") for q in ("john at example dot com", "evil。com", "4111.1111.1111.1111")),
        *((q, None) for q in ("shoes", "fake", "беспроводные наушники", "三 只 松鼠", "a4 paper")),
        *((q, None) for q in ("women's t-shirt u neck", "七分裤", "café mugs", "dot to dot book")),
    ],
)
def test_however_it_is_spelt(query: str, held: str | None) -> None:
    assert reason(query) == held


@given(st.lists(st.sampled_from(["", " ", "-", ".", "🔥", "\u200b"]), min_size=9, max_size=9))
def test_nothing_between_the_letters_gets_it_past(between: list[str]) -> None:
    spelt = "fakeshoes"
    query = "".join(f"{letter}{mark}" for letter, mark in zip(spelt, between, strict=True))
    assert reason(query) == "rule"


def test_an_allow_must_be_spelt_out() -> None:
    book = RuleBook(
        [
            check_rule(Rule("word", "allow", word="grinder")),
            check_rule(Rule("han", "allow", word="運動鞋")),
            check_rule(Rule("pattern", "allow", pattern="假貨")),
        ]
    )
    allowed = {q for q in ("grinder", "grinders", "grin der") if book.decide(q, V, 0.0).allowed}
    assert allowed == {"grinder"}
    assert book.decide("運動鞋", V, 0.0).allowed
    assert not book.decide("运动鞋", V, 0.0).allowed
    assert book.decide("假貨", V, 0.0).allowed
    assert not book.decide("假货", V, 0.0).allowed


@given(st.text(st.characters(min_codepoint=0x3400, max_codepoint=0x9FFF), max_size=20))
def test_simplified_characters_stay_and_stand_where_they_stood(text: str) -> None:
    once = simplified(text)
    assert len(once) == len(text)
    assert simplified(once) == once


def test_a_harmful_text_is_harmful_in_traditional_characters() -> None:
    assert shipped_rules().risk(("自殺方法",)) == shipped_rules().risk(("自杀方法",)) == "self_harm"


@given(st.text(max_size=60))
def test_a_skeleton_is_made_of_anything(text: str) -> None:
    once = skeleton(normalize_query(text))
    assert isinstance(once, str)
    skeleton(once)
