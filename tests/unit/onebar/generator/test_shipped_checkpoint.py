"""The demo checkpoint that comes with the package: small, sound, and about the right thing."""

from __future__ import annotations

import pytest

from onebar.evidence.evidence import assemble
from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.text import clean_video
from onebar.generator.checkpoint import open_checkpoint
from onebar.generator.engine import Engine
from onebar.generator.load import load_engine
from onebar.recommending.candidates import choose
from onebar.recommending.material import material
from onebar.records import Anchor, Features, VideoText


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(open_checkpoint())


def test_it_is_small_and_reads_prompts_as_the_program_builds_them() -> None:
    checkpoint = open_checkpoint()
    assert checkpoint.name.startswith("demo-")
    assert checkpoint.card.prompt == PromptConfig()
    assert sum(fact.size for fact in checkpoint.card.files.values()) <= 60_000_000
    assert {path.name for path in checkpoint.path.iterdir()} == {
        "config.json",
        "ct2",
        "lexicon.bin",
        "onebar.json",
        "tokenizer.json",
    }


def test_its_card_says_how_good_it_is() -> None:
    """On a simulated world that it has not seen and on videos about things that were kept from it,
    against what others searched for there; and what it was trained on."""
    training = open_checkpoint().card.training
    for name in ("simulated", "composed"):
        measured = training["held_out"][name]
        assert measured["clicks"] > 500
        (_, low, _), (_, _, high) = measured["hr@8"], measured["anchors_hr@8"]
        assert low > high
    assert training["held_out"]["answer_in_prompt"]["simulated"]["hr@1"] >= 0.9
    assert training["made_of"]["licences"]


@pytest.mark.parametrize(
    ("video", "anchors", "words"),
    [
        (
            VideoText(
                title="Wait for the end 😳",
                caption="been using this waterproof hiking boots for 3 weeks #fyp",
                category="Shoes",
            ),
            (),
            ("boots", "hiking", "trekking"),
        ),
        (
            VideoText(title="10/10 would recommend", caption="who else??"),
            ("noise cancelling headset", "wireless headset"),
            ("headset", "headphones"),
        ),
        (VideoText(title="夏季新款连衣裙 显瘦", caption="姐妹们连衣裙闭眼入"), (), ("裙",)),
    ],
)
def test_its_queries_are_about_the_video(
    engine: Engine, video: VideoText, anchors: tuple[str, ...], words: tuple[str, ...]
) -> None:
    features = Features(clean_video(video), tuple(Anchor(query, 2.0) for query in anchors))
    prompt = build_prompt(assemble(features), PromptConfig())
    queries = choose(material(features, ()), engine.generate([prompt], 8)[0], 8).queries
    assert len(queries) >= 3
    about = sum(any(word in query.text for word in words) for query in queries)
    assert about >= len(queries) / 2, [query.text for query in queries]
