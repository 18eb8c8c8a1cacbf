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
SFT_STEPS = 1500
PAIRS = 64
"""Examples in a step of stages 1 and 3."""
LISTS = 32
"""Preference lists in a step of stage 2."""

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


SFT: Changes = {"steps": SFT_STEPS, "batch_size": PAIRS}
LISTWISE: Changes = {"steps": 300, "batch_size": LISTS, "learning_rate": 1e-4}
PIOPD: Changes = {"steps": 200, "batch_size": PAIRS, "learning_rate": 3e-4}


def _without(field: str) -> Changes:
    return {**SFT, "prompt": {field: False}}


def _piopd(**changes: Any) -> Changes:
    return {**PIOPD, **changes}


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("sft", "sft", "Stage 1: grounded SFT", None, SFT),
    Experiment("listwise", "listwise", "Stage 2: + list-wise DPO", "sft", LISTWISE),
    Experiment("piopd", "piopd", "Stage 3: + PIOPD (the full model)", "listwise", PIOPD),
    Experiment(
        "sft-verbose",
        "sft",
        "SFT on the verbose instruction prompt",
        None,
        {
            **SFT,
            "prompt": {"form": "verbose"},
            "generation": {"max_source_tokens": 224},
        },
    ),
    Experiment("sft-no-text", "sft", "SFT without T", None, _without("text")),
    Experiment("sft-no-summary", "sft", "SFT without M", None, _without("summary")),
    Experiment("sft-no-anchors", "sft", "SFT without A", None, _without("anchors")),
    Experiment("sft-no-history", "sft", "SFT without H", None, _without("history")),
    Experiment(
        "sft-for-listwise", "sft", "SFT, then more SFT for stage 2's time", "sft",
        {"batch_size": PAIRS, "learning_rate": 3e-4}, as_long_as="listwise",
    ),
    Experiment(
        "sft-for-piopd", "sft", "Stage 2, then more SFT for stage 3's time", "listwise",
        {"batch_size": PAIRS, "learning_rate": 3e-4}, as_long_as="piopd",
    ),
    Experiment(
        "plain-kd", "piopd", "Plain distillation: logged queries, a teacher that has not seen them",
        "listwise", _piopd(on_policy=False, privileged=False),
    ),
    Experiment(
        "piopd-off-policy", "piopd", "PIOPD on logged queries, no rollouts", "listwise",
        _piopd(on_policy=False),
    ),
    Experiment(
        "piopd-unprivileged", "piopd", "PIOPD, the teacher has not seen the click", "listwise",
        _piopd(privileged=False),
    ),
    Experiment(
        "piopd-no-forward", "piopd", "PIOPD without the forward KL", "listwise",
        _piopd(forward_weight=0.0),
    ),
    Experiment(
        "piopd-no-reverse", "piopd", "PIOPD without the reverse KL", "listwise",
        _piopd(reverse_weight=0.0),
    ),
    Experiment(
        "piopd-no-entropy", "piopd", "PIOPD without the entropy term", "listwise",
        _piopd(entropy_weight=0.0),
    ),
    Experiment(
        "piopd-no-r-drop", "piopd", "PIOPD without R-Drop", "listwise",
        _piopd(r_drop_weight=0.0),
    ),
    Experiment(
        "piopd-no-fgm", "piopd", "PIOPD without FGM", "listwise", _piopd(fgm_weight=0.0)
    ),
)  # fmt: skip
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
