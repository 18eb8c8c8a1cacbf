"""What a teacher may say, and what is made of it; the prompt file; the writing of a query."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.evidence import Evidence
from onebar.records import VideoText
from onebar.teaching.answers import Answer, read_answer
from onebar.teaching.checks import check_of
from onebar.teaching.prompt import TeacherPromptError, describe, read_prompt

TEA = Evidence(text="Matcha whisk unboxing | bamboo whisk, matcha bowl and tea scoop set")
TEA_ZH = Evidence(text="抹茶打不起泡？换个茶筅试试 | 日式竹制茶筅 YAMA 抹茶碗套装")


def read(said: str, evidence: Evidence = TEA, count: int = 5) -> Answer:
    return read_answer(said, check_of(evidence), count=count)


WANTED = ("matcha whisk", "bamboo whisk set", "matcha bowl")


@pytest.mark.parametrize(
    "said",
    [
        "matcha whisk\nbamboo whisk set\nmatcha bowl",
        "1. Matcha whisk\n2) bamboo whisk set\n(3) matcha bowl",
        "- **matcha whisk**\n* `bamboo whisk set`\n• matcha bowl",
        '"matcha whisk"\n"bamboo whisk set"\n“matcha bowl”',
        "matcha whisk | bamboo whisk set | matcha bowl",
        "Searches: matcha whisk, bamboo whisk set, matcha bowl",
        "Sure! Here are some searches a viewer would tap:\n\nmatcha whisk\nbamboo whisk set\n"
        "matcha bowl",
        '["matcha whisk", "bamboo whisk set", "matcha bowl"]',
        '```json\n{"queries": ["matcha whisk", "bamboo whisk set", "matcha bowl"]}\n```',
        '[{"rank": 1, "query": "matcha whisk"}, {"query": "bamboo whisk set"}, '
        '{"query": "matcha bowl"}]',
        "<think>They may want\na whisk.</think>matcha whisk\nbamboo whisk set\nmatcha bowl",
    ],
)
def test_a_list_is_read_however_it_is_written(said: str) -> None:
    assert read(said).queries == WANTED


@pytest.mark.parametrize(
    "said",
    [
        *("REJECT", "[REJECT]\n", "reject.", "1. REJECT", "```\nREJECT\n```", '["REJECT"]'),
        *('{"queries": [], "reject": true}', "<think>A death.</think>\nREJECT"),
    ],
)
def test_a_reject_is_one_however_it_is_written(said: str) -> None:
    assert read(said) == Answer(rejected=True)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "nothing"),
        ("<think>never ends", "nothing"),
        ("I think that the viewer of this video would like to know more about tea.", "prose"),
        ("茶筅怎么用", "script"),
        ("matcha японский", "script"),
        ("ghost gun matcha", "harmful"),
        ("matcha call 0171 555 0199", "personal"),
        ("matcha? whisk", "fragment"),
        ("matcha \ufffd", "broken"),
        ("garden hose", "ungrounded"),
        ("matcha matcha whisk", "repeated"),
        ("matcha" + "o" * 60, "too long"),
        ("{}", "nothing"),
        ('{"a": {"a": {"a": {"a": {"a": {"a": "matcha whisk"}}}}}}', "nothing"),
    ],
)
def test_what_is_no_query_is_counted_by_reason(said: str, reason: str) -> None:
    answer = read(said)
    assert (answer.queries, answer.rejected, dict(answer.dropped)) == ((), False, {reason: 1})


def test_what_fits_is_kept_beside_what_does_not() -> None:
    answer = read("Here you go:\nmatcha whisk\nMatcha Whisk\nmowing a lawn\nbamboo whisk")
    assert answer.queries == ("matcha whisk", "bamboo whisk")
    assert answer.dropped == {"prose": 1, "said twice": 1, "ungrounded": 1}


def test_no_more_queries_than_were_asked_for() -> None:
    assert read("matcha whisk\nmatcha bowl\ntea scoop", count=2).queries == WANTED[:1] + WANTED[2:]


def test_chinese_lists_and_brands() -> None:
    assert read("1、茶筅怎么用\n2、抹茶碗套装\nyama", TEA_ZH).queries == (
        *("茶筅怎么用", "抹茶碗套装", "yama"),
    )
    assert read("茶筅、抹茶碗，竹制茶筅", TEA_ZH).queries == ("茶筅", "抹茶碗", "竹制茶筅")
    assert read("matcha whisk", TEA_ZH).dropped == {"ungrounded": 1}


@given(st.text() | st.from_regex(r"[\[{\"a-z,:\]} \n|1.]{0,200}"))
def test_nothing_that_is_said_breaks_it(said: str) -> None:
    answer = read(said)
    assert not (answer.rejected and answer.queries)
    assert answer.rejected or answer.queries or answer.dropped


def test_a_deep_answer_breaks_nothing() -> None:
    assert read("[" * 100_000).dropped == {"prose": 1} or read("[" * 100_000).dropped


class TestPrompt:
    def test_ours_asks_about_the_video_in_its_last_turn(self) -> None:
        turns = read_prompt().about(VideoText(title="Matcha whisk", caption="frothy {count}"), 4)
        assert turns[0].role == "system"
        assert "at most 4 lines" in turns[0].content
        assert turns[-1].content == "Title: Matcha whisk\nCaption: frothy {count}"

    def test_another_file_has_another_digest(self, tmp_path: Path) -> None:
        path = tmp_path / "prompt.txt"
        path.write_text("[user]\nWhat is searched after this?\n{video}\n")
        assert [turn.role for turn in read_prompt(path).turns] == ["user"]
        assert read_prompt(path).digest != read_prompt().digest

    @pytest.mark.parametrize(
        "text",
        [
            *("", "no turn {video}", "[system]\nonly this {video}", "[user]\nno place for it"),
            "[user]\n{video}\n[assistant]\nand then?",
        ],
    )
    def test_a_file_that_asks_nothing_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "prompt.txt"
        path.write_text(text)
        with pytest.raises(TeacherPromptError, match=r"prompt\.txt"):
            read_prompt(path)

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "prompt.txt"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(TeacherPromptError, match="can't be read"):
            read_prompt(path)

    def test_a_long_caption_is_cut(self) -> None:
        assert len(describe(VideoText(caption="word " * 200_000))) < 500
