"""docs/python.md against a local stack, and what only a real server shows of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from python_page import PAGE, parts

import onebar
from onebar.settings import Settings
from onebar.stack.local import LocalStack

pytestmark = pytest.mark.integration


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A stack with everything that `onebar up` starts."""
    settings = Settings(api_port=0, late_after_s=600.0, log_json=False)
    async with LocalStack(settings, tmp_path, own_names=True) as stack:
        yield stack.url


async def test_the_page_runs_as_it_stands(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, client = parts()
    program = compile(client.replace("http://127.0.0.1:8080", url), str(PAGE), "exec")
    page: dict[str, object] = {"__name__": "page"}
    await asyncio.to_thread(exec, program, page)
    assert isinstance(page["answer"], onebar.Answer)
    assert "user_id" in capsys.readouterr().out  # what the wrong event lacks

    # Many at once, in order; the server takes 256 in one request.
    async with onebar.AsyncClient(url, timeout_s=30.0) as both:
        found = await both.queries_many(f"v{n}" for n in range(300))
        assert [answer.video_id for answer in found] == [f"v{n}" for n in range(300)]
        sent = await both.send({"type": "impression", "video_id": f"v{n}"} for n in range(1200))
        assert sent == 1200
        with pytest.raises(onebar.InvalidRequestError) as caught:
            await both.queries("v", k=9999)
        assert [fault.name for fault in caught.value.faults] == ["k"]
