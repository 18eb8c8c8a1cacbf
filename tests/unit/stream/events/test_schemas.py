"""The documents in docs/ are what the event types say, and they accept what `parse` accepts."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import orjson
import pytest
from event_strategies import events, json_objects
from hypothesis import given

from stream.events import EVENT_TYPES, InvalidEventError, encode, from_object
from stream.events.schemas import documents, event_schemas

DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.parametrize("path", sorted(documents()))
def test_what_is_written_has_not_drifted(path: str) -> None:
    assert (DOCS / path).read_bytes() == documents()[path], "run `make schemas`"


def test_every_event_type_has_a_schema() -> None:
    assert set(event_schemas()) == {str(t.__struct_config__.tag) for t in EVENT_TYPES}


@given(events())
def test_a_schema_accepts_its_events(event: object) -> None:
    value = orjson.loads(encode(event))  # type: ignore[arg-type]
    jsonschema.validate(value, event_schemas()[value["type"]])


@given(json_objects())
def test_schema_and_parser_agree(value: dict[str, object]) -> None:
    schema = event_schemas().get(str(value.get("type")))
    if schema is None:
        return
    try:
        from_object(value)
    except InvalidEventError:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, schema)
    else:
        jsonschema.validate(value, schema)
