"""The truth: every wording the world can make is judged as what it is."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from stream.simulator import SimulatorConfig, Truth, TruthError, load_truth, write_log
from stream.simulator.config import LANGS, Lang
from stream.simulator.texts.lexicon import load_lexicon
from stream.simulator.texts.wording import likely_wordings, make_intent, sample_wording
from stream.simulator.truth import TruthRecord, UserTruth, WorldTruth, video_truth
from stream.simulator.users import make_user

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("lang", LANGS)
def test_wordings_of_the_intent_are_relevant_for_every_product(lang: Lang) -> None:
    config = SimulatorConfig(lang=lang)
    lexicon = load_lexicon(lang)
    rand = random.Random(3).random
    user = make_user(config, lexicon, "somebody")
    intents = {f"v{p.index}": make_intent(p, rand) for p in lexicon.products}
    truth = Truth(
        [
            WorldTruth(config),
            *(
                video_truth(video_id, intent, sensitive=None, misleading=False, told_by=())
                for video_id, intent in intents.items()
            ),
        ]
    )
    judged = {3: 0, 2: 0, 1: 0, 0: 0}
    for video_id, intent in intents.items():
        assert truth.intent(video_id).mask == intent.mask
        for text, _ in likely_wordings(lexicon, config, intent, user.traits)[:12]:
            judged[truth.relevance(video_id, text)] += 1
    assert judged[3] >= 0.97 * sum(judged.values())
    assert judged[0] == 0


@pytest.mark.parametrize("lang", LANGS)
def test_likely_wordings_are_what_users_type(lang: Lang) -> None:
    config = SimulatorConfig(lang=lang)
    lexicon = load_lexicon(lang)
    rand = random.Random(5).random
    intent = make_intent(lexicon.products[17], rand)
    traits = make_user(config, lexicon, "somebody").traits
    likely = likely_wordings(lexicon, config, intent, traits)
    assert sum(weight for _, weight in likely) == pytest.approx(0.97, abs=0.031)
    typed = [sample_wording(lexicon, config, intent, traits, rand).text for _ in range(4000)]
    for text, weight in likely[:5]:
        assert typed.count(text) / len(typed) == pytest.approx(weight, abs=0.03)


def english() -> tuple[Truth, str]:
    config = SimulatorConfig(lang="en")
    product = next(p for p in load_lexicon("en").products if p.name == "air fryer")
    intent = make_intent(product, lambda: 0.0)  # dual basket, compact, small kitchen, brand 0
    records: list[TruthRecord] = [
        WorldTruth(config),
        video_truth("v", intent, sensitive=None, misleading=False, told_by=("title",)),
        video_truth("bad", intent, sensitive="scam", misleading=False, told_by=()),
        UserTruth("u", synonym=0.0, phrasing=0, modifier=0.0, modifies=True, tastes=()),
    ]
    return Truth(records), product.category.brands[0].lower()


def test_relevance_grades() -> None:
    truth, brand = english()
    assert truth.relevance("v", "Air  Fryer") == 3
    assert truth.relevance("v", f"best {brand} dual basket airfryer for small kitchen") == 3
    assert truth.relevance("v", "glass air fryer") == 2
    assert truth.relevance("v", "rice cooker") == 1
    assert truth.relevance("v", "running shoes") == 0
    assert truth.relevance("v", "air") == 0
    assert truth.relevance("bad", "air fryer") == 0


def test_the_oracle_knows_the_user() -> None:
    truth, _ = english()
    assert truth.oracle("v", "u")[0] == "best dual basket air fryer"
    assert truth.oracle("v")[0] == "dual basket air fryer"
    assert len(truth.oracle("v", "u", k=5)) == 5
    assert truth.oracle("bad", "u") == []


def test_truth_round_trips_through_its_file(tmp_path: Path) -> None:
    config = SimulatorConfig(events=600, seed=4)
    truth = load_truth(write_log(config, tmp_path / "log.jsonl.gz"))
    assert (tmp_path / "log.truth.jsonl").exists()
    assert truth.config == config
    assert truth.videos
    assert truth.users
    assert all(truth.intent(video_id) for video_id in truth.videos)


@pytest.mark.parametrize("content", [b"", b'{"record": "video"}\n', b"nonsense\n"])
def test_a_file_that_is_no_truth(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.truth.jsonl"
    path.write_bytes(content)
    with pytest.raises(TruthError):
        load_truth(path)


def test_a_truth_that_is_cut_off_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"record": "user"}\n' * 1000)
    path = tmp_path / "cut.truth.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TruthError, match="cut"):
        load_truth(path)


MAY_READ_THE_TRUTH = (
    "stream/cli.py",
    "onebar/cli/main.py",
    "onebar/stack/demo.py",
    "onebar/stack/showcase.py",
    "onebar/cli/logs/simulate.py",
    "onebar/cli/evaluation/evaluate.py",
)
"""What writes it, and the evaluation that is told to measure relevance by it."""


def test_nothing_that_serves_or_trains_reads_the_truth() -> None:
    sources = [
        path
        for folder in ("feature_store", "onebar", "api", "stream")
        for path in (ROOT / folder).rglob("*.py")
        if "simulator" not in path.parts
        and path.relative_to(ROOT).as_posix() not in MAY_READ_THE_TRUTH
    ]
    assert len(sources) > 20
    readers = [
        path
        for path in sources
        if "simulator.truth" in path.read_text(encoding="utf-8")
        or "loop.judge" in path.read_text(encoding="utf-8")
        or "load_truth" in path.read_text(encoding="utf-8")
    ]
    assert readers == []
