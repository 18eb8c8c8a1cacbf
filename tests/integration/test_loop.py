"""The closed loop before a running API: asked, shown, tapped, told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support import eventually, onebar

from api.answering.forms import ID_DIGITS
from onebar.settings import Settings
from onebar.stack.local import LocalStack

pytestmark = pytest.mark.integration


async def test_simulated_users_before_a_running_api(tmp_path: Path) -> None:
    settings = Settings(showable_users=1, api_port=0)
    log = tmp_path / "told.jsonl"
    async with LocalStack(settings, tmp_path, own_names=True) as stack:
        policies = ("--policy", f"api={stack.url}", "--policy", "cascade")
        made = ("--events", "700", "--days", "0.5", "--windows", "2", "--turn", "16")
        asked = ("simulate", *policies, *made, "--budget-ms", "1000", "--out", str(log), "--json")
        done = await asyncio.to_thread(onebar, *asked)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        api, cascade = report["policies"]
        assert api["name"] == "api"
        assert api["bars"] > 20
        assert api["models"]
        assert set(api["by_source"]) <= {"cache", "generated"} | {
            f"fallback:{kind}" for kind in ("video", "anchors", "empty")
        }
        assert api["empty"] < 0.6
        assert 0 < cascade["true_tap"]["value"] < 1
        assert report["differences"][0]["less"] == "api"

        events = [json.loads(line) for line in log.read_text().splitlines()]
        clicks = [event for event in events if event["type"] == "click"]
        assert clicks
        # What was told has been folded: a tapped query is an anchor of its video.
        store = stack.store()
        try:
            shown = {e["request_id"] for e in events if e["type"] == "exposure"}
            assert {click["request_id"] for click in clicks} <= shown
            mine = next(click for click in clicks if len(click["request_id"]) == ID_DIGITS)

            async def folded() -> bool:
                return bool(await store.anchors(mine["video_id"]))

            await eventually(folded, 20)
        finally:
            await store.close()
