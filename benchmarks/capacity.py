"""What a feed needs: cores, Redis memory, Kafka partitions, from measured unit costs.

    python benchmarks/capacity.py                         # prints docs/capacity.md
    python benchmarks/capacity.py --impressions 40 --events-per-core 5000

Every unit cost and every assumption is an option; its default stands in the tables.
"""

from __future__ import annotations

import argparse
from math import ceil
from textwrap import fill

import msgspec
from msgspec import Struct

HEADROOM = 0.6
"""How busy a core may be at the peak."""
DAY_S = 86_400


class Assumptions(Struct, frozen=True, kw_only=True):
    """A feed. Rates are of a day and a daily user."""

    impressions: float = 100.0
    """videos a user sees in a day"""
    behaviors: float = 1.6
    """other events for each impression: exposures, searches, clicks, engagements"""
    peak: float = 3.0
    """busiest second over the mean"""
    fresh: float = 0.25
    """impressions that need a generation; the others share a prompt or are cached"""
    videos_per_user: float = 0.3
    """videos alive in 30 days, for each daily user"""
    users_kept: float = 3.0
    """users of 30 days, for each daily user"""
    event_id_days: float = 2.5
    """days that the id of an event is remembered: a dedupe window of one, and two more"""
    cached_hours: float = 1.0
    """hours that an answer is cached (the hard TTL)"""
    replicas: float = 2.0
    """copies of Redis"""
    retention_days: float = 7.0
    """days that Kafka keeps"""


class Costs(Struct, frozen=True, kw_only=True):
    """Unit costs. Each was printed by the command in docs/performance.md, on one core of a shared
    server."""

    lookups_per_core: float = 32_000.0
    """cached lookups a second (benchmarks/lookup.py)"""
    events_per_core: float = 13_800.0
    """events a second of a stream worker (benchmarks/stream_worker.py)"""
    generations_per_core: float = 420.0
    """prompts a second, demo checkpoint, beam 8 (benchmarks/generation.py)"""
    bytes_per_user: float = 800.0
    """20 queries (benchmarks/redis_memory.py)"""
    bytes_per_video: float = 2_300.0
    """text, 16 anchors and their counters (benchmarks/redis_memory.py)"""
    bytes_per_answer: float = 1_500.0
    """a user's eight cached queries for a video (benchmarks/redis_memory.py)"""
    bytes_per_event_id: float = 9.0
    """the id of an event, remembered (benchmarks/redis_memory.py)"""
    bytes_per_event: float = 290.0
    """an event, uncompressed (the mean of a simulated log)"""


class Need(Struct, frozen=True):
    """What so many daily users need."""

    users: int
    lookups_per_s: float
    events_per_s: float
    generations_per_s: float
    api_cores: int
    stream_cores: int
    generator_cores: int
    redis_gb: float
    kafka_partitions: int
    kafka_gb: float


def need(users: int, feed: Assumptions, costs: Costs) -> Need:
    """The needs of `users` daily users at the peak."""
    lookups = users * feed.impressions * feed.peak / DAY_S
    events = lookups * (1 + feed.behaviors)
    behaviors = lookups * feed.behaviors
    generations = lookups * feed.fresh

    def cores(rate: float, of_one: float) -> int:
        return ceil(rate / (of_one * HEADROOM))

    stream = cores(behaviors, costs.events_per_core)
    generator = cores(generations, costs.generations_per_core)
    state = (
        feed.users_kept * costs.bytes_per_user
        + feed.videos_per_user * costs.bytes_per_video
        + feed.impressions * feed.behaviors * feed.event_id_days * costs.bytes_per_event_id
        + feed.impressions * feed.peak * feed.cached_hours / 24 * costs.bytes_per_answer
    )
    return Need(
        users=users,
        lookups_per_s=lookups,
        events_per_s=events,
        generations_per_s=generations,
        api_cores=cores(lookups, costs.lookups_per_core),
        stream_cores=stream,
        generator_cores=generator,
        redis_gb=users * state * feed.replicas / 1e9,
        # A partition is read by one worker at most: room to double.
        kafka_partitions=2 * max(stream, generator),
        kafka_gb=events / feed.peak * DAY_S * feed.retention_days * costs.bytes_per_event / 1e9,
    )


ROWS = (
    ("lookups a second", "lookups_per_s", "{:,.0f}"),
    ("events a second", "events_per_s", "{:,.0f}"),
    ("generations a second", "generations_per_s", "{:,.0f}"),
    ("cores of the API", "api_cores", "{:,}"),
    ("cores of stream workers", "stream_cores", "{:,}"),
    ("cores of generator workers", "generator_cores", "{:,}"),
    ("Redis, all copies", "redis_gb", "{:,.0f} GB"),
    ("partitions of each topic", "kafka_partitions", "{:,}"),
    ("Kafka, one copy", "kafka_gb", "{:,.0f} GB"),
)


def page(feed: Assumptions, costs: Costs, sizes: tuple[int, ...] = (1_000_000, 100_000_000)) -> str:
    """docs/capacity.md."""
    needs = [need(users, feed, costs) for users in sizes]
    lines = [
        "# Capacity",
        "",
        fill(
            "Printed by `python benchmarks/capacity.py`. Rates are those of the busiest second, a "
            f"core is planned to be {HEADROOM:.0%} busy then, and all of it is multiplication: put "
            "in what you measure on your machines and know of your feed (`--help`).",
            110,
        ),
        "",
        "| daily users | " + " | ".join(f"{users:,}" for users in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for title, name, form in ROWS:
        cells = " | ".join(form.format(getattr(found, name)) for found in needs)
        lines.append(f"| {title} | {cells} |")
    for title, values in (("The feed", feed), ("Unit costs", costs)):
        lines += ["", f"## {title}", "", "| | |", "|---|---:|"]
        lines += [
            f"| {meaning} | {getattr(values, name):,g} |"
            for name, meaning in meanings(type(values)).items()
        ]
    lines += [
        "",
        fill(
            "A core here is a hardware thread of a shared server. The generator takes most of "
            "them: fewer fresh generations (longer TTLs, fewer users whose history bears on the "
            "video) or a GPU change the sum more than anything else does.",
            110,
        ),
    ]
    return "\n".join(lines) + "\n"


def meanings(kind: type[Struct]) -> dict[str, str]:
    """What each field is, from the text below it in this file."""
    import ast
    import inspect

    [body] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(text.value, ast.Constant)
            found[field.target.id] = str(text.value.value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind in (Assumptions, Costs):
        group = parser.add_argument_group(kind.__name__.lower())
        texts = meanings(kind)
        for field in msgspec.structs.fields(kind):
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=float,
                default=field.default,
                help=f"{texts[field.name]}; {field.default:g}",
            )
    parser.add_argument("--users", type=int, nargs="+", default=[1_000_000, 100_000_000])
    options = vars(parser.parse_args())
    feed, costs = (
        msgspec.convert({name: options[name] for name in kind.__struct_fields__}, kind)
        for kind in (Assumptions, Costs)
    )
    print(page(feed, costs, tuple(options["users"])), end="")


if __name__ == "__main__":
    main()
