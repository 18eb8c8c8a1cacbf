"""What counts as a word in each script, and which spellings of one meet."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onebar.evidence.evidence import shares_a_term, terms
from onebar.evidence.text import clean_text, normalize_query
from onebar.evidence.words import match_key, parts, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Self-Cleaning Litter Box, don't!", ["Self-Cleaning", "Litter", "Box", "don't"]),
        ("SPF50+ 4.5mm 1:32 50% 30°C c++", ["SPF50+", "4.5mm", "1:32", "50%", "30°C", "c++"]),
        ("短款羽绒服女2026", ["短款", "羽绒服", "女", "2026"]),
        ("ワイヤレスイヤホンの試聴", ["ワイヤレスイヤホン", "の", "試聴"]),
        ("무선 이어폰", ["무선", "이어폰"]),
        ("น้ำหอมผู้ชาย", ["น้ำหอม", "ผู้ชาย"]),
        ("ນ້ຳຫອມຜູ້ຊາຍ", ["ນ້ຳ", "ຫອມ", "ຜູ້ຊາຍ"]),
        ("ស្បែកជើងសម្រាប់បុរស", ["ស្បែកជើង", "សម្រាប់", "បុរស"]),
        ("महिलाओं के जूते", ["महिलाओं", "के", "जूते"]),
        ("বাচ্চাদের বই", ["বাচ্চাদের", "বই"]),
        ("کتاب\u200cهای درسی", ["کتاب\u200cهای", "درسی"]),
        ("മലയാളം ചെരുപ്പ്", ["മലയാളം", "ചെരുപ്പ്"]),
        ("kışlık İstanbul ayakkabısı", ["kışlık", "İstanbul", "ayakkabısı"]),
    ],
)
def test_words_of_every_script(text: str, found: list[str]) -> None:
    assert [word.text for word in words(text)] == found


@given(st.text(max_size=60))
def test_words_stand_where_they_say(text: str) -> None:
    end = 0
    for word in words(text):
        assert text[word.start : word.end] == word.text
        assert end <= word.start < word.end
        assert word.key == match_key(word.text)
        end = word.end


@given(st.text(max_size=60))
def test_cleaned_words_survive_the_query(text: str) -> None:
    clean = clean_text(text)
    keys = [word.key for word in words(clean)]
    if len(clean) < 100:
        assert {word.key for word in words(normalize_query(clean))} >= {
            key for key in keys if key.isascii()
        }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Shoes", "shoe"),
        ("Batteries", "battery"),
        ("Brushes", "brush"),
        ("Café", "cafe"),
        ("ＮＩＫＥ", "nike"),
        ("İstanbul", "istanbul"),
        ("KIŞLIK", "kışlık"),
        ("نَظّارة", "نظارة"),
        ("کتاب\u200cها", "كتابها"),
        ("이어폰을", "이어폰"),
        ("น้ำ", "น้ํา"),
    ],
)
def test_spellings_of_a_word_meet(one: str, other: str) -> None:
    assert match_key(one) == match_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("มา", "ม้า"), ("की", "के"), ("bus", "bu"), ("glass", "glas"), ("বই", "বউ")],
)
def test_other_words_do_not(one: str, other: str) -> None:
    assert match_key(one) != match_key(other)


@given(st.text(max_size=20))
def test_a_match_key_is_stable(text: str) -> None:
    key = match_key(text)
    assert match_key(key.upper()) == match_key(key)


def test_only_words_that_say_something_relate() -> None:
    assert shares_a_term(["बच्चों की किताबें", "महिलाओं के सैंडल"], "महिलाओं के जूते", ()) == [False, True]
    assert shares_a_term(["shoes for men"], "gifts for the kids", ()) == [False]
    assert shares_a_term(["self cleaning robot"], "Self-Cleaning Litter Box", ()) == [True]
    assert terms("un robot de la casa y el jardín") == {"robot", "casa", "jardin"}
    assert "men" in terms("shoes for men")


def test_parts_of_a_hyphenated_word() -> None:
    [word] = words("Wi-Fi")
    assert parts(word) == ("wi", "fi")


@given(st.text("abcXY019 '.,:/-&+%_?", max_size=24))
@example("der die das und cheap shoes")
@example("c++ & r&b 4.5 wi-fi a+b_c don't 50% d.o.t")
def test_a_text_of_ascii_has_the_words_that_it_has_among_others(text: str) -> None:
    # The dot in the middle joins nothing there, but is no ASCII character.
    assert words(text) == words(f"{text} ·")
