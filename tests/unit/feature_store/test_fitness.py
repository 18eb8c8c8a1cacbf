"""What is asked for of Redis is what is used of it, and what the docs say."""

from __future__ import annotations

import re
from pathlib import Path

from feature_store.redis.fitness import NEEDED, WANTED, acl_rule

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "feature_store"


def used() -> set[str]:
    """Every command that the store sends, or that a script of its runs."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        found |= set(re.findall(r'Command\(\s*"([A-Z]+)"', path.read_text()))
    for path in PACKAGE.rglob("*.lua"):
        found |= set(re.findall(r"""['"]([A-Z]{3,})['"]""", path.read_text()))
    return found - {"OBQ"}  # how a cached body begins


def test_every_command_that_is_used_is_asked_for() -> None:
    assert {"HSET", "ZRANGEBYSCORE", "GETRANGE"} <= used()
    assert used() - {*NEEDED, *WANTED, "EVAL"} == set()


def test_the_rule_names_each_of_them_once_and_nothing_else() -> None:
    rule = acl_rule("worker", "on*bar", "#abc")
    words = rule.split()
    assert words[:7] == ["user", "worker", "on", "#abc", "~on\\*bar:*", "-@all", "+auth"]
    granted = [word[1:].upper().replace("|", " ") for word in words if word.startswith("+")]
    assert len(granted) == len(set(granted))
    assert set(granted) == {*NEEDED, *WANTED, "EVAL", "EVALSHA", "AUTH", "SELECT"}
    clustered = set(acl_rule("worker", "onebar", cluster=True).split())
    assert {"+cluster", "+command", "+readonly"} <= clustered


def test_the_docs_have_that_rule() -> None:
    page = (ROOT / "docs" / "operations.md").read_text().replace("\\\n", "")
    assert acl_rule("onebar", "onebar") in " ".join(page.split())
