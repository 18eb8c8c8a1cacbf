"""A gate follows the rules of a store."""

from __future__ import annotations

import asyncio

import pytest

from onebar.errors import OneBarError
from onebar.gating.follow import RuleFollower
from onebar.gating.gate import Gate
from onebar.gating.rules import About
from onebar.process.tasks import end_tasks
from onebar.records import Candidate, Rule


class Source:
    def __init__(self) -> None:
        self.changes: dict[str, tuple[int, Rule | None]] = {}
        self.version = 0
        self.away = False
        self.read: list[int] = []

    def put(self, rule_id: str, rule: Rule | None) -> None:
        self.version += 1
        self.changes[rule_id] = self.version, rule

    async def rules_version(self) -> int:
        if self.away:
            raise OneBarError("away")
        return self.version

    async def rules_since(self, version: int) -> dict[str, Rule | None]:
        self.read.append(version)
        return {name: rule for name, (at, rule) in self.changes.items() if at > version}


def block(query: str) -> Rule:
    return Rule(query, "block", query=query)


def shown(gate: Gate) -> list[str]:
    queries = [Candidate(query, 0.0) for query in "abc"]
    return [query.text for query in gate.apply(queries, About(), 0.0).queries]


async def test_it_opens_once_the_rules_are_known_and_reads_what_changed() -> None:
    source, gate = Source(), Gate()
    gate.open = False
    follower = RuleFollower(source, gate)
    source.away = True
    with pytest.raises(OneBarError):
        await follower.look()
    assert not gate.open
    source.away = False
    source.put("a", block("a"))
    await follower.look()
    assert gate.open
    assert shown(gate) == ["b", "c"]
    source.put("b", block("b"))
    source.put("a", None)
    before = gate.passed(0.0)
    await follower.look()
    assert shown(gate) == ["a", "c"]
    assert gate.passed(0.0) != before
    await follower.look()
    assert source.read == [0, 1]


async def test_rules_that_were_lost_are_read_from_the_start() -> None:
    source, gate = Source(), Gate()
    follower = RuleFollower(source, gate)
    for query in "abc":
        source.put(query, block(query))
    await follower.look()
    assert shown(gate) == []
    source.changes, source.version = {}, 0
    source.put("b", block("b"))
    await follower.look()
    assert shown(gate) == ["a", "c"]


async def test_it_keeps_what_it_knows_while_the_store_is_away() -> None:
    source, gate = Source(), Gate()
    follower = RuleFollower(source, gate, poll_s=0.001)
    source.put("a", block("a"))
    following = asyncio.create_task(follower.follow())
    try:
        async with asyncio.timeout(30):
            while shown(gate) != ["b", "c"]:  # noqa: ASYNC110 - the follower makes it true
                await asyncio.sleep(0.001)
            source.away = True
            await asyncio.sleep(0.02)
            assert shown(gate) == ["b", "c"]
            source.away = False
            source.put("b", block("b"))
            while shown(gate) != ["c"]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    finally:
        await end_tasks(following)


async def test_rules_of_another_state_are_read_anew_though_they_have_the_same_version() -> None:
    source, gate = Source(), Gate()
    source.put("a", block("a"))
    follower = RuleFollower(source, gate)
    await follower.look()
    passed = gate.passed(0.0)
    source.changes = {"b": (1, block("b"))}  # as many changes, and other rules
    follower.restart()
    assert gate.passed(0.0) != passed  # what passed before has not passed what is to come
    assert shown(gate) == ["b", "c"]
    await follower.look()
    assert shown(gate) == ["a", "c"]
    assert source.read[-1] == 0
