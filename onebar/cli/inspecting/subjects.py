"""What is known of a video and of a user."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import JsonOption, command_settings, print_json, run_to_end, wants_json
from onebar.cli.inspecting.show import Page, ago, moment
from onebar.process.console import say

if TYPE_CHECKING:
    from onebar.settings import Settings

app = typer.Typer()


@app.command("video")
def inspect_video(
    video_id: Annotated[str, typer.Argument(help="The video.")], as_json: JsonOption = False
) -> None:
    """What is known of a video: its text, anchors (and why which is held back), counters, cached
    queries. Tables on a terminal, else JSON.

    Example: onebar inspect video v42 --json
    """
    found = run_to_end(_video(command_settings(), video_id))
    if found is None:
        say(f"onebar: nothing is known of video {video_id!r}")
        raise typer.Exit(1)
    if wants_json(as_json):
        print_json(found)
    else:
        _show_video(found)


@app.command("user")
def inspect_user(
    user_id: Annotated[str, typer.Argument(help="The user.")], as_json: JsonOption = False
) -> None:
    """What is known of a user: the newest queries. A table on a terminal, else JSON.

    Example: onebar inspect user u7
    """
    found = run_to_end(_user(command_settings(), user_id))
    if found is None:
        say(f"onebar: nothing is known of user {user_id!r}")
        raise typer.Exit(1)
    if wants_json(as_json):
        print_json(found)
    else:
        page = Page()
        page.title(f"User {found['user_id']}")
        page.heading("Newest queries")
        rows = [(entry["query"], moment(entry["ts"])) for entry in found["history"]]
        page.table(("query", "when (UTC)"), rows)


async def _video(settings: Settings, video_id: str) -> dict[str, Any] | None:
    import msgspec

    from feature_store.opening import cache_beside, open_live_store
    from onebar.gating.follow import RuleFollower
    from onebar.gating.gate import about_of, own_anchors
    from onebar.recommending.loading import open_gate

    store = await open_live_store(settings)
    cache = cache_beside(store, settings)
    gate = open_gate(settings)
    try:
        await RuleFollower(store, gate).look()
        [features] = await store.features([(video_id, None)])
        anchors = await store.anchors(video_id)
        counts = await store.counts(video_id)
        [lookup] = await cache.lookup([(video_id, None)])
    finally:
        await store.close()
    if not features.known and not counts and not anchors:
        return None
    about, now, own = about_of(video_id, features), time.time(), own_anchors(anchors)
    bar = gate.barred(about, now)
    held = {
        anchor.query: {"reason": why.reason, "detail": why.detail}
        for anchor in anchors
        if (why := bar or gate.judge(anchor.query, about, now, anchors=own)) is not None
    }
    found: dict[str, Any] = msgspec.to_builtins(
        {
            "video_id": video_id,
            "text": features.text,
            "anchors": anchors,
            "held_back": held,
            "counts": counts,
            "cached": None if lookup.video is None else lookup.video.result(),
        }
    )
    return found


async def _user(settings: Settings, user_id: str) -> dict[str, Any] | None:
    import msgspec

    from feature_store.opening import open_live_store
    from stream.events.pseudonyms import Pseudonyms

    user_id = Pseudonyms(settings.user_id_key).of(user_id)
    store = await open_live_store(settings)
    try:
        history = await store.history(user_id)
    finally:
        await store.close()
    if not history:
        return None
    found: dict[str, Any] = msgspec.to_builtins({"user_id": user_id, "history": history})
    return found


def _show_video(found: dict[str, Any]) -> None:
    page = Page()
    page.title(f"Video {found['video_id']}")
    page.facts((found["text"] or {"text": "none was seen"}).items())
    counts, held = found["counts"], found["held_back"]
    anchors = {anchor["query"]: anchor for anchor in found["anchors"]}
    page.heading("Anchors and counters")
    rows, dim = [], []
    for query in [*anchors, *(query for query in counts if query not in anchors)]:
        anchor, count = anchors.get(query, {}), counts.get(query, {})
        why = held.get(query)
        kept = " ".join(why.values()).strip() if why else ""
        if not why and not anchor.get("showable", True):
            kept = "too few users"
        shown = [count.get(name, 0) for name in ("exposures", "clicks", "engagements")]
        rows.append((query, anchor.get("weight"), anchor.get("source"), *shown, kept))
        dim.append(bool(kept) or not anchor)
    columns = ("query", "weight", "from", "shown", "clicked", "engaged", "held back")
    page.table(columns, rows, numbers=("weight", "shown", "clicked", "engaged"), dim=dim)
    cached = found["cached"]
    page.heading("Cached for whoever watches")
    if cached is None:
        page.line("nothing")
        return
    age = ago(max(0.0, time.time() - cached["generated_at"]))
    page.facts(
        [
            ("model", cached["model"]),
            ("made", f"{moment(cached['generated_at'])} UTC, {age} ago"),
            ("evidence", cached["evidence_digest"]),
            ("no queries", cached.get("rejection") if cached["rejected"] else None),
        ]
    )
    queries = [(at, one["text"], one["score"]) for at, one in enumerate(cached["queries"])]
    if queries:
        page.table(("place", "query", "score"), queries, numbers=("place", "score"))
