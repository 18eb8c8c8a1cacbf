"""The application: routes, errors, middleware, and the document that describes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import cleandoc
from types import MappingProxyType
from typing import Any

from fastapi import Depends, FastAPI

from api.edge.middleware import FastPath, RequestMiddleware, Route
from api.edge.traces import is_traced, traced
from api.http import problems, schemas
from api.http.names import only_known
from api.routes import (
    console,
    events,
    evidence,
    feed,
    operations,
    page,
    queries,
    rules,
    users,
    videos,
    watch,
)
from api.services import Services
from onebar import __version__
from onebar.process.start import begin
from onebar.process.tasks import end_tasks
from onebar.process.tracing import start_tracing, stop_tracing
from onebar.recommending.loading import LoadedModel, load_model
from onebar.settings import Settings

DESCRIPTION = """
One clickable search bar under every short video.

Errors are `application/problem+json` (RFC 9457). Where the server has API keys, send one as
`Authorization: Bearer KEY` or `X-API-Key: KEY`; its scopes (read, write, admin) say what it may
do, and none of them implies another. Times are UTC epoch seconds.

Every answer names its request in `X-Request-ID`: yours, where you sent one. Ignore members that you
do not know: more may come.
""".strip()


TAGS = {
    "queries": "What the bar shows: one video at a time, or many.",
    "events": "What happened in the feed.",
    "state": "What is known of a video, a user or both, and why a bar says what it says.",
    "users": "Forgetting somebody.",
    "rules": "What may be shown.",
    "feed": "The latest videos with their bars.",
    "console": "What the operations page shows and does.",
    "operations": "What orchestrators and Prometheus ask.",
}
PARTS = (events, evidence, videos, users, rules, feed, watch, console, operations, page)


class Api(FastAPI):
    """A FastAPI application with `fast_paths`: routes that are answered before its layers, unless
    somebody has added middleware, which is to see every request."""

    fast_paths: Mapping[Route, FastPath] = MappingProxyType({})
    _open: Mapping[Route, FastPath] = MappingProxyType({})
    tracing = False

    def build_middleware_stack(self) -> Any:
        """Called once, when all middleware has been added."""
        kinds: list[Any] = [layer.cls for layer in self.user_middleware]
        ours = all(kind is RequestMiddleware for kind in kinds)
        self._open = self.fast_paths if ours else {}
        return super().build_middleware_stack()

    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        fast = None
        if scope["type"] == "http":
            fast = self._open.get((scope["method"], scope["path"]))
        app = fast or super().__call__
        if self.tracing and is_traced(scope):
            return traced(app, scope, receive, send)
        return app(scope, receive, send)


def create_app(
    settings: Settings,
    load: Callable[[Settings], LoadedModel] = load_model,
    *,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> FastAPI:
    """The API these settings describe. It starts, and stays up, whether Kafka, Redis and the
    model are there or not: `/readyz` says. `load` loads the model, in a thread;
    `beside` runs, on the same event loop, as long as the application does.

    Middleware added to it sees every request; without any, `/v1/queries` is answered before the
    framework's layers, which costs half as much.

    Raises `ApiKeyError` and `UnsafeBindError`, which name the setting to mend.
    """
    services = Services(settings, load)

    @asynccontextmanager
    async def lifespan(app: Api) -> AsyncIterator[None]:
        app.tracing = start_tracing("onebar-api")
        async with AsyncExitStack() as stack:
            stack.callback(stop_tracing)
            await stack.enter_async_context(services.running())
            task = None if beside is None else asyncio.create_task(beside())
            yield
            if task is not None:
                await end_tasks(task)

    app = Api(
        title="OneBar",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "The server that this document comes from."}],
        openapi_tags=[{"name": name, "description": said} for name, said in TAGS.items()],
        lifespan=lifespan,
        dependencies=[Depends(only_known)],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Counted in `api.http.metrics`; whatever telemetry the environment sets up, this takes no
        # part.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.services = services
    problems.install(app)
    endpoint = queries.QueriesEndpoint(services)
    app.include_router(queries.routes(endpoint, settings))
    for part in PARTS:
        app.include_router(part.router)
    app.fast_paths = queries.fast_paths(endpoint, services.cors, settings)
    app.add_middleware(RequestMiddleware, room=services.room, cors=services.cors)
    _describe(app, settings)
    return app


def app_factory() -> FastAPI:
    """For servers that make the app themselves: settings from the environment."""
    settings = Settings()
    begin(settings, "api")
    return create_app(settings)


def _describe(app: FastAPI, settings: Settings) -> None:
    """Put the schemas of our records beside those that FastAPI finds by itself."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        known = document.setdefault("components", {}).setdefault("schemas", {})
        ours = schemas.components(
            (*watch.TYPES, *console.TYPES), k=settings.k, budget_ms=settings.max_budget_ms
        )
        for name, schema in ours.items():
            known.setdefault(name, schema)
        # FastAPI announces its own form of 422, which is never sent.
        for name in ("HTTPValidationError", "ValidationError"):
            known.pop(name, None)
        for schema in known.values():
            # A docstring as it stands in the code, but for a Python that takes its margin off.
            if "description" in schema:
                schema["description"] = cleandoc(schema["description"])
        schemas.complete(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
