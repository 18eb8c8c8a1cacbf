"""Dead letters: listed, shown, sent back."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from onebar.cli.common import (
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
)
from onebar.process.console import say

dead_letters = typer.Typer(
    help="Messages that could not be processed: list, show, send back.", no_args_is_help=True
)


@dead_letters.command("list")
def dead_letters_list(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """The newest dead letters: where each came from, and why it is one.

    Example: onebar dead-letters list --limit 10
    """
    from stream.logs.dead_letters import read_dead_letters

    letters = run_to_end(read_dead_letters(command_settings(), limit))
    if as_json:
        print_json([_letter(letter, whole=False) for letter in letters])
        return
    for letter in letters:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(max(0.0, letter.failed_at)))
        number = ":".join(map(str, letter.number))
        origin = f"{letter.topic}/{letter.partition}@{letter.offset}"
        print(f"{number:8} {when}Z  {origin:32} {letter.reason[:160]}")
    if not letters:
        print("no dead letters")


@dead_letters.command("show")
def dead_letters_show(
    number: Annotated[str, typer.Argument(help="PARTITION:OFFSET, as `list` prints it.")],
    as_json: JsonOption = False,
) -> None:
    """One dead letter, its original bytes and all.

    Example: onebar dead-letters show 0:17
    """
    from stream.logs.dead_letters import read_dead_letters

    for letter in run_to_end(read_dead_letters(command_settings())):
        if ":".join(map(str, letter.number)) == number:
            found = _letter(letter, whole=True)
            if as_json:
                print_json(found)
            else:
                for name, value in found.items():
                    print(f"{name:10} {value}")
            return
    say(f"onebar: there is no dead letter {number!r}; `onebar dead-letters list` shows them")
    raise typer.Exit(1)


@dead_letters.command("replay")
def dead_letters_replay(as_json: JsonOption = False) -> None:
    """Send the dead letters that were not sent back yet to the topics they came from.

    Do so once what stopped them is mended: a message that fails again is a dead letter again.

    Example: onebar dead-letters replay
    """
    from stream.logs.dead_letters import replay_dead_letters

    settings = command_settings()
    sent = run_to_end(replay_dead_letters(settings))
    if as_json:
        print_json({"sent": sent})
    else:
        print(f"{sent:,} sent back")


def _letter(letter: Any, *, whole: bool) -> dict[str, Any]:
    found = {
        "number": ":".join(map(str, letter.number)),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "failed_at": letter.failed_at,
        "reason": letter.reason,
        "bytes": len(letter.value),
    }
    if whole:
        found["key"] = None if letter.key is None else letter.key.decode(errors="backslashreplace")
        found["value"] = letter.value.decode(errors="backslashreplace")
    return found
