"""What the gate lets pass, and why not."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.text import normalize_query
from onebar.gating.gate import Gate, Held
from onebar.gating.linear import PatternError, compile_pattern
from onebar.gating.personal import PersonalPatterns, PersonalPatternsError, shipped_patterns
from onebar.gating.rules import About, RuleBook, RuleError, check_rule, language_of
from onebar.records import Candidate, Rule

NOW = 1_000.0
ANYWHERE = About("v", "Ann", "Shoes")


def rule(rule_id: str, action: str = "block", **fields: object) -> Rule:
    return check_rule(Rule(rule_id, action, **fields))  # type: ignore[arg-type]


def gate(*rules: Rule, market: str = "", risk: Harm | None = None) -> Gate:
    return Gate(RuleBook(rules, market=market), risk=risk)


def shown(made: Gate, *queries: str, about: About = ANYWHERE, now: float = NOW) -> list[str]:
    found = made.apply([Candidate(query, -1.0) for query in queries], about, now)
    return [candidate.text for candidate in found.queries]


class Harm:
    def risk(self, texts: Sequence[str]) -> str | None:
        return "drugs" if any("weed" in text for text in texts) else None


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("write to john.smith@example.com", "e-mail"),
        ("john (at) example (dot) com", "e-mail"),
        ("https://example.org/a", "url"),
        ("cheap shoes at shoes.shop", "url"),
        ("john smith 0171 555 0199 home address", "phone"),
        ("call +44 20 7946 0958", "phone"),
        ("房东电话13812345678", "phone"),
        ("(415) 555-2671", "phone"),
        ("4111 1111 1111 1111", "card"),
        ("11010519491231002x", "id number"),
        ("ssn 123-45-6789", "id number"),
        ("gb82 west 1234 5698 7654 32", "bank account"),
        ("微信 abc12345 加我", "handle"),
        ("follow @annie_e", "handle"),
        ("clinic near 12 example street", "address"),
        ("john smith 221b baker street, london", "address"),
        ("1600 w maple ave apt 4", "address"),
        ("45 oak st, springfield", "address"),
        ("hauptstraße 12 80331", "address"),
        ("12 rue de la paix", "address"),
        ("南京路100号", "address"),
        ("长安街十号", "address"),
        ("建國路八十八號", "address"),
        ("幸福小区3号楼2单元501室", "address"),
        ("888弄12号", "address"),
    ],
)
def test_what_tells_who_somebody_is_never_passes(query: str, kind: str) -> None:
    allowed = gate(rule("a", "allow", query=query), rule("p", "pin", query=query, video_id="v"))
    held = allowed.judge(normalize_query(query), ANYWHERE, NOW)
    assert held is not None
    assert (held.reason, held.detail) == ("personal", kind)
    assert shown(allowed, query) == []


@pytest.mark.parametrize(
    "query",
    [
        "iphone 15 pro max 256gb",
        "air jordan 1 low 2024",
        "power bank 20000 mah",
        "iso 9001 2015",
        "4k 120hz 55 inch tv",
        "lego 75192 7541 pieces",
        "5 x 7 photo frame 10 pack",
        "node.js book",
        "100% cotton t-shirt",
        "7-11 便利店",
        "1000 片拼图 2024 新款",
        "mac book air m2 13 16gb 512gb",
        "1:18 model car",
        "qq 糖",
        "微信红包封面",
        "24/7 fitness",
        "10 best street food",
        "5 day road trip",
        "21 jump street",
        "street fighter 6",
        "700c road bike tire",
        "2024 toyota road car",
        "24 hour drive",
        "地铁2号线",
        "南京路2号线",
        "5号电池",
        "路由器 2024",
        "道具1号店",
        "1号店",
        "三里屯 街拍 2024",
    ],
)
def test_numbers_of_things_pass(query: str) -> None:
    assert shipped_patterns().kind(normalize_query(query)) is None


@given(st.text(max_size=128))
def test_any_text_is_judged(text: str) -> None:
    gate(rule("w", word="weed")).judge(normalize_query(text), ANYWHERE, NOW)


@pytest.mark.parametrize("line", ["phone", "phone\t(", "card\t\\d+\tnobody", "x\t(a)\\1"])
def test_a_line_that_is_no_pattern_is_named(tmp_path: object, line: str) -> None:
    path = tmp_path / "p.tsv"  # type: ignore[operator]
    path.write_text(f"// fine\n{line}\n")
    with pytest.raises(PersonalPatternsError, match=":2:"):
        PersonalPatterns(path)


def test_exact_word_and_pattern() -> None:
    made = gate(
        rule("1", query="Red  BOOTS"),
        rule("2", word="knock off"),
        rule("3", word="假鞋"),
        rule("4", pattern=r"\bcheap .*followers"),
    )
    queries = [
        "red boots",
        "red boots men",
        "knock off nike",
        "knock it off",
        "买假 鞋",
        "Cheap 1k followers",
    ]
    assert shown(made, *queries) == ["red boots men", "knock it off"]
    held = made.apply([Candidate(query, -1.0) for query in queries], ANYWHERE, NOW).held
    assert [(why.reason, why.detail) for why in held] == [("rule", n) for n in "1234"]


def test_a_rule_holds_in_its_scope_and_period() -> None:
    made = gate(
        rule("v", query="a", video_id="v"),
        rule("c", query="b", category="shoes"),
        rule("u", query="c", author="ann"),
        rule("t", query="d", starts=10.0, ends=20.0),
        rule("z", word="e", languages=("zh",)),
        rule("m", query="f", market="cn"),
    )
    every = ["a", "b", "c", "d", "e 的", "e", "f"]
    assert shown(made, *every, now=9.0) == ["d", "e", "f"]
    assert shown(made, *every, now=10.0) == ["e", "f"]
    assert shown(made, *every, now=20.0) == ["d", "e", "f"]
    assert shown(made, *every, about=About("w"), now=9.0) == ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize(
    ("block", "allow", "held"),
    [
        ({"query": "red boots"}, {"query": "red boots"}, True),
        ({"word": "boots"}, {"query": "red boots"}, False),
        ({"query": "red boots"}, {"word": "boots"}, True),
        ({"pattern": "boots"}, {"word": "red"}, False),
        ({"query": "red boots"}, {"word": "boots", "video_id": "v"}, False),
        ({"word": "boots", "category": "shoes"}, {"query": "red boots"}, True),
        ({"word": "boots", "category": "shoes"}, {"word": "boots", "author": "ann"}, False),
        ({"category": "shoes"}, {"query": "red boots", "video_id": "v"}, True),
    ],
)
def test_of_two_rules_that_contradict_the_narrower_decides(
    block: dict[str, str], allow: dict[str, str], held: bool
) -> None:
    for order in (1, -1):
        rules = [rule("b", **block), rule("a", "allow", **allow)][::order]
        assert (shown(gate(*rules), "red boots") == []) is held


def test_nothing_is_shown_where_a_rule_says_so() -> None:
    for fields in ({"category": "Shoes"}, {"author": "ann"}, {"video_id": "v"}, {"market": "cn"}):
        made = gate(rule("off", **fields), rule("p", "pin", query="a", video_id="v"), market="cn")
        found = made.apply([Candidate("x", -1.0)], ANYWHERE, NOW)
        assert found.queries == ()
        assert found.held == (Held("", "rule", "off"),)
    assert shown(gate(rule("off", market="cn"), market="us"), "x") == ["x"]


def test_pins_come_first_in_their_period() -> None:
    made = gate(
        rule("1", "pin", query="Winter Sale", category="shoes", starts=10.0, ends=20.0),
        rule("2", "pin", query="this very shoe", video_id="v"),
        rule("3", word="weed"),
        rule("4", "pin", query="weed killer", video_id="v"),
    )
    assert shown(made, "x", "winter sale", now=15.0) == [
        "this very shoe",
        "weed killer",
        "winter sale",
        "x",
    ]
    assert shown(made, "x", now=20.0) == ["this very shoe", "weed killer", "x"]
    assert shown(made, "x", about=About("w"), now=15.0) == ["x"]


def test_what_is_harmful_is_held_back_unless_a_rule_allows_it() -> None:
    made = gate(rule("a", "allow", query="weed killer"), risk=Harm())
    assert shown(made, "buy weed", "weed killer", "boots") == ["weed killer", "boots"]
    assert made.judge("buy weed", ANYWHERE, NOW) == Held("buy weed", "harmful", "drugs")


def test_what_was_passed_has_another_name_once_anything_moved() -> None:
    book = RuleBook([rule("t", query="d", starts=10.0, ends=20.0)])
    made = Gate(book)
    names = [made.passed(now) for now in (5.0, 9.9, 10.0, 19.9, 20.0)]
    assert names[0] == names[1] != names[2] == names[3] != names[4]
    again = Gate(RuleBook([rule("t", query="d", starts=10.0, ends=20.0)]))
    assert [again.passed(now) for now in (5.0, 10.0)] == [names[0], names[2]]
    book.version = 7
    assert made.passed(5.0) not in names
    assert Gate(RuleBook(market="cn")).passed(5.0) != Gate(RuleBook()).passed(5.0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"action": "block"}, "needs"),
        ({"action": "allow", "video_id": "v"}, "needs"),
        ({"action": "block", "query": "[SEP] \u200b"}, "comes to nothing"),
        ({"action": "block", "word": "!!!"}, "comes to nothing"),
        ({"action": "block", "query": "a", "word": "b"}, "one of"),
        ({"action": "block", "pattern": r"(a)\1"}, "can't be used"),
        ({"action": "block", "pattern": "(?=a)b"}, "can't be used"),
        ({"action": "block", "pattern": "a*"}, "empty"),
        ({"action": "block", "pattern": "(x{1000}){1000}"}, "can't be used"),
        ({"action": "pin", "query": "a"}, "a pin needs"),
        ({"action": "pin", "word": "a", "video_id": "v"}, "a pin needs"),
        ({"action": "block", "query": "a", "languages": ("xx",)}, "languages"),
        ({"action": "block", "query": "a", "starts": 2.0, "ends": 1.0}, "ends before"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(RuleError, match=said):
        check_rule(Rule("r", **fields))  # type: ignore[arg-type]


def test_no_pattern_takes_exponential_time() -> None:
    pattern = compile_pattern("(a+)+$")
    started = time.perf_counter()
    pattern.search("a" * 100_000 + "b")
    assert time.perf_counter() - started < 2.0
    with pytest.raises(PatternError):
        compile_pattern("a" * 600)


changes = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.none()
        | st.builds(
            dict,
            action=st.sampled_from(["block", "allow", "learn"]),
            how=st.sampled_from(["query", "word", "pattern"]),
            text=st.sampled_from(["ab", "b", "中文", "文"]),
            video_id=st.sampled_from(["", "v"]),
            ends=st.sampled_from([None, 500.0, 2000.0]),
        ),
    ),
    max_size=25,
)


@given(changes)
def test_a_book_is_what_was_put_last_whatever_the_way_there(
    changes: list[tuple[int, dict[str, str] | None]],
) -> None:
    book = RuleBook()
    left: dict[str, Rule] = {}
    for number, fields in changes:
        rule_id = str(number)
        if fields is None:
            book.remove(rule_id)
            left.pop(rule_id, None)
            continue
        given_ = {k: v for k, v in fields.items() if k not in ("how", "text")}
        made = rule(rule_id, **{**given_, fields["how"]: fields["text"]})
        book.put(made)
        left[rule_id] = made
    fresh = RuleBook(left[key] for key in sorted(left, key=int, reverse=True))
    assert {r.rule_id: r for r in book} == left
    for query in ("ab", "b", "a b", "中文", "看文"):
        for about in (About("v"), About("w")):
            one, other = book.decide(query, about, NOW), fresh.decide(query, about, NOW)
            assert one.held == other.held
            assert one.allowed == other.allowed
    assert book.passed_boundaries(NOW) == fresh.passed_boundaries(NOW)


def test_why_is_told_step_by_step() -> None:
    made = gate(rule("b1", word="weed", who="ann", why="law"), risk=Harm())
    steps = dict(made.explain("Buy WEED", ANYWHERE, NOW))
    assert steps == {
        "query": "buy weed",
        "video": "may carry queries",
        "personal data": "none found",
        "rules": "rule b1: block 'weed' (ann: law)",
        "harm": "about: drugs",
        "verdict": "held back",
    }


@pytest.mark.parametrize(
    ("text", "language"),
    [("iphone 手机", "zh"), ("イヤホン 人気", "ja"), ("boots", "en"), ("무선", "ko"), ("123", "")],
)
def test_the_language_of_a_query_is_that_of_its_script(text: str, language: str) -> None:
    assert language_of(text) == language
