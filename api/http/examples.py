"""Examples for the OpenAPI document: one of each record, all of one small world."""

from __future__ import annotations

import json
from typing import Any

_AT = 1760000000.25
_VIDEO = {
    "video_id": "v42",
    "title": "Two days in the rain",
    "caption": "these boots stayed dry",
    "author": "mia",
    "category": "outdoor",
    "summary": "",
    "item_title": "waterproof hiking boots",
    "ocr": "",
    "asr": "",
    "sensitive": False,
}
_QUERY = {"text": "waterproof hiking boots", "score": -0.41}
ANSWER = {
    "video_id": "v42",
    "queries": [_QUERY],
    "rejected": False,
    "model": "demo-1a2b3c4d",
    "evidence_digest": "9f86d081884c7d659a2feaa0c55ad015",
    "generated_at": _AT,
    "request_id": "5f2d1c0b9a8e7d6c5b4a3928",
    "user_id": "u7",
    "source": "cache",
    "age_s": 12.5,
}
FALLBACK = {
    **ANSWER,
    "queries": [],
    "source": "fallback",
    "model": None,
    "evidence_digest": None,
    "generated_at": None,
    "age_s": None,
    "fallback": "empty",
    "reason": "unknown_video",
}
EVENT = {
    "type": "search",
    "event_id": "e-1001",
    "ts": _AT,
    "user_id": "u7",
    "video_id": "v42",
    "query": "waterproof hiking boots",
}
_RULE_REQUEST = {
    "action": "block",
    "word": "knock off",
    "who": "anna@legal",
    "why": "trademark complaint 4711",
}
_RULE = {"rule_id": "no-fakes", "ts": _AT, **_RULE_REQUEST}
_PROMPT = (
    "two days in the rain these boots stayed dry waterproof hiking boots [SEP] [SEP] "
    "hiking boots [SEP] rain jacket"
)
_READY = {
    "ready": True,
    "kafka": "ok",
    "redis": "ok",
    "model": "ok",
    "checkpoint": "demo-1a2b3c4d",
    "warning": None,
}
AWAY = {"ready": False, "kafka": "connecting", "redis": "ok", "model": "ok"}
_MODELS = {
    "serving": "demo-1a2b3c4d",
    "warning": None,
    "registry": "/var/lib/onebar/registry",
    "models": [
        {
            "name": "demo-1a2b3c4d",
            "current": True,
            "bytes": 12_345_678,
            "created_at": "2026-10-09T08:53:20+00:00",
            "promoted_at": _AT,
            "problem": None,
            "training": {"stage": "piopd"},
        }
    ],
    "history": [{"at": _AT, "action": "promote", "name": "demo-1a2b3c4d", "by": "anna"}],
}
_TOLD = {"at": _AT, "state": "told", "queries": [_QUERY], "model": "demo-1a2b3c4d"}

EXAMPLES: dict[str, Any] = {
    "Answer": ANSWER,
    "BatchRequest": {
        "requests": [{"video_id": "v42", "user_id": "u7"}, {"video_id": "v43"}],
        "k": 8,
        "budget_ms": 80,
    },
    "BatchAnswer": {"results": [ANSWER, {**FALLBACK, "video_id": "v43", "user_id": None}]},
    "Event": EVENT,
    "Accepted": {"accepted": 1},
    "EvidenceAnswer": {
        "video_id": "v42",
        "user_id": "u7",
        "text": "two days in the rain these boots stayed dry waterproof hiking boots",
        "summary": "",
        "anchors": ["hiking boots"],
        "history": ["rain jacket"],
        "prompt": _PROMPT,
        "digest": "9f86d081884c7d659a2feaa0c55ad015",
        "model": "demo-1a2b3c4d",
        "sensitive": False,
        "shared": False,
    },
    "VideoAnswer": {
        **_VIDEO,
        "removed": False,
        "updated_at": _AT,
        "queries": 3,
        "exposures": 27,
        "clicks": 4,
        "engagements": 1,
    },
    "AnchorsAnswer": {
        "video_id": "v42",
        "anchors": [
            {
                "query": "hiking boots",
                "weight": 3.75,
                "source": "behavior",
                "exposures": 9,
                "clicks": 2,
                "engagements": 1,
            }
        ],
    },
    "HistoryAnswer": {"user_id": "u7", "history": [{"query": "rain jacket", "ts": _AT}]},
    "FeedAnswer": {
        "videos": [
            {
                **_VIDEO,
                "seen_at": _AT,
                "anchors": [{"query": "hiking boots", "weight": 3.75, "source": "behavior"}],
                "answer": ANSWER,
            }
        ]
    },
    "Rule": _RULE,
    "RuleRequest": _RULE_REQUEST,
    "RulesAnswer": {"total": 1, "rules": [_RULE]},
    "RuleAnswer": {
        "rule": _RULE,
        "history": [{"rule_id": "no-fakes", "ts": _AT, "event_id": "e-1002", "rule": _RULE}],
    },
    "Deleted": {"log": True, "store": False},
    "Alive": {"status": "ok"},
    "Readiness": _READY,
    "ExplanationAnswer": {
        "video_id": "v42",
        "user_id": "u7",
        "model": "demo-1a2b3c4d",
        "answer": ANSWER,
        "explanation": {
            "prompt": _PROMPT,
            "segments": [
                {"field": "T", "text": "two days in the rain these boots stayed dry"},
                {"field": "A", "text": "hiking boots"},
            ],
            "anchors": [
                {
                    "query": "hiking boots",
                    "weight": 3.75,
                    "source": "behavior",
                    "in_prompt": True,
                    "exposures": 9,
                    "clicks": 2,
                    "engagements": 1,
                }
            ],
            "history": [{"query": "rain jacket", "ts": _AT, "used": True}],
            "candidates": [
                {
                    "text": "waterproof hiking boots",
                    "origins": ["model", "text"],
                    "score": -0.41,
                    "model": -1.3,
                    "position": 0,
                },
                {
                    "text": "knock off boots",
                    "origins": ["anchor"],
                    "weight": 1.0,
                    "held": "rule",
                    "detail": "no-fakes",
                },
            ],
            "reason": None,
            "digest": "9f86d081884c7d659a2feaa0c55ad015",
            "shared": False,
        },
    },
    "OperationsAnswer": {
        "at": _AT,
        "version": "0.2.0",
        "readiness": _READY,
        "rules": 1,
        "watchers": 0,
        "parts": [
            {
                "name": "stream",
                "address": "stream:9100",
                "up": True,
                "fine": True,
                "problems": {},
                "warnings": {},
                "numbers": {
                    "values": {
                        "onebar_stream_events": [{"labels": {"outcome": "applied"}, "value": 9}]
                    },
                    "distributions": {},
                },
            }
        ],
    },
    "ClickRatesAnswer": {
        "videos": 50,
        "rates": [
            {
                "whose": "people",
                "queries": 120,
                "exposures": 2700,
                "clicks": 310,
                "engagements": 42,
                "rate": 0.1148,
            }
        ],
    },
    "LettersAnswer": {
        "total": 1,
        "letters": [
            {
                "id": "0:17",
                "topic": "onebar.behaviors",
                "partition": 2,
                "offset": 4711,
                "failed_at": _AT,
                "reason": "InvalidEventError: Expected `float`, got `str` "
                "(UTC epoch seconds; a mapping reads other times) - at `$.ts`",
                "bytes": 74,
                "key": "v42",
                "value": '{"type": "search", "event_id": "e-1001", "ts": "now"}',
            }
        ],
    },
    "LetterIds": {"ids": ["0:17"]},
    "LettersDone": {"done": 1, "refused": []},
    "ModelsAnswer": _MODELS,
    "ShadowAnswer": {
        "name": "next-5e6f7a8b",
        "videos": 40,
        "other_first": 0.25,
        "other_list": 0.6,
        "overlap": 0.72,
        "now_rejected": 0.05,
        "then_rejected": 0.05,
        "now_ms": 2.1,
        "then_ms": 2.0,
        "lists": [
            {
                "video_id": "v42",
                "title": "Two days in the rain",
                "now": ["waterproof hiking boots"],
                "then": ["hiking boots for rain"],
            }
        ],
    },
}
"""By the record's name in the document."""

_PROBLEMS: dict[int, tuple[str, str]] = {
    401: ("unauthorized", "This API key is not known."),
    403: ("forbidden", "This needs the scope admin; the key has read."),
    404: ("unknown-video", "Nothing is known of the video 'v43'."),
    408: ("body-timeout", "0 of 120 bytes were there after 10 s."),
    409: ("no-registry", "This server follows no registry: set ONEBAR_REGISTRY."),
    413: ("body-too-large", "The body is too long; at most 1,000,000 bytes are accepted."),
    415: ("unsupported-media-type", "Expected Content-Type: application/json, got 'text/plain'."),
    422: ("invalid-parameter", "k: expected a whole number from 1 to 8"),
    429: ("rate-limited", "More than 100 requests a second; the next one may come in 0.010 s."),
    503: ("store-unavailable", "Redis does not answer."),
}


def problem_example(status: int, title: str) -> dict[str, Any]:
    """What an error with this status may look like."""
    slug, detail = _PROBLEMS[status]
    example: dict[str, Any] = {
        "type": f"urn:onebar:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": ANSWER["request_id"],
    }
    if status == 422:
        name, _, said = detail.partition(": ")
        example["errors"] = [{"name": name, "detail": said}]
    return example


WATCHED = f"event: bar\ndata: {json.dumps(_TOLD)}\n\n"
METRICS = (
    "# HELP onebar_answers_total Answered (video, user) pairs by where the queries came from.\n"
    "# TYPE onebar_answers_total counter\n"
    'onebar_answers_total{fallback="",source="cache"} 4711.0\n'
)
