"""A believable e-commerce feed, simulated: a deterministic log, and the truth behind it."""

from stream.simulator.config import (
    DEFAULT_START_TS,
    LANGS,
    Lang,
    SimulatorConfig,
    SimulatorConfigError,
    config_of,
)
from stream.simulator.texts.lexicon import LexiconError
from stream.simulator.truth import Truth, TruthError, load_truth
from stream.simulator.writer import simulate, truth_path_of, write_log

__all__ = [
    "DEFAULT_START_TS",
    "LANGS",
    "Lang",
    "LexiconError",
    "SimulatorConfig",
    "SimulatorConfigError",
    "Truth",
    "TruthError",
    "config_of",
    "load_truth",
    "simulate",
    "truth_path_of",
    "write_log",
]
