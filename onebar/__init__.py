"""The method, a library that stands alone: evidence, prompt, generator, training, evaluation, and
a client of the HTTP API. Knows no Kafka, no Redis, no HTTP server.

`__all__` is the contract; docs/python.md shows it. Each name is loaded when it is first used, so
`import onebar` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

__all__ = [
    "Anchor",
    "Answer",
    "AsyncClient",
    "BusyError",
    "Candidate",
    "Client",
    "ClientError",
    "ClientTimeoutError",
    "Evidence",
    "HistoryEntry",
    "InvalidEventsError",
    "InvalidRequestError",
    "Model",
    "NotAllowedError",
    "OneBarError",
    "Preference",
    "PromptConfig",
    "Trigger",
    "TriggerDataset",
    "UnreachableError",
    "VideoText",
    "__version__",
    "build_prompt",
    "evaluate",
    "open_dataset",
    "open_model",
    "train",
    "write_dataset",
]

_HOMES = {
    "client.clients": ("AsyncClient", "Client"),
    "client.errors": (
        *("BusyError", "ClientError", "ClientTimeoutError", "InvalidEventsError"),
        *("InvalidRequestError", "NotAllowedError", "UnreachableError"),
    ),
    "client.records": ("Answer",),
    "errors": ("OneBarError",),
    "evaluation.evaluate": ("evaluate",),
    "evidence.evidence": ("Evidence",),
    "evidence.prompt": ("PromptConfig", "build_prompt"),
    "recommending.model": ("Model", "open_model"),
    "records": ("Anchor", "Candidate", "HistoryEntry", "VideoText"),
    "training.recipe": ("train",),
    "triggers": ("Preference", "Trigger", "TriggerDataset", "open_dataset", "write_dataset"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from onebar.client.clients import AsyncClient, Client
    from onebar.client.errors import (
        BusyError,
        ClientError,
        ClientTimeoutError,
        InvalidEventsError,
        InvalidRequestError,
        NotAllowedError,
        UnreachableError,
    )
    from onebar.client.records import Answer
    from onebar.errors import OneBarError
    from onebar.evaluation.evaluate import evaluate
    from onebar.evidence.evidence import Evidence
    from onebar.evidence.prompt import PromptConfig, build_prompt
    from onebar.recommending.model import Model, open_model
    from onebar.records import Anchor, Candidate, HistoryEntry, VideoText
    from onebar.training.recipe import train
    from onebar.triggers import (
        Preference,
        Trigger,
        TriggerDataset,
        open_dataset,
        write_dataset,
    )
else:  # so that mypy knows no other names

    def __getattr__(name: str) -> object:
        """Load a name of `__all__` from where it lives (PEP 562)."""
        if name not in _HOME:
            raise AttributeError(f"module 'onebar' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"onebar.{_HOME[name]}"), name)
        globals()[name] = value
        return value
