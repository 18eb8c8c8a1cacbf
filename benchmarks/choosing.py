"""Settings of each stage, compared on the valid part: what those of docs/results.md were chosen by.

    python benchmarks/choosing.py listwise             # all candidates of the stage
    python benchmarks/choosing.py reinforce fast slow  # these

Each candidate (`experiments.CANDIDATES`) goes on from seed 0's checkpoint that the stage goes on
from, and is measured on clicks of the valid part that no click ranker has learned from. The test
part is not read. What is there already is not done again. Work lies in `--work`, that of
`benchmarks/results.py`, which must have made the checkpoint before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments import BEFORE, BY_NAME, CANDIDATES, IMPRESSIONS, SIMULATOR, START
from layout import checkpoint_of, chosen_of, dataset_directory, outcomes_beside
from report import CHOOSING, table
from runs import REWARDED_BY, measure_run, train_run
from sources import dataset_of, thinned

from onebar.evaluation.metrics import compare, summary
from onebar.evaluation.outcomes import Outcomes
from onebar.generator.checkpoint import CARD
from onebar.learning.clicks import ClicksConfig, impressions, some_of
from onebar.process.logging import configure_logging
from onebar.triggers import Trigger

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=list(CANDIDATES))
    parser.add_argument("names", nargs="*", help="of candidates; all of the stage's without")
    parser.add_argument("--work", type=Path, default=Path(".cache/results"))
    parser.add_argument("--limit", type=int, default=1_500, help="most triggers to measure on")
    parser.add_argument("--preset", default="mini")
    options = parser.parse_args()
    configure_logging("info", json=False)
    work, stage = options.work, options.stage
    start = BY_NAME[stage].start
    assert start is not None
    ranker = BY_NAME[stage].rewarded_by
    rewarded = {} if ranker is None else {REWARDED_BY: str(checkpoint_of(work, ranker, SEED))}
    triggers = unlearned(work, options.limit)
    known = {START: measured(work, stage, START, checkpoint_of(work, start, SEED), triggers)}
    for name in options.names or CANDIDATES[stage]:
        path = chosen_of(work, stage, name)
        if not (path / CARD).is_file():
            changes = dict(CANDIDATES[stage][name])
            train_run(
                changes.pop("stage", stage),
                {
                    **BEFORE[stage],
                    **changes,
                    "dataset": str(dataset_directory(work, SIMULATOR)),
                    "init": str(checkpoint_of(work, start, SEED)),
                    **rewarded,
                    "out": str(path),
                    "preset": options.preset,
                    "seed": SEED,
                    "threads": 1,
                    "device": "cpu",
                    "progress": False,
                },
            )
        known[name] = measured(work, stage, name, path, triggers)
        print(
            "\n".join(table([(name, compare(known[START], known[name]))], CHOOSING, signed=True)),
            flush=True,
        )
    print("\n".join(table([(name, summary(found)) for name, found in known.items()], CHOOSING)))


def unlearned(work: Path, limit: int) -> list[Trigger]:
    """Clicks and rejects of the valid part, without those that a click ranker learns from."""
    dataset = dataset_of(work, SIMULATOR)
    config = ClicksConfig(dataset=dataset.path, checkpoint=work, out=work, most=IMPRESSIONS)
    learned, _ = some_of(impressions(dataset, config), config.most)
    known = {trigger.trigger_id for trigger in learned}
    every = dataset.read("valid", ("click", "reject"))
    return thinned([trigger for trigger in every if trigger.trigger_id not in known], limit)


def measured(
    work: Path, stage: str, name: str, checkpoint: Path, triggers: list[Trigger]
) -> Outcomes:
    """The candidate's outcomes on the valid part, in the generator's own order."""
    path = outcomes_beside(chosen_of(work, stage, name))
    if path.with_suffix(".json").exists():
        return Outcomes.load(path)
    found = measure_run(
        checkpoint,
        triggers,
        work,
        SIMULATOR,
        name=name,
        beams=path.with_suffix(".msgpack"),
        ranked=False,
        split="valid",
    )
    found.save(path)
    return found


if __name__ == "__main__":
    main()
