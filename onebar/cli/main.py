"""The command line. Every command says what it does, with an example; heavy imports wait for it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from onebar import __version__
from onebar.cli import (
    archive,
    bench,
    dataset,
    dead_letters,
    inspect,
    models,
    rebuild,
    stack,
    summarize,
    teach,
)
from onebar.cli.common import USAGE, JsonOption, print_json
from onebar.cli.evaluation import embed, evaluate
from onebar.cli.gating import repertoire, rules
from onebar.cli.logs import map_topic, replay, simulate
from onebar.cli.sections import Sections
from onebar.cli.training import train
from onebar.errors import OneBarError, UsageError
from onebar.process.console import say
from onebar.process.extras import how_to_install

EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "safetensors"), "torch"),
    **dict.fromkeys(("accelerate", "tensorboard"), "train"),
    **dict.fromkeys(("ibis", "duckdb"), "dataset"),
    **dict.fromkeys(("sklearn", "sacrebleu", "rapidfuzz"), "evaluate"),
    "pyarrow": "archive",
    "sentence_transformers": "embed",
    **dict.fromkeys(("av", "PIL"), "summarize"),
    "xllamacpp": "teach",
}
"""What to install where a module is missing."""
WHOLE = ("train", "summarize")
"""Commands with an extra of their own name, which has all that they need one after the other."""

app = typer.Typer(
    name="onebar",
    help="One clickable search bar under every short video, from streams of behaviour.\n\n"
    "Settings are ONEBAR_* variables; see docs/configuration.md.",
    cls=Sections,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(stack.app)
app.add_typer(map_topic.app)
app.add_typer(replay.app)
app.add_typer(simulate.app)
app.add_typer(archive.app)
app.add_typer(dataset.app)
app.add_typer(evaluate.app)
app.add_typer(inspect.app)
app.add_typer(summarize.app)
app.add_typer(teach.app)
app.add_typer(dead_letters.dead_letters, name="dead-letters")
app.add_typer(train.train, name="train")
app.add_typer(embed.embed, name="embed")
app.add_typer(models.models, name="models")
app.add_typer(rules.rules, name="rules")
app.add_typer(rebuild.rebuild, name="rebuild")
app.add_typer(repertoire.repertoire, name="repertoire")
app.add_typer(bench.bench, name="bench")


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What holds for every command; what it is for stands above."""


@app.command()
def version(as_json: JsonOption = False) -> None:
    """The version of OneBar and of what it runs on.

    Example: onebar version --json
    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    found = {"onebar": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("faust-streaming", "aiokafka", "redis", "ctranslate2", "granian", "torch"):
        try:
            found[package] = of(package)
        except PackageNotFoundError:
            continue
    if as_json:
        print_json(found)
    else:
        for name, value in found.items():
            print(f"{name:16} {value}")


def main() -> None:
    """Entry point. An error of ours is one line on stderr; only a bug shows a traceback."""
    try:
        app(prog_name="onebar")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        extra = next((name for name in sys.argv[1:2] if name in WHOLE), extra)
        say(f"onebar: {error.name} is not installed: {how_to_install(extra)}")
        sys.exit(1)
    except Exception as error:
        if _say_faults_of_settings(error):
            sys.exit(USAGE)
        told = _told(error)
        if told is None:
            raise
        say(f"onebar: {told}")
        sys.exit(USAGE if isinstance(error, UsageError) else 1)


def _say_faults_of_settings(error: Exception) -> bool:
    """Whether this is pydantic's error about settings; each fault has been told then."""
    if "pydantic_core" not in sys.modules:  # it takes longer to load than `--help` may
        return False
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return False
    from onebar.settings import Settings, is_secret

    for fault in error.errors(include_url=False):
        name = "_".join(map(str, fault["loc"]))
        if not name:
            say(f"onebar: {fault['msg'].removeprefix('Value error, ')}")
        elif name not in Settings.model_fields or is_secret(name):
            say(f"onebar: ONEBAR_{name.upper()}: {fault['msg']}")
        else:
            given = str(fault["input"]).rpartition("@")[2]
            say(f"onebar: ONEBAR_{name.upper()}={given!r}: {fault['msg']}")
    return True


def _told(error: BaseException) -> str | None:
    """What to tell of an error that needs no traceback; None for any other."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return _told(error.exceptions[0])
    if isinstance(error, OneBarError):
        return str(error)
    if isinstance(error, OSError):
        return str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
    return None
