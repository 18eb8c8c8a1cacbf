"""`/v1/rules`: what people decide may be shown, effective everywhere within a second."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.http.names import part_of
from api.http.problems import InvalidParameterError, ProblemError
from api.http.schemas import RuleAnswer, RuleRequest, RulesAnswer, content, problems, responses
from api.routes.deps import RuleId, ServicesDep, json_body, json_response, needs, store_within
from api.services import Services
from feature_store.redis.client import StoreUnavailableError
from onebar.records import Rule
from stream.events import InvalidEventError, RuleChange, from_object
from stream.events.fold import rule_of

log = structlog.get_logger(__name__)

MAX_BODY = 64_000
STORE_TIMEOUT_S = 5.0
MOST = 1000
"""Rules, or changes of one, in one answer."""

router = APIRouter(tags=["rules"], dependencies=[needs("admin")])


@router.get(
    "/v1/rules",
    summary="The rules",
    operation_id="get_rules",
    response_class=Response,
    responses=responses(200, "RulesAnswer", "The rules that hold here."),
)
async def get_rules(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most rules wanted.")] = 100,
    after: Annotated[str, Query(max_length=256, description="Only ids behind this one.")] = "",
) -> Response:
    """The rules that hold in this process, by their ids."""
    every = sorted(services.gate.rules, key=lambda rule: rule.rule_id)
    wanted = [rule for rule in every if rule.rule_id > after][:limit]
    return json_response(RulesAnswer(len(every), wanted))


@router.get(
    "/v1/rules/{rule_id:path}",
    summary="One rule and its history",
    operation_id="get_rule",
    response_class=Response,
    responses={
        **responses(200, "RuleAnswer", "The rule as it holds, and how it came to be."),
        404: {**problems(422)[422], "description": "Nobody ever made such a rule."},
        **problems(503),
    },
)
async def get_rule(services: ServicesDep, rule_id: RuleId) -> Response:
    """The rule, null where it was taken back, and its changes: who, when and why, newest first."""
    async with store_within(STORE_TIMEOUT_S):
        history = await services.store.rule_history(MOST, rule_id)
    rule = services.gate.rules.get(rule_id)
    if rule is None and not history:
        raise ProblemError(404, "unknown-rule", f"Nobody ever made a rule {rule_id!r}.")
    return json_response(RuleAnswer(rule, msgspec.to_builtins(history)))


@router.put(
    "/v1/rules/{rule_id:path}",
    summary="Make or change a rule",
    operation_id="put_rule",
    response_class=Response,
    responses={
        **responses(200, "Rule", "The rule as it is kept."),
        **problems(408, 413, 415),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": content("RuleRequest"),
        }
    },
)
async def put_rule(request: Request, services: ServicesDep, rule_id: RuleId) -> Response:
    """Make a rule, or put another in its place. It is in the log once this is answered, and holds
    in every process within a second. A rule that could never match, and a pattern whose time no
    bound holds, are refused."""
    async with json_body(request, MAX_BODY) as value:
        try:
            wanted = msgspec.to_builtins(msgspec.convert(value, RuleRequest))
        except msgspec.ValidationError as error:
            raise InvalidParameterError.of(*part_of(error, (RuleRequest,))) from None
    return json_response(
        await _change(services, rule_id, {k: v for k, v in wanted.items() if v != ""})
    )


@router.delete(
    "/v1/rules/{rule_id:path}",
    status_code=204,
    summary="Take a rule back",
    operation_id="delete_rule",
    response_class=Response,
    responses={
        204: {"description": "It is in the log that the rule holds no more."},
        **problems(401, 403, 422, 429, 503),
    },
)
async def delete_rule(
    services: ServicesDep,
    rule_id: RuleId,
    who: Annotated[str, Query(max_length=1000, description="Who decided so.")] = "",
    why: Annotated[str, Query(max_length=1000, description="And why.")] = "",
) -> Response:
    """Take a rule back. What it held back is shown again once it is generated anew."""
    await _change(services, rule_id, {"action": "remove", "who": who, "why": why})
    return Response(status_code=204)


async def _change(services: Services, rule_id: str, fields: dict[str, Any]) -> Rule | None:
    """The rule as it is kept once the log has it. Raises `ProblemError`."""
    common = {"event_id": f"rule-{uuid.uuid4().hex}", "ts": time.time(), "rule_id": rule_id}
    try:
        event = from_object({**fields, **common, "type": "rule"})
        assert isinstance(event, RuleChange)
        rule = rule_of(event)
    except InvalidEventError as error:
        raise InvalidParameterError.of("body", str(error)) from None
    if (
        rule is not None
        and rule.action in ("pin", "allow")
        and (kind := services.gate.personal(rule.text)) is not None
    ):
        detail = f"it holds personal data ({kind}), which no rule can have shown"
        raise InvalidParameterError.of("query", detail)
    await services.publisher.send([event])
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            await services.apply(event)
    except (TimeoutError, StoreUnavailableError) as error:
        log.warning("rule_only_in_log", rule_id=rule_id, error=repr(error))
    return rule
