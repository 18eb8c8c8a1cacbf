"""A topic of the feed's own as events on ours."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from onebar.cli.common import (
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
    worker_settings,
)
from onebar.cli.logs.mapped import list_mappings, preview_json, print_preview
from onebar.errors import UsageError

app = typer.Typer()


@app.command("map-topic")
def map_topic(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="Your topic; its whole name.", show_default=False)
    ] = "",
    mapping: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="NAME|FILE",
            help="A mapping's file, or one that comes with OneBar (`list` names them).",
            show_default=False,
        ),
    ] = "",
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Show what --map makes of the first records; send nothing."),
    ] = False,
    records: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many --preview looks at.")
    ] = 1000,
    name: Annotated[
        str | None,
        typer.Option(
            help="Workers of one name share the partitions and go on where the last one stopped "
            "[default: the topic's name].",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send the rows of a Kafka topic of your own as events to OneBar's topics, until SIGTERM.

    The mapping says which rows are which events (docs/mapping.md). It begins at the start of the
    topic, and commits what it has read once Kafka has the events. A row that can't be made an event
    is a dead letter with the reason; `onebar dead-letters replay --map FILE` makes it one later.

    Before it begins for the first time it looks at the first records, and refuses a mapping by
    which none of them becomes an event and some should. --preview needs no more than `Read` on the
    topic, and moves nobody's offsets.

    Example: onebar map-topic clickstream --map mine.toml --preview

    Example: onebar map-topic clickstream --map mine.toml
    """
    from stream.mapping.mapping import open_mapping
    from stream.mapping.topic import run_mapping

    if mapping == "list":
        list_mappings()
    if not topic or not mapping:
        missing = "a TOPIC to read" if not topic else "the mapping of its rows, by --map"
        raise UsageError(f"name {missing}: onebar map-topic TOPIC --map FILE")
    opened = open_mapping(mapping)
    if not preview:
        asyncio.run(run_mapping(worker_settings("map-topic"), topic, opened, name))
        return
    from stream.mapping.records import check_fit, preview_records
    from stream.mapping.topic import first_records

    check_fit(opened)
    seen = preview_records(run_to_end(first_records(command_settings(), topic, records)), opened)
    if as_json:
        print_json(preview_json(seen, "record", topic=topic, mapping=opened.name))
    else:
        print_preview(seen, topic, opened.name, "record")
    if seen.errors and not seen.events:
        raise typer.Exit(1)
