"""Dead letters: listed, shown, exported, edited, sent back, dropped."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from onebar.cli.common import (
    PARTIAL,
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
    wants_json,
)
from onebar.cli.sections import Whole
from onebar.errors import OneBarError, UsageError
from onebar.process.console import printable, say
from onebar.process.files import replacing

if TYPE_CHECKING:
    from stream.logs.dead_letters import DeadLetter, Exported, Remake, Replayed, Selection

dead_letters = typer.Typer(
    cls=Whole,
    help="Messages that could not be processed: list, show, export, edit, send back, drop.",
    no_args_is_help=True,
)

IdsOption = Annotated[
    list[str] | None,
    typer.Option("--id", help="PARTITION:OFFSET, as `list` prints it; may be repeated."),
]
ReasonOption = Annotated[str, typer.Option(help="Only those whose reason contains this.")]
TopicOption = Annotated[
    str, typer.Option(help="Only those of this topic; of ours without the prefix.")
]
IdArgument = Annotated[str, typer.Argument(help="PARTITION:OFFSET, as `list` prints it.")]


class NoSuchLetterError(UsageError, LookupError):
    """There is no dead letter of that id."""


class EditorError(OneBarError, RuntimeError):
    """The editor did not end well. Nothing was sent."""


@dead_letters.command("list")
def dead_letters_list(
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 is all.")] = 50,
    ids: IdsOption = None,
    reason: ReasonOption = "",
    topic: TopicOption = "",
    settled: Annotated[
        bool, typer.Option("--settled", help="Also those that were sent back or dropped.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The newest dead letters: where each came from, and why it is one. A table on a terminal, else
    JSON, one object a line; with --json one array of them.

    Example: onebar dead-letters list --limit 10

    Example: onebar dead-letters list --limit 0 --reason FutureEventError
    """
    selection = _selection(ids, reason, topic)
    if as_json:
        letters: list[DeadLetter] = []
        run_to_end(_newest(selection, limit, letters.append, settled=settled))
        print_json([_letter(letter, whole=False) for letter in letters])
        return
    table = not wants_json(as_json)
    count = run_to_end(_newest(selection, limit, _print if table else _print_line, settled=settled))
    if table and not count:
        print("no dead letters")
    if limit and count > limit:
        say(f"onebar: {count - limit:,} older ones are not shown; --limit 0 shows all")


async def _newest(
    selection: Selection, limit: int, show: Callable[[DeadLetter], None], *, settled: bool
) -> int:
    """Show the newest, oldest first; where there is no limit, as they come. How many there are."""
    import heapq

    from stream.logs.dead_letters import dead_letters as read

    kept: list[tuple[float, tuple[int, int], DeadLetter]] = []
    count = 0
    async for letter in read(command_settings(), selection, settled=settled):
        count += 1
        if not limit:
            show(letter)
            continue
        entry = (letter.failed_at, letter.number, letter)
        (heapq.heappush if len(kept) < limit else heapq.heappushpop)(kept, entry)
    for *_, letter in sorted(kept, key=lambda entry: entry[:2]):
        show(letter)
    return count


def _print(letter: DeadLetter) -> None:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(max(0.0, letter.failed_at)))
    origin = f"{letter.topic}/{letter.partition}@{letter.offset}"
    again = f" (sent back {letter.tries} times)" if letter.tries else ""
    print(f"{letter.id:8} {when}Z  {printable(origin):32} {printable(letter.reason[:160])}{again}")


def _print_line(letter: DeadLetter) -> None:
    print_json(_letter(letter, whole=False))


@dead_letters.command("show")
def dead_letters_show(number: IdArgument, as_json: JsonOption = False) -> None:
    """One dead letter, its original bytes and all.

    Example: onebar dead-letters show 0:17
    """
    found = _letter(run_to_end(_one(number, settled=True)), whole=True)
    if wants_json(as_json):
        print_json(found)
        return
    for name, value in found.items():
        print(f"{name:10} {printable(str(value))}")


@dead_letters.command("export")
def dead_letters_export(
    out: Annotated[Path, typer.Argument(help="The file to write, a letter a line; - is stdout.")],
    ids: IdsOption = None,
    reason: ReasonOption = "",
    topic: TopicOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write dead letters to a file, to be mended there: `replay --from` sends them back.

    Each line is a JSON object; `value` is what is sent.

    Example: onebar dead-letters export letters.jsonl --topic onebar.videos
    """
    selection = _selection(ids, reason, topic)
    if str(out) == "-":
        run_to_end(_export(selection, None))
        return
    count = run_to_end(_export(selection, out))
    if as_json:
        print_json({"exported": count, "file": str(out)})
    else:
        print(f"{count:,} written to {out}")


async def _export(selection: Selection, out: Path | None) -> int:
    import msgspec

    from stream.logs.dead_letters import Exported
    from stream.logs.dead_letters import dead_letters as read

    async def write(file: BinaryIO) -> int:
        count = 0
        async for letter in read(command_settings(), selection):
            file.write(msgspec.json.encode(Exported.of(letter)) + b"\n")
            count += 1
        file.flush()
        return count

    if out is None:
        return await write(sys.stdout.buffer)
    with replacing(out) as path, path.open("wb") as file:
        return await write(file)


@dead_letters.command("edit")
def dead_letters_edit(
    number: IdArgument,
    value: Annotated[
        Path | None,
        typer.Option("--value", help="The file with the mended event; - is stdin.", dir_okay=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Mend one dead letter and send it back: in $VISUAL or $EDITOR, or from a file.

    What is no event is refused, and nothing is sent.

    Example: onebar dead-letters edit 0:17

    Example: onebar dead-letters edit 0:17 --value mended.json
    """
    from stream.logs.dead_letters import mend_dead_letter

    letter = run_to_end(_one(number))
    if value is None:
        mended = _edited(letter.value)
    else:
        mended = sys.stdin.buffer.read() if str(value) == "-" else value.read_bytes()
    run_to_end(mend_dead_letter(command_settings(), letter, mended.strip()))
    if as_json:
        print_json({"sent": 1})
    else:
        print("1 sent back")


def _edited(value: bytes) -> bytes:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise EditorError("set $VISUAL or $EDITOR, or give the mended event by --value FILE")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dead-letter.json"
        file.write_bytes(value)
        status = subprocess.run([*shlex.split(editor), str(file)], check=False).returncode
        if status:
            raise EditorError(f"{editor} ended with status {status}; nothing was sent")
        return file.read_bytes()


@dead_letters.command("replay")
def dead_letters_replay(
    ids: IdsOption = None,
    reason: ReasonOption = "",
    topic: TopicOption = "",
    exported: Annotated[
        Path | None,
        typer.Option("--from", help="Send what `export` wrote, and you mended.", dir_okay=False),
    ] = None,
    mapping: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="NAME|FILE",
            help="Make events of rows of your own topics by this mapping (docs/mapping.md).",
            show_default=False,
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also those that failed again three times.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Send the dead letters that were not sent back yet to the topics they came from.

    Do so once what stopped them is mended: a message that fails again is a dead letter again, and
    after three times it is not sent any more, unless mended or with --force. One that is not sent,
    or that Kafka refuses, is named and stays; it holds up no other. Exit status: 3 where there is
    one.

    Rows of a topic of your own (`onebar map-topic`) become events by a mended mapping, named with
    --map, and go to OneBar's topics; nothing is written to yours.

    Example: onebar dead-letters replay --reason FutureEventError

    Example: onebar dead-letters replay --topic clickstream --map mine.toml

    Example: onebar dead-letters replay --from letters.jsonl
    """
    from stream.logs.dead_letters import replay_dead_letters, replay_exported

    settings = command_settings()
    remake = _remake(mapping) if mapping else None
    if exported is not None:
        work = replay_exported(settings, _exported(exported), remake)
    else:
        selection = _selection(ids, reason, topic)
        work = replay_dead_letters(settings, selection=selection, remake=remake, force=force)
    _tell(run_to_end(work), as_json)


def _remake(mapping: str) -> Remake:
    from stream.mapping.mapping import open_mapping
    from stream.mapping.records import remade

    opened = open_mapping(mapping)
    return lambda letter: remade(letter, opened)


def _tell(done: Replayed, as_json: bool) -> None:
    if as_json:
        refused = [{"id": refusal.id, "why": refusal.why} for refusal in done.refused]
        print_json({"sent": done.sent, "refused": refused})
    else:
        for refusal in done.refused:
            print(f"{refusal.id:8} not sent: {printable(refusal.why)}")
        print(f"{done.sent:,} sent back")
    if done.refused:
        raise typer.Exit(PARTIAL)


def _exported(file: Path) -> list[Exported]:
    import msgspec

    from stream.events import NO_JSON
    from stream.logs.dead_letters import Exported

    lines: list[Exported] = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line, type=Exported)
            _ = found.raw
        except (*NO_JSON, ValueError) as error:
            raise UsageError(f"{file}, line {number}, is no exported letter: {error}") from None
        lines.append(found)
    return lines


@dead_letters.command("drop")
def dead_letters_drop(
    ids: IdsOption = None,
    reason: ReasonOption = "",
    topic: TopicOption = "",
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Be done with dead letters without sending them: `list` and `replay` pass them over.

    They stay in their topic as long as Kafka keeps it; `list --settled` shows them.

    Example: onebar dead-letters drop --reason "no JSON"
    """
    from stream.logs.dead_letters import drop_dead_letters

    if not (ids or reason or topic or everything):
        raise UsageError("name what to drop by --id, --reason or --topic, or say --all")
    dropped = run_to_end(drop_dead_letters(command_settings(), _selection(ids, reason, topic)))
    if as_json:
        print_json({"dropped": dropped})
    else:
        print(f"{dropped:,} dropped")


def _selection(ids: list[str] | None, reason: str, topic: str) -> Selection:
    from stream.logs.dead_letters import Selection

    return Selection(frozenset(ids or ()), reason, topic)


async def _one(number: str, *, settled: bool = False) -> DeadLetter:
    """Raises `NoSuchLetterError`."""
    from contextlib import aclosing

    from stream.logs.dead_letters import Selection
    from stream.logs.dead_letters import dead_letters as read

    chosen = Selection(frozenset({number}))
    async with aclosing(read(command_settings(), chosen, settled=settled)) as letters:
        async for letter in letters:
            return letter
    raise NoSuchLetterError(
        f"there is no dead letter {number!r}; `onebar dead-letters list` shows them"
    )


def _letter(letter: DeadLetter, *, whole: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "number": letter.id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "failed_at": letter.failed_at,
        "reason": letter.reason,
        "bytes": len(letter.value),
        "tries": letter.tries,
    }
    if whole:
        found["key"] = None if letter.key is None else letter.key.decode(errors="backslashreplace")
        found["value"] = None if letter.null else letter.value.decode(errors="backslashreplace")
    return found
