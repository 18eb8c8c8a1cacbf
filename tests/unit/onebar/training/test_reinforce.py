"""List-wise reinforcement: the algebra of its losses, what is rewarded, and a run of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy import toy_dataset
from typer.testing import CliRunner

from onebar.cli.main import app
from onebar.evidence.prompt import build_prompt
from onebar.generator.checkpoint import Checkpoint, open_checkpoint
from onebar.records import Candidate
from onebar.training.batches import pad_sources
from onebar.training.models.architecture import tensors
from onebar.training.privileged import rollout
from onebar.training.recipe import train
from onebar.training.reinforce import stage
from onebar.training.reinforce.advantages import advantages, apart, policy_loss
from onebar.training.reinforce.stage import ReinforceConfig, train_reinforce
from onebar.training.run import begin
from onebar.triggers import Trigger, TriggerDataset

VALUES = st.integers(-20, 20).map(lambda whole: whole / 4)


@st.composite
def rewards(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """(B, n, k) of the queries and (B, n) of the lists."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3)))
    many, whole = shape[0] * shape[1] * shape[2], shape[0] * shape[1]
    queries = draw(st.lists(VALUES, min_size=many, max_size=many))
    lists = draw(st.lists(VALUES, min_size=whole, max_size=whole))
    return (
        torch.tensor(queries, dtype=torch.float64).view(shape),
        torch.tensor(lists, dtype=torch.float64).view(shape[:2]),
    )


@settings(deadline=None)
@given(rewards(), st.floats(0, 2), st.floats(0.5, 8), VALUES, st.integers(0, 99))
def test_advantages_compare_within_a_prompt_and_nothing_else(
    drawn: tuple[Tensor, Tensor], weight: float, scale: float, shift: float, seed: int
) -> None:
    queries, lists = drawn
    found = advantages(queries, lists, weight)
    assert found.shape == queries.shape
    # As good as it is bad, at each place.
    assert torch.allclose(found.sum(1), torch.zeros(1).double(), atol=1e-9)
    # Whatever the unit and the zero of the rewards.
    again = advantages(scale * queries + shift, scale * lists + shift, weight)
    assert torch.allclose(found, again, atol=1e-9)
    # Another order of the lists: the same in that order.
    order = Random(seed).sample(range(queries.shape[1]), queries.shape[1])
    assert torch.allclose(found[:, order], advantages(queries[:, order], lists[:, order], weight))
    # But for a list's part, the better of two at one place has the greater advantage.
    own = advantages(queries, lists, 0.0)
    better = queries[:, :, None] > queries[:, None, :]
    assert (own[:, :, None] > own[:, None, :])[better].all()


def test_where_all_are_alike_nothing_is_learnt() -> None:
    same = torch.full((2, 3, 4), 0.3, dtype=torch.float64)
    assert not advantages(same, same[:, :, 0], 1.0).any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_the_gradient_is_that_of_the_expected_reward(seed: int) -> None:
    """Over all outputs of one token, weighed by how likely each is, it is d/dθ Σ π A."""
    torch.manual_seed(seed)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    reward = torch.randn(5, dtype=torch.float64)
    [wanted] = torch.autograd.grad((logits.softmax(0) * reward).sum(), logits)
    log_probs = logits.log_softmax(0)
    found = torch.zeros(5, dtype=torch.float64)
    for at in range(5):
        loss = policy_loss(log_probs[at].view(1, 1), reward[at : at + 1], torch.ones(1, 1).bool())
        [gradient] = torch.autograd.grad(loss, logits, retain_graph=True)
        found -= gradient * log_probs[at].exp().detach()
    assert torch.allclose(found, wanted, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_the_distance_is_none_where_nothing_moved_and_the_divergence_on_average(seed: int) -> None:
    torch.manual_seed(seed)
    policy, reference = torch.randn(2, 6, dtype=torch.float64).log_softmax(1)
    mask = torch.ones(1, 1, dtype=torch.bool)
    each = torch.stack(
        [apart(policy[i].view(1, 1), reference[i].view(1, 1), mask) for i in range(6)]
    )
    assert (each >= 0).all()
    divergence = (policy.exp() * (policy - reference)).sum()
    assert torch.allclose((each * policy.exp()).sum(), divergence)
    same = policy.view(1, 6).clone().requires_grad_()
    distance = apart(same, policy.view(1, 6), torch.ones(1, 6, dtype=torch.bool))
    assert distance == 0
    [gradient] = torch.autograd.grad(distance, same)
    assert not gradient.any()


def test_padding_counts_nowhere() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -7.0]])
    mask = torch.tensor([[True, True, False]])
    assert policy_loss(log_probs, torch.tensor([2.0]), mask) == pytest.approx(3.0)


@pytest.mark.parametrize("sample", [False, True])
def test_a_prompt_that_is_encoded_once_says_what_it_says_when_read_again(
    begun: Checkpoint, dataset: TriggerDataset, tmp_path: Path, sample: bool
) -> None:
    start = begin(config(dataset, begun, tmp_path / "out"), tmp_path)
    model = start.model.eval()
    prompts = [build_prompt(one.evidence, start.prompt) for one in dataset.read("valid")][:3]
    ids = start.tokenizer.encode(prompts)
    source, mask = tensors(model, *pad_sources(ids, start.tokenizer.pad_id))
    torch.manual_seed(1)
    once = rollout(model, start.tokenizer, source, mask, sample=sample, each=4)
    torch.manual_seed(1)
    many = source.repeat_interleave(4, 0), mask.repeat_interleave(4, 0)
    assert torch.equal(once, rollout(model, start.tokenizer, *many, sample=sample))
    groups = once.view(3, 4, -1)
    assert (groups[:, :1] == groups).all().item() is not sample


class Worth:
    """What `Likes` finds."""

    allowed = 1.0

    def __init__(self, queries: list[list[float]]) -> None:
        self.queries = queries
        self.lists = [sum(each) for each in queries]


class Likes:
    """A reward for whatever has a word."""

    def __init__(self, word: str) -> None:
        self.name = f"likes {word}"
        self._word = word

    def __call__(self, trigger: Trigger, lists: Sequence[Sequence[Candidate]]) -> Worth:
        for each in lists:
            scores = [one.score for one in each]
            assert scores == sorted(scores, reverse=True)
        return Worth([[float(self._word in one.text) for one in each] for each in lists])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TriggerDataset:
    return toy_dataset(tmp_path_factory.mktemp("reinforce") / "data", 400)


@pytest.fixture(scope="module")
def begun(dataset: TriggerDataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """One that has hardly begun to learn, so that what it writes differs from time to time."""
    out = tmp_path_factory.mktemp("begun") / "sft"
    settings = {"preset": "tiny", "steps": 60, "batch_size": 16, "device": "cpu", "threads": 1}
    return open_checkpoint(train("sft", dataset.path, out, progress=False, **settings))


def config(
    dataset: TriggerDataset, init: Checkpoint, out: Path, *, steps: int = 10
) -> ReinforceConfig:
    return ReinforceConfig(
        dataset=dataset.path, init=str(init.path), out=out, steps=steps, batch_size=4, lists=4,
        places=2, learning_rate=3e-3, warmup=0.0, device="cpu", threads=1, progress=False,
        validation_batches=4, sft_weight=0.0, kl_weight=0.0,
    )  # fmt: skip


def test_what_is_rewarded_becomes_likelier_and_an_interrupted_run_ends_alike(
    dataset: TriggerDataset,
    begun: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rewarded = Likes("red")
    whole = open_checkpoint(train_reinforce(config(dataset, begun, tmp_path / "a"), rewarded))
    facts = whole.card.training
    assert facts["stage"] == "reinforce"
    assert facts["parent"] == begun.name
    assert facts["settings"]["reward"] == "likes red"
    # The loss is the reward of a list, less than 0.
    assert facts["validation"]["best"] < facts["validation"]["before"] - 0.1

    real, asked = stage.Reinforce.step, [0]

    def broken(self: stage.Reinforce, *arguments: object) -> object:
        asked[0] += 1
        if asked[0] == 12:
            raise KeyboardInterrupt
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.Reinforce, "step", broken)
    again = config(dataset, begun, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        train_reinforce(again, rewarded)
    assert not again.out.exists()
    resumed = open_checkpoint(train_reinforce(again, rewarded))
    assert asked[0] > 12
    assert resumed.card.files == whole.card.files


def test_a_checkpoint_without_a_click_ranker_is_refused(
    dataset: TriggerDataset, begun: Checkpoint, tmp_path: Path
) -> None:
    options = ["--init", str(begun.path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["train", "reinforce", str(dataset.path), *options])
    assert result.exit_code == 1
    assert "onebar train clicks" in str(result.output) + str(result.exception)
    unknown = CliRunner().invoke(
        app, ["train", "reinforce", str(dataset.path), *options, "--set", "beta=1"]
    )
    assert unknown.exit_code == 2
    assert "list_weight" in unknown.output
