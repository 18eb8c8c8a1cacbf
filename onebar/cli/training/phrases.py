"""A checkpoint that orders its candidates as people ask, learned without an impression log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onebar.cli.common import JsonOption, read_settings
from onebar.cli.training.learned import learn


def phrases(
    dataset: Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")],
    init: Annotated[
        Path,
        typer.Option(help="The checkpoint whose candidates are put in order, or `shipped`."),
    ],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    beam: Annotated[int, typer.Option(min=1, max=64, help="Candidates of the generator.")] = 8,
    most: Annotated[
        int, typer.Option(min=200, help="Most texts to learn from, evenly from all.")
    ] = 20_000,
    any_shape: Annotated[
        bool,
        typer.Option(
            help="Take spans of any shape for candidates, as for people who type questions."
        ),
    ] = True,
    threads: Annotated[int, typer.Option(min=1, help="Prompts decoded side by side.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """What in a text people ask for, learned from texts with their queries: no impression log is
    needed.

    Which words and spans, from the dataset's train part; what the generator's word counts beside
    them, from its valid part. The checkpoint is written anew with a ranker of its own in it, and
    with the words of the dataset in its lexicon. Interrupted, the same command goes on.

    Example: onebar train phrases data/march --init checkpoints/sft --out checkpoints/phrases
    """
    from onebar.learning.pairs import PhrasesConfig, train_phrases
    from onebar.process.logging import configure_logging

    config = PhrasesConfig(
        dataset=dataset,
        checkpoint=init,
        out=out,
        beam=beam,
        most=most,
        any_shape=any_shape,
        threads=threads,
    )
    configure_logging(read_settings().log_level, json=False)
    learn("phrases", lambda told: train_phrases(config, told), as_json)
