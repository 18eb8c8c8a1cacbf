"""A feed of your own over HTTP, with nothing but Python's standard library.

    python examples/feed_over_http.py --api http://127.0.0.1:8080 [--key KEY]

Sends a video, an impression and a search that a viewer typed after the video; then asks what to
show in the bar, and reports what was shown and tapped. This is all that a feed has to do.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any


class OneBar:
    """The two calls a feed makes: `send` what happened, `queries` to show."""

    def __init__(self, api: str, key: str | None = None) -> None:
        self.api = api.rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def send(self, *events: dict[str, Any]) -> int:
        """Send up to 1000 events; returns once Kafka has them. Either all are taken or none."""
        stamped = [{"event_id": str(uuid.uuid4()), "ts": time.time(), **event} for event in events]
        accepted: int = self._call("POST", "/v1/events", stamped)["accepted"]
        return accepted

    def queries(self, video_id: str, user_id: str, budget_ms: int = 500) -> dict[str, Any]:
        """What to show under the video; an answer within about `budget_ms` in any case."""
        asked = {"video_id": video_id, "user_id": user_id, "budget_ms": budget_ms}
        return self._call("GET", "/v1/queries?" + urllib.parse.urlencode(asked))

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + path, data, self.headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:  # problem+json: says what is wrong, and where
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api", default="http://127.0.0.1:8080")
    parser.add_argument("--key", help="an API key with the scopes read and write")
    options = parser.parse_args()
    bar = OneBar(options.api, options.key)

    video, user = f"video-{uuid.uuid4().hex[:8]}", f"user-{uuid.uuid4().hex[:8]}"
    who = {"video_id": video, "user_id": user}
    bar.send(
        {
            "type": "video",
            "video_id": video,
            "title": "Trying the red trail running shoes everyone asks about",
            "caption": "three weeks on wet rock #running #trail @shop",
            "item_title": "trail running shoes, waterproof, red",
            "category": "sports shoes",
        },
        {"type": "search", "query": "waterproof trail running shoes", **who},
    )
    # Impressions start generation before anyone asks; without one the first lookup starts it.
    bar.send({"type": "impression", **who})

    answer = wait_for_queries(bar, video, user)
    print(f"{answer['source']} by {answer['model']}, request {answer['request_id']}")
    for query in answer["queries"]:
        print(f"  {query['score']:8.3f}  {query['text']}")
    if not answer["queries"]:
        print("  nothing to show" + (" (rejected)" if answer["rejected"] else ""))
        return

    shown = [{"query": q["text"], "position": i} for i, q in enumerate(answer["queries"])]
    served = {"request_id": answer["request_id"], **who}
    first = answer["queries"][0]["text"]
    bar.send(
        {"type": "exposure", "queries": shown, **served},
        {"type": "click", "query": first, "position": 0, **served},
        {"type": "engagement", "query": first, "kind": "order", "value": 89.0, **served},
    )


def wait_for_queries(bar: OneBar, video: str, user: str, seconds: float = 10.0) -> dict[str, Any]:
    """Ask until the video, which was sent a moment ago, has been read from Kafka."""
    deadline = time.monotonic() + seconds
    while True:
        answer = bar.queries(video, user)
        if answer["queries"] or answer["rejected"] or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)


if __name__ == "__main__":
    main()
