"""What cleaning takes away, what it keeps, and that nothing makes it slow or inconsistent."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import onebar.evidence.text
from onebar.evidence.text import (
    FIELD_LIMIT,
    QUERY_LIMIT,
    SPECIAL_TOKENS,
    clean_text,
    clean_video,
    neutralize,
    normalize_query,
)
from onebar.records import VideoText

SPECIALS = [
    *SPECIAL_TOKENS,
    "［ＳＥＰ］",
    "[sep]",
    "<S>",
    "[S[SEP]EP]",
    "\u200b[SE\u200bP]",
    "[ſEP]",
]
hostile = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(SPECIALS), st.sampled_from("#@[]<>/ \n")),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("So good!!! #fyp #viral #foryou", "So good!"),
        ("#WirelessEarbuds #noise_cancelling wow", "Wireless Earbuds noise cancelling wow"),
        ("nice @shop.us: mug @a", "nice mug"),
        ("Trail shoes. Link in bio! Trail shoes. Follow for more", "Trail shoes."),
        ("夏季碎花连衣裙 点关注不迷路 加微信 abc123", "夏季碎花连衣裙"),
        ("#连衣裙# 家人们谁懂啊", "连衣裙"),
        ("连衣裙好看连衣裙好看连衣裙好看", "连衣裙好看"),
        ("power bank power bank 10000mAh", "power bank power bank 10000mAh"),
        ("power bank power bank", "power bank"),
        ("哈哈哈哈哈哈 100000", "哈哈 100000"),
        ("ＮＩＫＥ　ｓｈｏｅｓ", "NIKE shoes"),
        ("a\u202eb\u200bc\x00d", "abc d"),
        ("see https://x.example/a?b=1 now", "see now"),
        ("use code SAVE10 for tea", "for tea"),
        ("มา! ม้า!", "มา! ม้า!"),
        ("30°C today, ﬁne", "30°C today, fine"),
        ("@สมชาย_นํ้า: น้ำหอมผู้ชาย", "น้ำหอมผู้ชาย"),
        ("😀😀👍🏽", ""),
        ("", ""),
    ],
)
def test_clean_text(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


def test_only_the_first_informative_hashtags_stay() -> None:
    assert clean_text("tea " + " ".join(f"#tag{i}" for i in range(9))) == "tea tag0 tag1 tag2"


def test_nothing_is_said_twice_across_fields() -> None:
    video = VideoText(
        title="Linen shirt, loose fit",
        caption="Linen shirt, loose fit! And a hat. #fyp",
        item_title="",
        ocr="a hat",
        asr="breathable",
        author="@tailor",
        summary="A man shows a shirt. link in bio",
        sensitive=True,
    )
    assert clean_video(video) == VideoText(
        title="Linen shirt, loose fit",
        caption="And a hat.",
        ocr="",
        asr="breathable",
        author="tailor",
        summary="A man shows a shirt.",
        sensitive=True,
    )


@given(hostile)
def test_cleaned_text_is_plain(raw: str) -> None:
    clean = clean_text(raw)
    assert len(clean) <= FIELD_LIMIT
    assert clean == clean.strip()
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co") for char in clean)
    assert neutralize(clean) == clean


@given(hostile)
def test_normalising_a_query_is_idempotent_and_safe(raw: str) -> None:
    query = normalize_query(raw)
    assert normalize_query(query) == query
    assert len(query) <= QUERY_LIMIT
    assert query == " ".join(query.split())
    assert neutralize(query) == query


@given(st.from_regex(onebar.evidence.text._NORMAL, fullmatch=True))
def test_what_is_taken_as_normal_is_normal(query: str) -> None:
    short = query[:QUERY_LIMIT].strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onebar.evidence.text, "_NORMAL", re.compile(r"(?!)"))
        assert normalize_query(short) == short


def test_spellings_of_one_query_meet() -> None:
    spellings = [
        "Nike  Shoes",
        "ｎｉｋｅ shoes ",
        "NIKE\u00a0SHOES",
        "nike\u200b shoes\n",
        "[SEP]nike shoes",
    ]
    assert {normalize_query(spelling) for spelling in spellings} == {"nike shoes"}
    assert normalize_query("[REJECT]") == ""
    assert normalize_query(" \u200b\n") == ""


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("น้ำ", id="Thai sara am"),
        pytest.param("ນ້ຳຫອມ", id="Lao sara am"),
        pytest.param("کتاب\u200cهای درسی", id="Persian half space"),
        pytest.param("ශ්\u200dරී ලංකා", id="Sinhala joiner"),
        pytest.param("അവന്\u200d", id="Malayalam joiner"),
        pytest.param("क्\u200dष महिलाओं के जूते", id="Hindi"),
        pytest.param("বাচ্চাদের বই", id="Bengali"),
        pytest.param("ស្បែកជើងបុរស", id="Khmer"),
        pytest.param("ဖိနပ် အသစ်", id="Burmese"),
        pytest.param("đồ chơi trẻ em", id="Vietnamese"),
        pytest.param("ワイヤレスイヤホン", id="Japanese"),
        pytest.param("무선 이어폰", id="Korean"),
        pytest.param("سماعات لاسلكية", id="Arabic"),
        pytest.param("kışlık ayakkabı", id="Turkish"),
        pytest.param("10 m² oven 200°c", id="units"),
    ],
)
def test_what_was_written_is_kept(query: str) -> None:
    assert normalize_query(query) == query
    assert clean_text(query) == query


def test_case_and_width_meet_in_every_script() -> None:
    assert normalize_query("İSTANBUL KIŞLIK Ayakkabı") == "istanbul kışlık ayakkabı"
    assert normalize_query("IPHONE Ⅱ") == "iphone ⅱ"
    assert normalize_query("ｶﾞﾝﾀﾞﾑ　ＨＧ") == "ガンダム hg"
    assert normalize_query("БЕСПРОВОДНЫЕ") == "беспроводные"
    assert normalize_query("ΚΑΦΕΣ") == normalize_query("καφες")
    assert normalize_query("ﻛﺘﺎﺏ") == "كتاب"


def test_a_joiner_that_joins_nothing_goes() -> None:
    assert normalize_query("nike\u200d\u200c shoes\u200c") == "nike shoes"
    assert normalize_query("کتاب\u200c\u200cهای\u200c") == "کتاب\u200cهای"


@pytest.mark.parametrize(
    "unit",
    [
        "#",
        "#a",
        "@a",
        "[SEP]",
        "\u0301\u0316",
        "a\u0301\u0316",
        "!?",
        "buy now ",
        "ﷺ",
        "http://",
        "ab",
        "。",
        "[",
        "加v",
    ],
)
def test_a_hostile_megabyte_is_cut_not_suffered(unit: str) -> None:
    """Finishing at all is the test: a quadratic step on 1 MB would run into the time limit."""
    raw = unit * (1_000_000 // len(unit))
    assert len(clean_text(raw)) <= FIELD_LIMIT
    assert len(normalize_query(raw)) <= QUERY_LIMIT
    clean = clean_video(VideoText(title=raw, caption=raw, ocr=raw, asr=raw, summary=raw))
    assert len(clean.caption) <= FIELD_LIMIT


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<b>Best</b> trail <i>shoes</i> &amp; socks", "Best trail shoes & socks"),
        ("Caf&eacute; <br/>tour<script>alert(1)</script>", "Café tour"),
        ("&lt;p&gt;Soup&lt;/p&gt; of the day", "Soup of the day"),
        ("I <3 tea, AT&T & 5 < 6", "I <3 tea, AT&T & 5 < 6"),
        ("&#91;SEP&#93; tent", "tent"),
    ],
)
def test_markup_is_read_as_a_page_shows_it(written: str, read: str) -> None:
    assert clean_text(written) == read
