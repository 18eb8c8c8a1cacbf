"""Alive, ready, and how many: what orchestrators and Prometheus ask."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from api.http.examples import AWAY, METRICS
from api.http.metrics import render
from api.http.schemas import content, reference
from api.routes.deps import ServicesDep

router = APIRouter(tags=["operations"])


@router.get(
    "/healthz",
    operation_id="get_healthz",
    summary="Whether the process answers",
    responses={200: {"description": "It does.", "content": content("Alive")}},
    response_class=Response,
)
async def healthz() -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get(
    "/readyz",
    operation_id="get_readyz",
    summary="Whether Kafka, Redis and the model are there",
    responses={
        200: {
            "description": "All are; a `warning` may be there all the same.",
            "content": content("Readiness"),
        },
        503: {
            "description": "Not all are; each says `ok` or why not.",
            "content": {"application/json": {"schema": reference("Readiness"), "example": AWAY}},
        },
    },
    response_class=Response,
)
async def readyz(services: ServicesDep) -> Response:
    readiness = await services.health.readiness()
    return Response(
        msgspec.json.encode(readiness),
        200 if readiness.ready else 503,
        media_type="application/json",
    )


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Prometheus metrics",
    responses={
        200: {
            "description": "The numbers of all workers of this server.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": METRICS}},
        }
    },
    response_class=Response,
)
async def metrics() -> Response:
    body, media_type = await asyncio.to_thread(render)
    return Response(body, media_type=media_type)
