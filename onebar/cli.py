"""The command line. Every command says what it does, with an example; heavy imports wait for it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from onebar.console import progress, say

if TYPE_CHECKING:
    from feature_store.store import FeatureStore
    from onebar.settings import Settings
    from stream.logs import Log

Result = TypeVar("Result")

INTERRUPTED = 130
USAGE = 2
OUR_PACKAGES = {"api", "feature_store", "onebar", "stream"}
USAGE_ERRORS = {"LogNotFoundError", "SimulatorConfigError", "ApiKeyError", "UnsafeBindError"}
"""Errors of ours that the command line itself is to blame for."""

app = typer.Typer(
    name="onebar",
    help="One clickable search bar under every short video, from streams of behaviour.\n\n"
    "Settings are ONEBAR_* variables; see docs/configuration.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dead_letters = typer.Typer(
    help="Messages that could not be processed: list, show, send back.", no_args_is_help=True
)
inspect = typer.Typer(help="What is known of a video or a user.", no_args_is_help=True)
topics = typer.Typer(help="Kafka topics.", no_args_is_help=True)
train = typer.Typer(
    help="Train a generator (needs the extra `torch`: pip install 'onebar[torch]').",
    no_args_is_help=True,
)
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(inspect, name="inspect")
app.add_typer(topics, name="topics")
app.add_typer(train, name="train")


class Format(StrEnum):
    """How a log is written."""

    onebar = "onebar"
    kuaisearch = "kuaisearch"


class Language(StrEnum):
    """What a simulated feed speaks."""

    en = "en"
    zh = "zh"


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
FormatOption = Annotated[Format, typer.Option(help="How the log is written.")]
SpeedOption = Annotated[
    str, typer.Option(help="1 is the pace of the log, 60 sixty times that, max no pause at all.")
]
RunDirOption = Annotated[
    Path | None, typer.Option(help="Where the logs of the processes go.", file_okay=False)
]


# Errors and ends


def main() -> None:
    """Entry point. An error of ours is one line on stderr; only a bug shows a traceback."""
    from pydantic import ValidationError

    try:
        app(prog_name="onebar")
    except ValidationError as error:
        for fault in error.errors():
            variable = "ONEBAR_" + "_".join(map(str, fault["loc"])).upper()
            say(f"onebar: {variable}={fault['input']!r}: {fault['msg']}")
        sys.exit(USAGE)
    except ModuleNotFoundError as error:
        extra = {"torch": "torch", "transformers": "torch", "safetensors": "torch"}.get(
            str(error.name)
        )
        if extra is None:
            raise
        say(f"onebar: {error.name} is not installed: pip install 'onebar[{extra}]'")
        sys.exit(1)
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        say(f"onebar: {told}")
        sys.exit(USAGE if type(error).__name__ in USAGE_ERRORS else 1)


def _told(error: BaseException) -> str | None:
    """What to tell of an error that needs no traceback; None for any other."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return _told(error.exceptions[0])
    if type(error).__module__.split(".")[0] in OUR_PACKAGES:
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _run(work: Coroutine[Any, Any, Result], *, interrupted: int = INTERRUPTED) -> Result:
    """Run to the end. SIGINT, SIGTERM and SIGHUP cancel it: then the exit status is
    `interrupted`."""

    async def guarded() -> Result:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, task.cancel)
        return await work

    try:
        return asyncio.run(guarded())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(interrupted) from None


def _settings(**changes: Any) -> Settings:
    """The settings of the environment, with what the command line changes of them."""
    from onebar.settings import Settings

    return Settings(**{name: value for name, value in changes.items() if value is not None})


def _command_settings(**changes: Any) -> Settings:
    """`_settings`, with log lines for people beside what the command itself says: warnings and
    worse, unless the environment asks for more."""
    from onebar.logs import configure_logging

    settings = _settings(**changes)
    configure_logging("warning" if settings.log_level == "info" else settings.log_level, json=False)
    # What Kafka's client complains of is raised as well, and told in one line.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return settings


def _print(data: object) -> None:
    import msgspec

    print(json.dumps(msgspec.to_builtins(data), ensure_ascii=False), flush=True)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(f"expected a number above 0 or max, got {text!r}")
    return speed


def _open_log(path: Path, format: Format) -> Log:
    if format is Format.kuaisearch:
        from stream.kuaisearch import KuaiSearchLog

        return KuaiSearchLog(path)
    from stream.logs import EventLog

    return EventLog(path)


# The local stack


@app.command()
def demo(
    check: Annotated[
        bool, typer.Option("--check", help="No page: replay, compare, measure, end.")
    ] = False,
    as_json: JsonOption = False,
    log: Annotated[
        Path | None, typer.Option(help="A log to feed instead of a simulated one.")
    ] = None,
    format: FormatOption = Format.onebar,
    lang: Annotated[Language, typer.Option(help="What the simulated feed speaks.")] = Language.en,
    events: Annotated[int, typer.Option(min=1, help="Events to simulate.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another feed.")] = 1,
    speed: SpeedOption = "max",
    rate: Annotated[
        float, typer.Option(min=0, help="Live events a second once the log is in.")
    ] = 20.0,
    port: Annotated[int | None, typer.Option(help="Port of the page.")] = None,
    run_dir: RunDirOption = None,
) -> None:
    """The whole path on this machine: servers, workers, a feed, and a page. Ctrl-C ends it.

    Uses ONEBAR_KAFKA_BOOTSTRAP and ONEBAR_REDIS_URL where they are set, with topics and keys of
    its own; else starts embedded servers (extra `local`).

    With --check there is no page: the log is replayed, the state compared with a clean fold of
    the log, the API asked for a sample; exit status 0 only if all of it is right.

    Example: onebar demo --lang zh

    Example: onebar demo --check --json
    """
    from onebar.local import Demo, new_run_directory

    settings = _command_settings(api_port=port)
    directory = run_dir or new_run_directory()
    directory.mkdir(parents=True, exist_ok=True)
    pace = _speed(speed)
    given = None if log is None else _open_log(log, format)
    the_demo = Demo(
        settings, directory, log=given, lang=lang.value, events=events, seed=seed, say=say
    )
    if not check:
        _run(the_demo.show(speed=pace, rate=rate), interrupted=0)
        return
    report, problems = _run(the_demo.check())
    for problem in problems:
        say(problem)
    if as_json:
        _print(report)
    else:
        for name in report.__struct_fields__:
            print(f"{name:18} {getattr(report, name)}")
    if problems:
        raise typer.Exit(1)


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    run_dir: RunDirOption = None,
) -> None:
    """Servers, stream worker, generator and API on this machine, until Ctrl-C. Feeds nothing.

    Prints the variables that point any other `onebar` command at them.

    Example: onebar up --port 8080
    """
    from onebar.local import new_run_directory, stay_up

    settings = _command_settings(api_port=port)
    directory = run_dir or new_run_directory()
    directory.mkdir(parents=True, exist_ok=True)
    _run(stay_up(settings, directory, say), interrupted=0)


# The workers


@app.command()
def stream() -> None:
    """Fold videos and behaviours from Kafka into Redis, until SIGTERM.

    Example: ONEBAR_KAFKA_BOOTSTRAP=kafka:9092 onebar stream
    """
    from stream.worker import main as run_worker

    raise typer.Exit(run_worker())


@app.command()
def generator() -> None:
    """Generate queries for impressions, into the cache and a topic, until SIGTERM.

    Example: ONEBAR_CHECKPOINT=checkpoints/mine onebar generator
    """
    from stream.generator import main as run_generator

    raise typer.Exit(run_generator())


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Answer HTTP, until SIGTERM.

    Example: onebar api --port 8080
    """
    from api.server import serve

    serve(_settings(api_host=host, api_port=port))


# Logs


@app.command()
def replay(
    log: Annotated[Path, typer.Argument(help="A file (.jsonl, .gz, .zst), or a set's directory.")],
    format: FormatOption = Format.onebar,
    speed: SpeedOption = "max",
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Then wait for the workers, and compare the state with a clean fold."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first line that is no event.")
    ] = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Do not go on where an interrupted run stopped.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="Where to note how far it is [default: beside the log].", dir_okay=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a log's events to Kafka. Interrupted, the same command goes on where it stopped.

    A line that is no event goes to the dead letters and is counted. What is sent again after an
    interruption has the same event ids and counts once.

    --check expects that the namespace holds this log and nothing else. Exit status: 0 all went
    well, 1 the log or the check is bad, 130 interrupted.

    Example: onebar replay clicks.jsonl.gz --speed 60

    Example: onebar replay ../shared/data/kuaisearch_demo --format kuaisearch --check
    """
    settings = _command_settings()
    pace = _speed(speed)
    opened = _open_log(log, format)
    result, differences = _run(_replay(settings, opened, pace, check, strict, from_start, state))
    if as_json:
        _print(result if differences is None else {**result, "differences": differences})
    else:
        print(
            f"{result['events']:,} events sent in {result['seconds']:.1f} s, "
            f"{result['invalid']:,} lines were none, {result['skipped']:,} were sent before"
        )
        if differences is not None:
            print("\n".join(differences) or "state equals the clean fold: no differences")
    if differences:
        raise typer.Exit(1)


async def _replay(
    settings: Settings,
    log: Log,
    speed: float | None,
    check: bool,
    strict: bool,
    from_start: bool,
    state: Path | None,
) -> tuple[dict[str, Any], list[str] | None]:
    import msgspec

    from stream import check as checking
    from stream.offline import OfflineFold
    from stream.producer import EventProducer
    from stream.replay import KafkaSink, Replay, Standing, StateFile, state_path
    from stream.topics import ensure_topics

    await ensure_topics(
        settings.kafka_bootstrap,
        prefix=settings.topic_prefix,
        partitions=settings.partitions,
        replication_factor=settings.replication_factor,
    )
    producer = EventProducer(
        settings.kafka_bootstrap,
        prefix=settings.topic_prefix,
        idempotent=settings.idempotent_producer,
    )
    with progress("replay") as update:

        def show(standing: Standing) -> None:
            update(log.fraction, f"{standing.events:,} events, {standing.invalid:,} invalid")

        file = StateFile(state or state_path(log.path))
        async with producer:
            run = Replay(
                log,
                KafkaSink(producer),
                target=f"{settings.kafka_bootstrap}/{settings.topic_prefix}",
                speed=speed,
                strict=strict,
                state=file,
                from_start=from_start,
                on_progress=show,
            )
            if run.standing.position:
                say(f"going on after {run.standing.number:,} lines ({file.path})")
            try:
                report = await run.run()
            except BaseException:
                done = run.report(complete=False)
                say(
                    f"stopped after {done.events:,} events were delivered in this run"
                    + (f"; run it again to go on ({file.path})" if file.path.exists() else "")
                )
                raise
    result = msgspec.to_builtins(report)
    if not check:
        return result, None
    offline = OfflineFold(settings.policy, future_allowance_s=settings.future_allowance_s)
    await asyncio.to_thread(offline.add_log, log)
    with progress("workers") as update:
        await checking.wait_for_zero_lag(
            settings, generator=False, on_lag=lambda lag: update(0.0, f"{lag:,} to go")
        )
    return result, await checking.differences(settings, offline.state())


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="The log to write; .gz and .zst compress.")],
    events: Annotated[int, typer.Option(min=1, help="How many events.")] = 100_000,
    lang: Annotated[Language, typer.Option(help="What the feed speaks.")] = Language.en,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 1,
    days: Annotated[float, typer.Option(help="Over how many days.")] = 7.0,
    as_json: JsonOption = False,
) -> None:
    """Write the log of a simulated e-commerce feed, and its hidden truth beside it.

    The truth (intent of each video, relevance of each query) is for evaluation only.

    Example: onebar simulate --out feed.jsonl.zst --events 1000000 --lang zh
    """
    from stream.simulator import SimulatorConfig, write_log

    started = time.monotonic()
    with progress("simulate") as update:
        truth = write_log(
            SimulatorConfig(seed=seed, lang=lang.value, events=events, days=days),
            out,
            progress=lambda done: update(done / events, f"{done:,} events"),
        )
    seconds = time.monotonic() - started
    if as_json:
        _print({"log": str(out), "truth": str(truth), "events": events, "seconds": seconds})
    else:
        print(f"{events:,} events in {out}, their truth in {truth} ({seconds:.1f} s)")


# Looking in


@inspect.command("video")
def inspect_video(
    video_id: Annotated[str, typer.Argument(help="The video.")], as_json: JsonOption = False
) -> None:
    """What is known of a video: its text, anchors, counters, cached queries.

    Example: onebar inspect video v42 --json
    """
    found = _run(_video(_command_settings(), video_id))
    if found is None:
        say(f"onebar: nothing is known of video {video_id!r}")
        raise typer.Exit(1)
    _show(found, as_json)


@inspect.command("user")
def inspect_user(
    user_id: Annotated[str, typer.Argument(help="The user.")], as_json: JsonOption = False
) -> None:
    """What is known of a user: the newest queries.

    Example: onebar inspect user u7
    """
    found = _run(_user(_command_settings(), user_id))
    if found is None:
        say(f"onebar: nothing is known of user {user_id!r}")
        raise typer.Exit(1)
    _show(found, as_json)


def _store(settings: Settings) -> FeatureStore:
    from feature_store.client import connect
    from feature_store.keys import Keys
    from feature_store.store import FeatureStore

    return FeatureStore(
        connect(settings.redis_url, timeout_s=settings.redis_timeout_s),
        Keys(settings.namespace, settings.generation),
        settings.policy,
    )


async def _video(settings: Settings, video_id: str) -> dict[str, Any] | None:
    import msgspec

    from feature_store.query_cache import QueryCache

    store = _store(settings)
    cache = QueryCache(
        store.client, store.keys, settings.cache_soft_ttl_s, settings.cache_hard_ttl_s
    )
    try:
        [features] = await store.features([(video_id, None)], max_anchors=settings.max_entries)
        counts = await store.counts(video_id)
        [lookup] = await cache.lookup([(video_id, None)])
    finally:
        await store.close()
    if features.text is None and not features.anchors and not counts:
        return None
    found: dict[str, Any] = msgspec.to_builtins(
        {
            "video_id": video_id,
            "text": features.text,
            "anchors": features.anchors,
            "counts": counts,
            "cached": None if lookup.video is None else lookup.video.result(),
        }
    )
    return found


async def _user(settings: Settings, user_id: str) -> dict[str, Any] | None:
    import msgspec

    store = _store(settings)
    try:
        history = await store.history(user_id)
    finally:
        await store.close()
    if not history:
        return None
    found: dict[str, Any] = msgspec.to_builtins({"user_id": user_id, "history": history})
    return found


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, inner in value.items():
                print(f"  {key}: {inner}")
        elif isinstance(value, list):
            print(f"{name}:")
            for inner in value:
                print("  " + "  ".join(f"{key}={part}" for key, part in inner.items()))
        else:
            print(f"{name}: {value}")


@app.command()
def doctor(
    as_json: JsonOption = False,
    api_url: Annotated[
        str | None, typer.Option("--api", help="An API to ask too, http://HOST:PORT.")
    ] = None,
) -> None:
    """What is reachable, what is wrong, what to do. Exit status 1 when something is wrong.

    Example: onebar doctor --api http://127.0.0.1:8080
    """
    from stream.doctor import examine

    settings = _command_settings()
    findings = _run(examine(settings, api_url))
    if as_json:
        _print(findings)
    else:
        for finding in findings:
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
            print(f"{mark} {finding.name:13} {finding.found}")
            if not finding.ok:
                print(f"     {'':13} → {finding.advice}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


# Topics and dead letters


@topics.command("create")
def topics_create(as_json: JsonOption = False) -> None:
    """Create the topics that are missing, with their settings. Others are left as they are.

    Example: ONEBAR_PARTITIONS=12 ONEBAR_REPLICATION_FACTOR=3 onebar topics create
    """
    from stream.topics import ensure_topics

    settings = _command_settings()
    created = _run(
        ensure_topics(
            settings.kafka_bootstrap,
            prefix=settings.topic_prefix,
            partitions=settings.partitions,
            replication_factor=settings.replication_factor,
        )
    )
    if as_json:
        _print({"created": created})
    else:
        print("created: " + ", ".join(created) if created else "all topics are there")


@dead_letters.command("list")
def dead_letters_list(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """The newest dead letters: where each came from, and why it is one.

    Example: onebar dead-letters list --limit 10
    """
    from stream.dead_letters import read_dead_letters

    letters = _run(read_dead_letters(_command_settings(), limit))
    if as_json:
        _print([_letter(letter, whole=False) for letter in letters])
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
    from stream.dead_letters import read_dead_letters

    for letter in _run(read_dead_letters(_command_settings())):
        if ":".join(map(str, letter.number)) == number:
            found = _letter(letter, whole=True)
            if as_json:
                _print(found)
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
    from stream.dead_letters import replay_dead_letters

    settings = _command_settings()
    sent = _run(replay_dead_letters(settings))
    if as_json:
        _print({"sent": sent})
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


# Training


@train.command("sft")
def train_sft(
    log: Annotated[Path, typer.Argument(help="The log of events to learn from.")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    format: FormatOption = Format.onebar,
    preset: Annotated[str, typer.Option(help="Size of the model.")] = "demo",
    init: Annotated[Path | None, typer.Option(help="A checkpoint to go on from.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Most steps.")] = 2000,
    minutes: Annotated[float | None, typer.Option(help="Most minutes.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a step.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
) -> None:
    """Stage 1: supervised training on the clicks of a log. Interrupted, it goes on.

    Example: onebar train sft feed.jsonl.zst --out checkpoints/mine --minutes 30
    """
    from onebar.logs import configure_logging
    from onebar.training.dataset import write_examples
    from onebar.training.sft import SFTConfig
    from onebar.training.sft import train_sft as run_training
    from stream.examples import examples

    settings = _settings()
    configure_logging(settings.log_level, json=False)
    opened = _open_log(log, format)
    events = (entry.event for entry in opened.entries() if entry.event is not None)
    file = out.parent / f".{out.name}.examples.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    count = write_examples(examples(events, searches=True), file)
    say(f"{count:,} examples from {log}")
    config = SFTConfig(
        examples=file,
        out=out,
        preset=preset,
        init=init,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        seed=seed,
        facts={"log": {"source": str(log), "format": format.value}},
    )
    try:
        print(run_training(config))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    file.unlink(missing_ok=True)


@train.command("demo")
def train_demo(
    out: Annotated[
        Path | None,
        typer.Option(help="The checkpoint directory to write; the shipped one if not given."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 30.0,
    events: Annotated[int, typer.Option(min=1, help="Simulated events a language.")] = 1_000_000,
) -> None:
    """The small checkpoint of the demo, from simulated logs in English and Chinese.

    Example: onebar train demo --out checkpoints/demo --minutes 20
    """
    from onebar.checkpoint import SHIPPED
    from onebar.logs import configure_logging
    from stream.demo_checkpoint import build_demo_checkpoint

    configure_logging(_settings().log_level, json=False)
    try:
        print(build_demo_checkpoint(out or SHIPPED, minutes=minutes, events=events))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def version(as_json: JsonOption = False) -> None:
    """The version of OneBar and of what it runs on.

    Example: onebar version --json
    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    found = {"onebar": of("onebar"), "python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("faust-streaming", "aiokafka", "redis", "ctranslate2", "granian", "torch"):
        try:
            found[package] = of(package)
        except PackageNotFoundError:
            continue
    if as_json:
        _print(found)
    else:
        for name, value in found.items():
            print(f"{name:16} {value}")


if __name__ == "__main__":
    main()
