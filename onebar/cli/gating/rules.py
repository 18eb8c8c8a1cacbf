"""What may be shown: rules listed, made, taken back, explained."""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import (
    DAY,
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
    seconds,
)
from onebar.cli.sections import Whole
from onebar.errors import UsageError
from onebar.process.console import say

if TYPE_CHECKING:
    from onebar.records import Features, Rule
    from onebar.settings import Settings
    from stream.events import RuleChange

rules = typer.Typer(
    cls=Whole,
    help="What may be shown: block, allow and pin queries; docs/content-safety.md.",
    no_args_is_help=True,
)

WhoOption = Annotated[str, typer.Option(help="Who decided so; the user of this machine if empty.")]
WhyOption = Annotated[str, typer.Option(help="And why.")]
_FIELDS = ("query", "word", "pattern", "video_id", "author", "category", "market")


@rules.command("list")
def rules_list(as_json: JsonOption = False) -> None:
    """The rules that hold, by their ids.

    Example: onebar rules list
    """
    found = sorted(run_to_end(_read(command_settings())), key=lambda rule: rule.rule_id)
    if as_json:
        print_json(found)
        return
    for rule in found:
        print(_line(rule))
    if not found:
        print("no rules")


@rules.command("add")
def rules_add(
    rule_id: Annotated[str, typer.Argument(help="Its name; an old rule of this name is replaced.")],
    action: Annotated[str, typer.Option(help="block, allow, pin or learn (never shown, learnt).")],
    query: Annotated[str, typer.Option(help="Exactly this query.")] = "",
    word: Annotated[str, typer.Option(help="Every query that holds this word, or words.")] = "",
    pattern: Annotated[str, typer.Option(help="Every query that matches (RE2's syntax).")] = "",
    language: Annotated[list[str] | None, typer.Option(help="Only in these languages.")] = None,
    video_id: Annotated[str, typer.Option("--video", help="Only under this video.")] = "",
    author: Annotated[str, typer.Option(help="Only under videos of this author.")] = "",
    category: Annotated[str, typer.Option(help="Only under videos of this category.")] = "",
    market: Annotated[str, typer.Option(help="Only where ONEBAR_MARKET is this.")] = "",
    starts: Annotated[datetime | None, typer.Option(formats=DAY, help="From then on, UTC.")] = None,
    ends: Annotated[datetime | None, typer.Option(formats=DAY, help="Until then, UTC.")] = None,
    who: WhoOption = "",
    why: WhyOption = "",
    dry_run: Annotated[
        Path | None,
        typer.Option(help="Make nothing: say what it would have held back in this archive."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Last days of the archive.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Make a rule, or replace one. It holds in every process within a second.

    Example: onebar rules add no-fakes --action block --word "knock off" --why "complaint 4711"

    Example: onebar rules add sale --action pin --query "winter sale" --category shoes
    --ends 2027-01-01

    Example: onebar rules add no-fakes --action block --word fake --dry-run archive
    """
    fields: dict[str, Any] = {
        "action": action,
        "query": query,
        "word": word,
        "pattern": pattern,
        "languages": language or [],
        "video_id": video_id,
        "author": author,
        "category": category,
        "market": market,
        "who": who or getpass.getuser(),
        "why": why,
    }
    for name, moment in (("starts", starts), ("ends", ends)):
        if moment is not None:
            fields[name] = seconds(moment)
    settings = command_settings()
    change = _change(rule_id, fields)
    if dry_run is not None:
        _try(settings, [change], dry_run, days, as_json)
        return
    run_to_end(_send(settings, [change]))
    print(f"{rule_id}: made; it holds everywhere within a second")


@rules.command("remove")
def rules_remove(
    rule_id: Annotated[str, typer.Argument(help="The rule.")],
    who: WhoOption = "",
    why: WhyOption = "",
) -> None:
    """Take a rule back. What it held back is shown again once it is generated anew.

    Example: onebar rules remove no-fakes --why settled
    """
    settings = command_settings()
    if rule_id not in {rule.rule_id for rule in run_to_end(_read(settings))}:
        say(f"onebar: there is no rule {rule_id!r}; onebar rules list names them")
        raise typer.Exit(1)
    fields = {"action": "remove", "who": who or getpass.getuser(), "why": why}
    run_to_end(_send(settings, [_change(rule_id, fields)]))
    print(f"{rule_id}: taken back")


@rules.command("import")
def rules_import(
    file: Annotated[
        Path, typer.Argument(help="A rule a line, as JSON, or one list of rules.", dir_okay=False)
    ],
    who: WhoOption = "",
    why: WhyOption = "",
    dry_run: Annotated[
        Path | None,
        typer.Option(help="Make nothing: say what they would have held back in this archive."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Last days of the archive.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Make many rules: each line is an object with `rule_id`, `action` and what else a rule has.
    Where one can't be, none is made, and each that can't is named by its line. What `onebar rules
    list --json` printed is taken back as it was.

    Example: onebar rules import blocked.jsonl --why "list of the regulator, March"
    """
    changes = _changes(file, {"who": who or getpass.getuser(), "why": why})
    settings = command_settings()
    if dry_run is not None:
        _try(settings, changes, dry_run, days, as_json)
        return
    run_to_end(_send(settings, changes))
    print(f"{len(changes):,} rules made; they hold everywhere within a second or so")


@rules.command("history")
def rules_history(
    rule_id: Annotated[str | None, typer.Argument(help="Of this rule alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """What changed, who decided so, when and why; newest first.

    Example: onebar rules history no-fakes
    """

    async def read(settings: Settings) -> list[Any]:
        from feature_store.opening import open_live_store

        store = await open_live_store(settings)
        try:
            return list(await store.rule_history(limit, rule_id))
        finally:
            await store.close()

    found = run_to_end(read(command_settings()))
    if as_json:
        print_json(found)
        return
    for change in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(change.ts))
        told = "taken back" if change.rule is None else _line(change.rule)
        print(f"{when}Z  {change.rule_id:20} {told}")
    if not found:
        print("nothing changed yet")


@rules.command("explain")
def rules_explain(
    query: Annotated[str, typer.Argument(help="The query.")],
    video_id: Annotated[str, typer.Option("--video", help="The video it is to stand under.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Whether a query may be shown under a video now, and what each part of the gate says of it.

    Example: onebar rules explain "cheap knock off shoes" --video v42
    """
    found = run_to_end(_explain(command_settings(), query, video_id))
    if as_json:
        print_json(dict(found))
        return
    for name, said in found:
        print(f"{name:16} {said}")


async def _explain(settings: Settings, query: str, video_id: str) -> list[tuple[str, str]]:
    from feature_store.opening import open_live_store, repertoire_beside
    from onebar.evidence.text import normalize_query
    from onebar.gating.follow import RepertoireFollower, RuleFollower
    from onebar.gating.gate import about_of, own_anchors
    from onebar.recommending.candidates import why_barred
    from onebar.recommending.loading import open_gate

    gate = open_gate(settings)
    store = await open_live_store(settings)
    try:
        await RuleFollower(store, gate).look()
        await RepertoireFollower(repertoire_beside(store), gate).look()
        [known] = await store.features([(video_id, None)])
        anchors = await store.anchors(video_id) if video_id else ()
    finally:
        await store.close()
    own = own_anchors(known.anchors)
    steps = gate.explain(query, about_of(video_id, known), time.time(), own)
    if video_id:
        normal = normalize_query(query)
        anchor = next((a for a in anchors if a.query == normal), None)
        asked = (
            "nobody asked it after this video"
            if anchor is None
            else f"asked by {settings.showable_users} users or more: others may be shown it"
            if anchor.showable
            else f"asked by fewer than {settings.showable_users} users: no evidence for others"
        )
        barred = why_barred(known)
        steps[1:1] = [("this video", _state(known, barred)), ("people", asked)]
        if anchor is not None and not anchor.showable and steps[-1][1] == "may be shown":
            steps[-1] = ("verdict", "may be shown to those who asked it alone")
        if barred is not None:
            steps[-1] = ("verdict", "held back")
    return steps


def _state(known: Features, barred: str | None) -> str:
    if known.text is None:
        return "nothing is known of it"
    if barred is not None:
        return f"{barred}: it carries no query"
    return known.text.title or known.text.caption or known.text.item_title or "(no title)"


async def _read(settings: Settings) -> list[Rule]:
    from feature_store.opening import open_live_store

    store = await open_live_store(settings)
    try:
        return [rule for rule in (await store.rules_since(0)).values() if rule is not None]
    finally:
        await store.close()


async def _send(settings: Settings, changes: Sequence[RuleChange]) -> None:
    """Into the log, and into the state ahead of it."""
    from feature_store.opening import open_live_store
    from onebar.evidence.text import clean_video
    from stream.events.fold import fold
    from stream.kafka.producer import EventProducer
    from stream.kafka.topics import ensure_topics

    await ensure_topics(settings)
    async with EventProducer(settings) as producer:
        for at in range(0, len(changes), 1000):
            await producer.send(changes[at : at + 1000])
    store = await open_live_store(settings)
    try:
        await store.apply([(write, None) for c in changes for write in fold(c, clean_video)])
    finally:
        await store.close()


def _change(rule_id: str, fields: dict[str, Any]) -> RuleChange:
    """The change as an event. Raises `UsageError` for a rule that can't be."""
    from stream.events import InvalidEventError, RuleChange, from_object
    from stream.events.fold import rule_of

    common = {
        "type": "rule",
        "event_id": f"rule-{uuid.uuid4().hex}",
        "ts": time.time(),
        "rule_id": rule_id,
    }
    try:
        event = from_object({**{k: v for k, v in fields.items() if v != ""}, **common})
        assert isinstance(event, RuleChange)
        rule_of(event)
    except InvalidEventError as error:
        raise UsageError(str(error)) from None
    return event


def _changes(file: Path, signed: dict[str, str]) -> list[RuleChange]:
    import orjson

    changes: list[RuleChange] = []
    faults: list[str] = []
    for number, line in enumerate(_lines(file.read_bytes()), 1):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
            if not isinstance(fields, dict) or not fields.get("rule_id"):
                raise UsageError("expected an object with a rule_id")
            changes.append(_change(str(fields.pop("rule_id")), {**signed, **fields}))
        except (orjson.JSONDecodeError, UsageError) as error:
            faults.append(f"line {number}: {error}")
    if faults:
        more = f" (and {len(faults) - 20:,} more)" if len(faults) > 20 else ""
        raise UsageError(f"no rule of {file} was made: {'; '.join(faults[:20])}{more}")
    return changes


def _lines(content: bytes) -> list[bytes]:
    """A rule each: the lines, or the elements of the list that `rules list --json` prints."""
    import orjson

    try:
        listed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.splitlines()
    return [orjson.dumps(rule) for rule in listed] if isinstance(listed, list) else [content]


def _try(
    settings: Settings, changes: Sequence[RuleChange], path: Path, days: int, as_json: bool
) -> None:
    from stream.archive.dry_run import dry_run
    from stream.archive.reader import open_archive
    from stream.events.fold import rule_of

    wanted = [rule for change in changes if (rule := rule_of(change)) is not None]
    found = dry_run(open_archive(path), wanted, days=days, market=settings.market)
    if as_json:
        print_json(found)
        return
    share = f" ({found.held / found.shown:.2%})" if found.shown else ""
    print(f"{', '.join(found.days) or 'no days'}: {found.held:,} of {found.shown:,}{share} shown")
    print("queries would have been held back")
    for query, count in found.queries:
        print(f"{count:>10,}  {query}")


def _line(rule: Rule) -> str:
    parts = [f"{rule.rule_id:20} {rule.action:6}"]
    parts += [f"{name}={value!r}" for name in _FIELDS if (value := getattr(rule, name))]
    if rule.languages:
        parts.append(f"languages={','.join(rule.languages)}")
    for name in ("starts", "ends"):
        moment = getattr(rule, name)
        if moment is not None:
            parts.append(f"{name}={time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(moment))}")
    if rule.who or rule.why:
        parts.append(f"({rule.who}: {rule.why})")
    return " ".join(parts)
