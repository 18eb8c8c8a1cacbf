"""What a bar is kept away from, and what only sounds like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebar.gating.risk import RiskRules, RiskRulesError, shipped_rules


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("不想活了…安眠药吃多少", "self_harm"),
        ("how many sleeping pills", "self_harm"),
        ("thinspo for summer", "self_harm"),
        ("新型大麻 私聊", "drugs"),
        ("magic mushrooms delivered", "drugs"),
        ("3D printed gun files", "weapons"),
        ("仿真枪 包邮", "weapons"),
        ("spy on my girlfriend's phone", "violence"),
        ("send nudes", "adult"),
        ("同城约炮", "adult"),
        ("online casino bonus codes", "gambling"),
        ("百家乐稳赢打法", "gambling"),
        ("1:1 replica bags", "fraud"),
        ("代开发票 办证", "fraud"),
        ("vaccines cause autism", "health"),
        ("根治糖尿病 祖传", "health"),
    ],
)
def test_what_is_risky(text: str, category: str) -> None:
    assert shipped_rules().risk((text,)) == category


@pytest.mark.parametrize(
    "text",
    [
        "killer sneakers of the year",
        "poison ivy soap that works",
        "bath bombs for kids",
        "hot glue gun crafts",
        "weed killer for lawns",
        "Nerf gun battle",
        "diet coke and mentos",
        "slot car race set",
        "suicide squad review",
        "chef knife set",
        "shoot photos on film",
        "chicken breast meal prep",
        "LED strip lights",
        "安眠枕 助眠枕头",
        "秒杀 剧本杀 道具",
        "儿童水枪 泡泡枪",
        "防走光打底裤",
        "裸色 裸粉 高跟鞋",
        "户外挂钩",
        "幼女童秋冬装",
        "子弹头口红",
        "大麻花 零食",
        "消毒 排毒 病毒 防毒面具",
        "",
    ],
)
def test_what_only_sounds_like_it(text: str) -> None:
    assert shipped_rules().risk((text,)) is None


def test_parts_of_a_rule_may_stand_in_different_fields() -> None:
    rules = shipped_rules()
    assert rules.risk(("how to get ozempic", "dm me, ships anywhere")) == "drugs"
    assert rules.risk(("how to get ozempic",)) is None
    # A phrase does not reach from one field into the next.
    assert rules.risk(("send", "nudes are art")) == "adult"
    assert rules.risk(("kill", "myself a spider")) is None


def test_a_line_that_is_no_rule_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rules.tsv"
    path.write_text("// fine\nadult\tpeep show\nno tab here\n", encoding="utf-8")
    with pytest.raises(RiskRulesError, match=r"rules.tsv:3"):
        RiskRules(path)
