"""`onebar rules`: made, listed, explained, tried on an archive, imported, taken back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support import onebar

from feature_store.store import FeatureStore
from feature_store.writes import BehaviorAdd, VideoPut
from onebar.records import VideoText
from onebar.settings import Settings
from stream.archive.writer import archive_log
from stream.events import Exposure, ShownQuery, Video, encode
from stream.logs.files import EventLog

pytestmark = pytest.mark.integration


async def test_the_life_of_a_rule(
    settings: Settings, store: FeatureStore, made_topics: None, tmp_path: Path
) -> None:
    def run(*arguments: str, fails: bool = False) -> str:
        done = onebar(*arguments, settings=settings)
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr if fails else done.stdout

    now = time.time()
    await store.apply(
        [
            (VideoPut("v", now, "e", VideoText(title="Trail shoes")), None),
            (BehaviorAdd("v", now, "b", (("trail shoes", 1000),), user_id="u"), None),
        ]
    )
    made = run("rules", "add", "r1", "--action", "block", "--word", "knock off", "--why", "law 7")
    assert "within a second" in made
    assert "word='knock off'" in run("rules", "list")
    told = json.loads(run("rules", "explain", "Knock OFF shoes", "--video", "v", "--json"))
    assert told["verdict"] == "held back"
    assert "law 7" in told["rules"]
    told = json.loads(run("rules", "explain", "trail shoes", "--video", "v", "--json"))
    assert told["people"].startswith("asked by 1 users or more")

    assert "comes to nothing" in run(
        "rules", "add", "r2", "--action", "block", "--word", "!!!", fails=True
    )
    listed = tmp_path / "rules.jsonl"
    listed.write_text('{"rule_id":"a","action":"block","query":"x"}\n{"rule_id":"b"}\n')
    assert "line 2" in run("rules", "import", str(listed), fails=True)
    assert [rule["rule_id"] for rule in json.loads(run("rules", "list", "--json"))] == ["r1"]
    listed.write_text('{"rule_id":"a","action":"block","query":"x"}\n')
    assert "1 rules made" in run("rules", "import", str(listed))

    assert "taken back" in run("rules", "remove", "r1", "--why", "settled")
    assert "there is no rule" in run("rules", "remove", "r1", fails=True)
    changes = json.loads(run("rules", "history", "r1", "--json"))
    assert [change["rule"] is None for change in changes] == [True, False]


def test_what_it_would_have_held_back(settings: Settings, tmp_path: Path) -> None:
    shown = [ShownQuery("Fake bag"), ShownQuery("bag")]
    events = [
        Video(event_id="v", ts=86400.0, video_id="v", category="Bags"),
        *(
            Exposure(event_id=f"x{n}", ts=86400.0 * n, video_id="v", user_id="u", queries=shown)
            for n in (1, 2, 3)
        ),
    ]
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    archive_log(EventLog(log), tmp_path / "archive")
    tried = ("rules", "add", "r", "--action", "block", "--dry-run", str(tmp_path / "archive"))
    for arguments, held, queries in (
        (("--word", "fake"), 1, [["fake bag", 1]]),
        (("--word", "fake", "--days", "2"), 2, [["fake bag", 2]]),
        (("--category", "bags"), 2, [["bag", 1], ["fake bag", 1]]),
        (("--category", "shoes"), 0, []),
    ):
        done = onebar(*tried, *arguments, "--json", settings=settings)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["held"], found["queries"]) == (held, queries)
