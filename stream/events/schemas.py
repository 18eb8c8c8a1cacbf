"""JSON Schemas of the events and an AsyncAPI document of the topics, from the event types.

`python -m stream.events.schemas [DIRECTORY]` writes them (default: docs); a test holds what is
written to what these functions give.
"""

from __future__ import annotations

import sys
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec
import orjson

from onebar import __version__
from stream.events import (
    BEHAVIORS,
    DEAD_LETTERS,
    EVENT_TYPES,
    IMPRESSIONS,
    MAX_EVENT_BYTES,
    QUERIES,
    RULES,
    VIDEOS,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TOPICS = {
    VIDEOS: "Content upserts, keyed by video_id, compacted.",
    IMPRESSIONS: "A user is about to see a video, keyed by video_id: triggers generation.",
    BEHAVIORS: "What users did, keyed by video_id, or by user_id where there is no video.",
    RULES: "What people decide may be shown, keyed by rule id, compacted.",
    QUERIES: "What was generated, keyed by video_id.",
    DEAD_LETTERS: "Messages that could not be processed: the original bytes as value.",
}


def event_schemas() -> dict[str, dict[str, Any]]:
    """A self-contained JSON Schema (2020-12) for each event type, by type."""
    schemas = {}
    for event_type in EVENT_TYPES:
        name = str(event_type.__struct_config__.tag)
        schema = msgspec.json.schema(event_type)
        root = schema["$defs"].pop(event_type.__name__)
        document = {"$schema": DIALECT, "$id": f"onebar/{name}.json", **root}
        if schema["$defs"]:
            document["$defs"] = schema["$defs"]
        # From 3.13 on Python itself takes the indentation from a docstring's later lines.
        for part in (document, *schema["$defs"].values()):
            if "description" in part:
                part["description"] = cleandoc(part["description"])
        schemas[name] = document
    return schemas


def generated_schema() -> dict[str, Any]:
    """The JSON Schema of a message on the topic of generated queries."""
    query = {
        "type": "object",
        "required": ["text", "score"],
        "properties": {
            "text": {"type": "string"},
            "score": {"type": "number", "maximum": 0, "description": "How good, as a logarithm."},
        },
    }
    return {
        "$schema": DIALECT,
        "$id": "onebar/queries.json",
        "title": "Queries",
        "description": "What one generation gave for a video, or for one user of it.",
        "type": "object",
        "required": [
            "video_id",
            "queries",
            "rejected",
            "model",
            "evidence_digest",
            "generated_at",
        ],
        "properties": {
            "video_id": {"type": "string"},
            "user_id": {"type": "string"},
            "queries": {"type": "array", "items": query},
            "rejected": {
                "type": "boolean",
                "description": "The evidence is too weak or too risky for any query.",
            },
            "model": {"type": "string"},
            "evidence_digest": {"type": "string"},
            "generated_at": {"type": "number", "description": "UTC epoch seconds."},
        },
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of every topic."""
    messages: dict[str, Any] = {
        name: {
            "name": name,
            "contentType": "application/json",
            "payload": {"$ref": f"schemas/{name}.json"},
        }
        for name in [*event_schemas(), "queries"]
    }
    headers = ("topic", "partition", "offset", "timestamp", "reason", "failed_at")
    messages["dead-letter"] = {
        "name": "dead-letter",
        "summary": "The original value, byte for byte; where it came from and why in headers.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in headers},
        },
        "payload": {"type": "string", "format": "binary"},
    }
    carried: dict[str, list[str]] = {topic: [] for topic in _TOPICS}
    for event_type in EVENT_TYPES:
        carried[event_type.topic].append(str(event_type.__struct_config__.tag))
    carried[QUERIES].append("queries")
    carried[DEAD_LETTERS].append("dead-letter")
    channels, operations = {}, {}
    for topic, description in _TOPICS.items():
        key = topic.removeprefix("onebar.")
        channels[key] = {
            "address": topic,
            "description": description,
            "messages": {n: {"$ref": f"#/components/messages/{n}"} for n in carried[topic]},
        }
        sends = topic in (QUERIES, DEAD_LETTERS)
        operations[f"{'send' if sends else 'receive'}-{key}"] = {
            "action": "send" if sends else "receive",
            "channel": {"$ref": f"#/channels/{key}"},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "OneBar",
            "version": __version__,
            "description": f"Messages are JSON objects of at most {MAX_EVENT_BYTES:,} bytes. "
            "Unknown fields are dropped. A topic prefix may stand before every address.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def documents() -> dict[str, bytes]:
    """Every generated file, by its path below docs/."""
    found: dict[str, Any] = {f"schemas/{n}.json": s for n, s in event_schemas().items()}
    found["schemas/queries.json"] = generated_schema()
    found["asyncapi.json"] = asyncapi()
    style = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {path: orjson.dumps(document, option=style) for path, document in found.items()}


def write(directory: Path) -> list[Path]:
    """Write every document below `directory`; the paths written."""
    written = []
    for path, content in documents().items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written.append(target)
    return written


if __name__ == "__main__":
    for target in write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")):
        print(target)
