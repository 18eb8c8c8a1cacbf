"""What docs/results.md compares: the runs, each a stage with settings, from the run before it.

Pure data; `benchmarks/results.py` runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

SIMULATOR = "simulator"
QBQTC = "qbqtc"
PRESET = "mini"
PAIRS = 32
"""Examples in a step of stages 0, 1 and 3."""
LISTS = 16
"""Preference lists in a step of stage 2."""
CLICKS = "clicks"
"""`onebar train clicks`: no stage of the generator's, but a run like one."""
IMPRESSIONS = 2_000
"""Most impressions of the valid part that a click ranker learns from."""

Changes = Mapping[str, Any]


class Experiment(Struct, frozen=True):
    """One run of one stage.

    `start` names the run whose checkpoint it goes on from. `as_long_as` names a run whose training
    time this one is given, instead of steps of its own: equal compute.
    """

    name: str
    stage: str
    title: str
    start: str | None = None
    changes: Changes = {}
    as_long_as: str | None = None
    source: str = SIMULATOR
    """The data it learns from and is measured on."""
    rewarded_by: str | None = None
    """The run whose click ranker rewards what this one writes."""
    once: bool = False
    """Trained with one seed, and every seed of what comes after begins with it."""

    @property
    def ranked(self) -> bool:
        """Whether a click ranker of its own orders the candidates; else the generator's own order
        is what is measured."""
        return self.stage == CLICKS


PRETRAIN: Changes = {"steps": 800, "batch_size": PAIRS}
RATE = 2e-3
"""Of stage 1, on what stage 0 made."""
LOOKS: Changes = {"validations": 8, "validation_batches": 8}
"""How often, and on how many batches, a run looks at the valid part."""
SFT: Changes = {
    **LOOKS,
    "steps": 900,
    "batch_size": PAIRS,
    "learning_rate": RATE,
    "privileged": 0.2,
    "pointing": 0.5,
}
SHORT: Changes = {**SFT, "steps": 500}
"""For comparisons within stage 1, which cost less this way."""
SEEN: Changes = {"validations": 4, "validation_batches": 8}
"""How often the stages after the first look at the valid part."""
LISTWISE: Changes = {
    **SEEN,
    "steps": 100,
    "batch_size": LISTS,
    "learning_rate": 3e-4,
    "beta": 0.5,
    "sft_weight": 0.3,
}
PIOPD: Changes = {**SEEN, "steps": 40, "batch_size": PAIRS, "learning_rate": 3e-4}
REINFORCE: Changes = {
    **SEEN,
    "steps": 80,
    "batch_size": 8,
    "learning_rate": 3e-4,
    "temperature": 0.5,
    "variety": 0.0,
}
RANKED: Changes = {"most": IMPRESSIONS}
MORE: Changes = {"batch_size": PAIRS, "learning_rate": 1e-3}


def _without(field: str) -> Changes:
    return {**SHORT, "prompt": {field: False}}


def _piopd(name: str, title: str, **changes: Any) -> Experiment:
    return Experiment(name, "piopd", title, "listwise", {**PIOPD, **changes})


def _ranked(start: str, title: str, *, once: bool = False) -> Experiment:
    return Experiment(f"{start}-ranked", CLICKS, title, start, RANKED, once=once)


def _listwise(name: str, title: str, **changes: Any) -> Experiment:
    return Experiment(name, "listwise", title, "sft", {**LISTWISE, **changes})


VERBOSE: Changes = {
    **SHORT,
    "prompt": {"form": "verbose"},
    "generation": {"max_source_tokens": 224},
}

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("pretrain", "pretrain", "Stage 0: denoising", None, PRETRAIN, once=True),
    Experiment("sft", "sft", "Stage 1: grounded SFT", None, SFT, once=True),
    Experiment("listwise", "listwise", "Stage 2: + list-wise DPO", "sft", LISTWISE),
    Experiment("piopd", "piopd", "Stage 3: + PIOPD", "listwise", PIOPD),
    _ranked("sft", "Stage 1 in the order of a click ranker", once=True),
    Experiment(
        "reinforce", "reinforce", "Reinforcement by stage 1's click ranker", "piopd", REINFORCE,
        rewarded_by="sft-ranked",
        once=True,  # on the valid part it lost by more than chance, whatever its settings
    ),
    _ranked("piopd", "Stage 3 in the order of a click ranker", once=True),
    Experiment(
        "sft-for-listwise", "sft", "SFT, then more SFT for stage 2's time", "sft", MORE,
        as_long_as="listwise",
    ),
    Experiment(
        "sft-for-piopd", "sft", "Stage 2, then more SFT for stage 3's time", "listwise", MORE,
        as_long_as="piopd",
    ),
    Experiment("short", "sft", "Stage 1, a quarter as long", "pretrain", SHORT),
    Experiment("verbose", "sft", "with the verbose instruction prompt", "pretrain", VERBOSE),
    Experiment(
        "verbose-cut", "sft", "the same within the compact one's 96 tokens", "pretrain",
        {**SHORT, "prompt": {"form": "verbose"}},
    ),
    Experiment("no-text", "sft", "without T", "pretrain", _without("text")),
    Experiment("no-summary", "sft", "without M", "pretrain", _without("summary")),
    Experiment("no-anchors", "sft", "without A", "pretrain", _without("anchors")),
    Experiment("no-history", "sft", "without H", "pretrain", _without("history")),
    Experiment("no-pretraining", "sft", "without stage 0", None, SHORT),
    Experiment(
        "qbqtc-pretrain", "pretrain", "Stage 0: denoising", None, PRETRAIN, source=QBQTC, once=True
    ),
    Experiment(
        "qbqtc-sft", "sft", "Stage 1: SFT", "qbqtc-pretrain", {**SFT, "steps": 1000}, source=QBQTC
    ),
    _piopd(
        "plain-kd", "Plain distillation: logged queries, a teacher that has not seen them",
        on_policy=False, privileged=False,
    ),
    _piopd("piopd-unprivileged", "PIOPD, the teacher has not seen the click", privileged=False),
    _piopd("piopd-off-policy", "PIOPD on logged queries, no rollouts", on_policy=False),
    _piopd("piopd-no-forward", "PIOPD without the forward KL", forward_weight=0.0),
    _piopd("piopd-no-reverse", "PIOPD without the reverse KL", reverse_weight=0.0),
    _piopd("piopd-no-entropy", "PIOPD without the entropy term", entropy_weight=0.0),
    _piopd("piopd-no-r-drop", "PIOPD without R-Drop", r_drop_weight=0.0),
    _piopd("piopd-no-fgm", "PIOPD without FGM", fgm_weight=0.0),
    _piopd("piopd-slow", "PIOPD at half the rate, longer", learning_rate=5e-4, steps=250),
    _listwise("listwise-strong", "List-wise DPO, preference first", beta=0.3, sft_weight=0.2),
    _listwise("listwise-fast", "List-wise DPO at three times the rate", learning_rate=3e-4),
    _listwise("listwise-slow", "List-wise DPO at the paper's rate", learning_rate=5e-5),
)  # fmt: skip
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}

START = "start"
"""What a candidate's stage goes on from, as the candidates are called."""
BEFORE: Mapping[str, Changes] = {
    "listwise": {**SEEN, "steps": 100, "batch_size": LISTS, "learning_rate": 1e-4},
    "piopd": {**SEEN, "steps": 40, "batch_size": PAIRS, "learning_rate": 1e-3},
    "reinforce": {**SEEN, "steps": 80, "batch_size": 8, "learning_rate": 1e-4},
}
"""Where the choosing began."""
CANDIDATES: Mapping[str, Mapping[str, Changes]] = {
    "listwise": {
        "preference": {"learning_rate": 3e-4, "beta": 0.5, "sft_weight": 0.3},
        "more-sft": {"stage": "sft", "learning_rate": 5e-4, "privileged": 0.2, "pointing": 0.5},
    },
    "piopd": {
        "slow": {"learning_rate": 3e-4},
        "reverse": {
            "steps": 80,
            "learning_rate": 5e-4,
            "sft_weight": 0.3,
            "forward_weight": 0.0,
            "entropy_weight": 0.0,
        },
    },
    "reinforce": {
        "fast": {"learning_rate": 3e-4},
        "cool": {"learning_rate": 3e-4, "temperature": 0.5, "variety": 0.0},
    },
}
"""What each stage's settings were chosen among, by `benchmarks/choosing.py`: what differs from
`BEFORE`. Another `stage` is what as many examples are worth there."""
