"""A running API in this process, and an engine that can be held."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from msgspec import Struct
from support import eventually

from api.app import create_app
from api.services import Services
from onebar.evidence.prompt import PromptConfig
from onebar.gating.risk import shipped_rules
from onebar.generator.engine import Engine
from onebar.generator.within import Within
from onebar.recommending.loading import LoadedModel, warm_prompt
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import Ranker
from onebar.records import Candidate
from onebar.settings import Settings

HOLD_S = 30.0
WARM = warm_prompt(PromptConfig())


NTH = ("one", "two", "three")
"""What the queries of a prompt end with. No numbers: those that nobody mentioned are made up."""


class HeldEngine(Engine):
    """Gives every prompt three queries made of it. While `go` is not set it computes on."""

    model = "held-00000000"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.prompts: list[str] = []

    def generate(
        self, prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()
    ) -> list[list[Candidate]]:
        self.prompts += [prompt for prompt in prompts if prompt != WARM]
        if not self.go.wait(HOLD_S):
            raise TimeoutError("nobody let the engine go")
        return [
            [Candidate(f"{words(prompt)} {nth}", -1.0 - at) for at, nth in enumerate(NTH)]
            for prompt in prompts
        ]

    def close(self) -> None:
        self.go.set()


def words(prompt: str) -> str:
    """What a query of this prompt begins with: its text, and what is new in its history."""
    text, _, _, history = (field.strip()[:20] for field in prompt.split("[SEP]"))
    return " ".join([text, *(word for word in history.split() if word not in text.split())])


AS_GENERATED = Taste(
    Ranker({"beam": 9.0, "beam:behind": 0.5, "anchor:weight": 0.5}),
    shipped_rules(),
    from_text=False,
)
"""What was generated comes first, in its order, and no span of the text is among it."""


class Running(Struct, frozen=True):
    """The API, how to speak to it, and what it stands on."""

    http: httpx.AsyncClient
    services: Services
    engine: HeldEngine
    app: FastAPI


@asynccontextmanager
async def running(
    settings: Settings, load: Callable[[HeldEngine], None] | None = None
) -> AsyncIterator[Running]:
    """The API with these settings and a `HeldEngine`. Where `load` stands in for the loading of
    the model, in a thread, that is not waited for.
    """
    engine = HeldEngine()

    def load_model(_: Settings) -> LoadedModel:
        if load is not None:
            load(engine)
        return LoadedModel(engine, PromptConfig(), taste=AS_GENERATED)

    app = create_app(settings, load_model)
    services: Services = app.state.services
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http,
    ):
        if load is None:
            await eventually(lambda: services.model.recommender is not None, what="the model")
        try:
            yield Running(http, services, engine, app)
        finally:
            engine.go.set()
