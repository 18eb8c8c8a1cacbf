"""What an app does before a feed service of the examples, and what OneBar knows of it then."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

WAIT_S = 60.0


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of the condition."""
    ends = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < ends, condition
        time.sleep(0.05)
    return found


@contextmanager
def serving(command: list[str], port: int, **options: Any) -> Iterator[httpx.Client]:
    """The service as a process; it ends well when it is told to."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as app:

            def answers() -> bool:
                assert process.poll() is None, "the service has ended"
                try:
                    return app.get("/stats").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers)
            yield app
            process.terminate()
            assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def tour(app: httpx.Client, onebar_url: str) -> None:
    """Bars come, what an app reports reaches OneBar, and what is wrong is refused."""
    user = f"user-{uuid.uuid4().hex[:8]}"

    def page() -> list[dict[str, Any]]:
        videos: list[dict[str, Any]] = app.get("/feed", params={"user": user}).json()["videos"]
        return videos if all(video["bar"] for video in videos) else []

    videos = until(page)
    assert [video["video_id"] for video in videos] == ["knife", "trail", "brew"]
    assert app.get("/feed", params={"user": user, "page": 1}).json()["videos"][0]["title"]
    assert app.get("/feed", params={"user": user, "page": 9}).json() == {"videos": []}
    first = videos[0]
    told = {"user": user, "video": first["video_id"], "bar": first["bar"]}
    for path in ("/seen", "/tap"):
        assert app.post(path, json=told).status_code == 202
    typed = {"user": user, "video": "brew", "query": "cold brew filters"}
    assert app.post("/search", json=typed).status_code == 202

    with httpx.Client(base_url=onebar_url, timeout=30.0) as api:

        def remembered() -> bool:
            history = api.get(f"/v1/users/{user}/history").json()["history"]
            found = {entry["query"] for entry in history}
            return found >= {first["bar"]["query"], "cold brew filters"}

        until(remembered)
    assert app.post("/tap", json={**told, "video": "nothing"}).status_code == 404
    assert app.post("/tap", json={"user": user, "video": "knife"}).status_code == 422
    assert app.get("/feed", params={"user": user, "page": -1}).status_code == 422
    until(lambda: app.get("/stats").json()["waiting"] == 0)
    stats = app.get("/stats").json()
    assert stats["lost"] == 0
    assert sum(stats["bars"].values()) >= 6


def without_onebar(app: httpx.Client) -> None:
    """A feed without its bars is still a feed; events wait."""
    videos = app.get("/feed", params={"user": "u"}).json()["videos"]
    assert [video["bar"] for video in videos] == [None, None, None]
    assert app.post("/search", json={"user": "u", "query": "boots"}).status_code == 202
    stats = app.get("/stats").json()
    assert stats["bars"] == {"none": 3}
    assert stats["waiting"] >= 7  # the videos, and what was done since
