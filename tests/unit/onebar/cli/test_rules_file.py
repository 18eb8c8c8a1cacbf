"""A file of rules: a rule a line, or the list that `onebar rules list --json` prints."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from onebar.cli.gating.rules import _changes
from onebar.errors import UsageError
from onebar.gating.rules import check_rule
from onebar.records import Rule
from stream.events.fold import rule_of

RULES = [
    Rule("no-fakes", "block", word="knock off", who="anna", why="complaint", ts=7.0),
    Rule("sale", "pin", query="winter sale", category="shoes", ends=4e9, ts=8.0),
    Rule("han", "learn", pattern="高仿.*鞋", languages=("zh",), ts=9.0),
]


@pytest.mark.parametrize("form", ["list", "pretty", "lines", "blank lines"])
def test_what_was_listed_is_taken_back(tmp_path: Path, form: str) -> None:
    path = tmp_path / "rules"
    content = msgspec.json.encode(RULES)
    if form == "pretty":
        content = msgspec.json.format(content, indent=2)
    elif form != "list":
        between = b"\n" if form == "lines" else b"\n\n"
        content = between.join(map(msgspec.json.encode, RULES))
    path.write_bytes(content)
    made = [rule_of(change) for change in _changes(path, {"who": "carl", "why": ""})]
    signed = [msgspec.structs.replace(rule, who=rule.who or "carl") for rule in RULES]
    now = [change.ts for change in made if change is not None]
    assert made == [
        check_rule(msgspec.structs.replace(rule, ts=ts))
        for rule, ts in zip(signed, now, strict=True)
    ]


def test_each_rule_that_cannot_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text('[{"rule_id": "a", "action": "block", "word": "x"}, {"rule_id": "b"}, 7]')
    with pytest.raises(UsageError, match=r"line 2: .*line 3: expected an object"):
        _changes(path, {})
