"""Whatever a message or a file holds, who looks at it says that it is no JSON, and goes on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onebar.cli.dead_letters import _exported
from onebar.errors import UsageError
from stream.events import RULES, VIDEOS
from stream.logs.dead_letters import key_of, topic_of
from stream.logs.recognize import Form, Recognized


def nested(opens: bytes, closes: bytes, before: bytes, depth: int) -> bytes:
    return before + opens * depth + b"1" + closes * depth + (b"}" if before else b"")


BEFORE = (b"", b'{"video_id":"v","x":', b'{"type":"video","video_id":', b'{"offset":')
DEEP = st.builds(
    lambda pair, before, depth: nested(*pair, before, depth),
    st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]),
    st.sampled_from(BEFORE),
    st.integers(1, 5000),
)
VALUES = DEEP | st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(value=VALUES, topic=st.sampled_from([VIDEOS, RULES]))
@example(value=nested(b"[", b"]", b'{"video_id":"v","x":', 5000), topic=VIDEOS)
def test_a_letter_of_any_bytes_has_a_key_or_none(value: bytes, topic: str) -> None:
    assert isinstance(key_of(topic, value), bytes | None)
    assert topic_of(value)


@given(lines=st.lists(VALUES, min_size=1, max_size=3))
@example(lines=[nested(b'{"a":', b"}", b"", 5000) + b" "])
@example(lines=[b'{"a":' + nested(b"[", b"]", b"", 5000) + b"\n}", b"{}"])
def test_a_file_of_any_bytes_is_recognized_or_not(lines: list[bytes]) -> None:
    found = Recognized(io.BytesIO(b"\n".join(lines)))
    assert found.form in (*Form, None)


@pytest.mark.parametrize("line", [nested(b"[", b"]", b'{"x":', 5000), b'{"value":"\xff"}', b"\xff"])
def test_a_line_that_is_no_exported_letter_is_named(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "letters.jsonl"
    file.write_bytes(b"\n" + line + b"\n")
    with pytest.raises(UsageError, match="line 2, is no exported letter"):
        _exported(file)
