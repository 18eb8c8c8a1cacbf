"""Held within a repertoire an engine says nothing else, and says what it holds of the rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import toy_prompts, toy_triggers

from onebar.evidence.text import REJECT
from onebar.gating.repertoire import Repertoire
from onebar.generator.checkpoint import Checkpoint
from onebar.generator.engine import Engine
from onebar.generator.load import load_engine
from onebar.generator.within import Within

BEAMS = 8
TARGETS = sorted({trigger.target for trigger in toy_triggers(60, seed=3)} - {REJECT})
PROMPTS = toy_prompts(6, seed=4)


@pytest.fixture(scope="module", params=["ctranslate2", "torch"])
def engine(request: pytest.FixtureRequest, toy_checkpoint: Checkpoint) -> Iterator[Engine]:
    engine = load_engine(toy_checkpoint, engine=request.param, beam_size=BEAMS)
    yield engine
    engine.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    known=st.sets(st.sampled_from(TARGETS), max_size=12),
    more=st.sets(st.sampled_from(TARGETS) | st.just("zqx 不认识"), max_size=3),
    changes=st.lists(st.tuples(st.booleans(), st.sampled_from(TARGETS)), max_size=4),
    prompt=st.sampled_from(PROMPTS),
)
def test_only_what_may_be_said_is_said_also_after_changes(
    engine: Engine, known: set[str], more: set[str], changes: list[tuple[bool, str]], prompt: str
) -> None:
    repertoire = Repertoire(known)
    [open_ones] = engine.generate([prompt], BEAMS)
    for add, query in [(True, TARGETS[0]), *changes]:
        (repertoire.add if add else repertoire.remove)(query)
        near = repertoire.near([prompt], 32)
        held = Within(repertoire, tuple(sorted(more)), near)
        [found] = engine.generate([prompt], BEAMS, [held])
        assert {each.text for each in found} <= {*repertoire.all_known(), *more, REJECT}
        scores = [each.score for each in found]
        assert scores == sorted(scores, reverse=True)
        # What the open search has found inside is found here as well, as likely.
        said = {each.text: each.score for each in found}
        assert len(found) <= BEAMS
        for each in open_ones:
            if held.holds(each.text) and (each.text in said or len(found) < BEAMS):
                assert said[each.text] == pytest.approx(each.score, abs=0.05)


def test_what_is_preferred_comes_beside_the_open_ones(engine: Engine) -> None:
    repertoire = Repertoire(TARGETS[:3])
    for prompt in PROMPTS[:3]:
        [open_ones] = engine.generate([prompt], BEAMS)
        held = Within(repertoire, (), repertoire.near([prompt], 32), prefer=True)
        [found, free] = engine.generate([prompt, prompt], BEAMS, [held, None])
        assert free == open_ones
        assert {each.text for each in open_ones} <= {each.text for each in found}


def test_nothing_is_said_where_nothing_may_be(engine: Engine) -> None:
    for prompt in PROMPTS:
        [found] = engine.generate([prompt], BEAMS, [Within(Repertoire())])
        assert [each.text for each in found] in ([], [REJECT])


def test_a_small_trie_is_said_whole(toy_checkpoint: Checkpoint) -> None:
    """By the search that masks: all that may be said, whatever the open search likes."""
    engine = load_engine(toy_checkpoint, engine="torch", beam_size=BEAMS)
    repertoire = Repertoire(TARGETS[:4])
    for prompt in PROMPTS:
        [found] = engine.generate([prompt], BEAMS, [Within(repertoire)])
        assert {each.text for each in found} == {*TARGETS[:4], REJECT}
    engine.close()
