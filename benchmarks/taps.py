"""What a click ranker is worth: docs/taps.md.

    python benchmarks/taps.py                     # half an hour on a core
    python benchmarks/taps.py --limit 15000 --most 18000

The simulated world of docs/results.md; candidates of one checkpoint (the shipped one, or `--init`),
in four orders: the beam's own, the shipped ranker's, and those of click rankers grown with several
seeds; and the cascade beside them. Work lies in `--work`; what is there is not done again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
from experiments import SIMULATOR
from report import BASELINES, TAPPED, Differences, baselines, differences, table
from sources import dataset_of, make_simulated, relevance_of, taps_of, test_triggers

from onebar.evaluation.evaluate import propensities
from onebar.evaluation.metrics import Measured, mean_of, summary
from onebar.evaluation.outcomes import Outcomes, measure
from onebar.evaluation.predict import BATCH, Prediction, material_of
from onebar.evidence.prompt import build_prompt
from onebar.generator.checkpoint import SHIPPED, Checkpoint, open_checkpoint
from onebar.generator.load import load_engine
from onebar.learning.clicks import ClicksConfig, train_clicks
from onebar.process.console import Update, progress
from onebar.recommending.candidates import choose
from onebar.recommending.loading import open_taste
from onebar.recommending.material import told
from onebar.recommending.pool import Taste
from onebar.records import Candidate
from onebar.triggers import Trigger
from stream.simulator.taps import examined

BEAM = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path(".cache/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/taps.md"))
    parser.add_argument("--init", type=Path, default=SHIPPED, help="whose candidates are ordered")
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the log")
    parser.add_argument("--days", type=float, default=7.0, help="over how many days")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=2_000, help="most impressions to learn from")
    parser.add_argument("--limit", type=int, default=1_500, help="most triggers to measure on")
    options = parser.parse_args()
    work: Path = options.work
    make_simulated(work, options.events, options.days)
    checkpoint = open_checkpoint(options.init)
    rankers = [grow(work, checkpoint, seed, options.most) for seed in range(options.seeds)]
    triggers = test_triggers(work, SIMULATOR, options.limit)
    looked = propensities(dataset_of(work, SIMULATOR), "test")
    known = baselines(work, SIMULATOR, triggers, looked)
    rows = measured(work, checkpoint, rankers, triggers, looked)
    costs = {path.stem: path.read_text("ascii").strip() for path in places_of(work).glob("*.ms")}
    page = write(options.out, known, rows, rankers, looked, costs, said(options))
    print(page)


def places_of(work: Path) -> Path:
    """Where outcomes lie."""
    return work / "taps" / "outcomes"


def said(options: argparse.Namespace) -> str:
    """The command as anybody could give it."""
    names = ("events", "days", "seeds", "most", "limit")
    given = [(name, getattr(options, name)) for name in names if getattr(options, name)]
    return " ".join(["python benchmarks/taps.py", *(f"--{name} {value}" for name, value in given)])


def grow(work: Path, checkpoint: Checkpoint, seed: int, most: int | None) -> Path:
    """The checkpoint with a click ranker of this seed; the rows are made once for all seeds."""
    out = work / "taps" / f"{checkpoint.name}-{seed}"
    if out.is_dir():
        return out
    config = ClicksConfig(
        dataset=dataset_of(work, SIMULATOR).path,
        checkpoint=checkpoint.path,
        out=out,
        beam=BEAM,
        most=most,
        seed=seed,
        rows=work / "taps" / f"{checkpoint.name}.rows",
    )
    with progress(f"click ranker, seed {seed}") as update:
        return train_clicks(config, lambda phase, share, text: update(share, f"{phase} {text}"))


class Ordered:
    """Candidates that were generated before, in the order that a taste gives them."""

    def __init__(self, name: str, beams: dict[str, list[Candidate]], taste: Taste | None) -> None:
        self.name = name
        self.ms: list[float] = []
        self._beams, self._taste = beams, taste

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        return [self._one(trigger, k) for trigger in triggers]

    def _one(self, trigger: Trigger, k: int) -> Prediction:
        beam = self._beams[trigger.trigger_id]
        if self._taste is None:
            rejected = bool(beam) and beam[0].text.strip() == "[REJECT]"
            texts = tuple(one.text for one in beam if one.text.strip() != "[REJECT]")
            return Prediction(() if rejected else texts[:k], rejected)
        scored = self._taste.scorer is not None
        made = material_of(trigger) if scored else told(trigger.evidence)
        started = time.thread_time()
        chosen = choose(made, beam, k, self._taste)
        self.ms.append(1e3 * (time.thread_time() - started))
        return Prediction(tuple(one.text for one in chosen.queries), chosen.rejected)


def generate(
    checkpoint: Checkpoint, triggers: Sequence[Trigger], path: Path, update: Update
) -> dict[str, list[Candidate]]:
    """The beam of each trigger, read where it was made before."""
    kind = dict[str, list[Candidate]]
    found = msgspec.msgpack.decode(path.read_bytes(), type=kind) if path.is_file() else {}
    left = [trigger for trigger in triggers if trigger.trigger_id not in found]
    if not left:
        return found
    engine = load_engine(checkpoint, beam_size=BEAM)
    try:
        for at in range(0, len(left), BATCH):
            update(at / len(left), f"{at:,} of {len(left):,}")
            chunk = left[at : at + BATCH]
            prompts = [build_prompt(one.evidence, checkpoint.card.prompt) for one in chunk]
            for trigger, beam in zip(chunk, engine.generate(prompts, BEAM), strict=True):
                found[trigger.trigger_id] = beam
            path.write_bytes(msgspec.msgpack.encode(found))
    finally:
        engine.close()
    return found


def measured(
    work: Path,
    checkpoint: Checkpoint,
    rankers: Sequence[Path],
    triggers: Sequence[Trigger],
    looked: Sequence[float],
) -> dict[str, list[Outcomes]]:
    """The outcomes of each order, a seed each of the click rankers."""
    places = places_of(work)
    places.mkdir(parents=True, exist_ok=True)
    with progress("generating") as update:
        beams = generate(checkpoint, triggers, places / f"{checkpoint.name}.beams", update)
    shipped = open_taste(checkpoint)
    orders: list[tuple[str, int, Taste | None]] = [
        ("generator", 0, None),
        ("generator + shipped ranker", 0, shipped),
        *(("+ click ranker", seed, open_taste(open_checkpoint(path)))
          for seed, path in enumerate(rankers)),
    ]  # fmt: skip
    found: dict[str, list[Outcomes]] = {}
    for name, seed, taste in orders:
        path = places / f"{name.replace(' ', '-')}-{seed}"
        if path.with_name(path.name + ".json").exists():
            found.setdefault(name, []).append(Outcomes.load(path))
            continue
        ordered = Ordered(name, beams, taste)
        with progress(f"{name}, seed {seed}") as update:
            outcomes = measure(
                ordered,
                triggers,
                relevance=relevance_of(work, SIMULATOR),
                taps=taps_of(work),
                propensity=looked,
                progress=lambda done, of, update=update: update(done / of, ""),  # type: ignore[misc]
            )
        outcomes.save(path)
        if ordered.ms:
            cost = path.with_name(path.name + ".ms")
            busy = f"load {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores"
            cost.write_text(f"{median(ordered.ms):.2f} ms ({busy})\n", encoding="ascii")
        found.setdefault(name, []).append(outcomes)
    return found


def write(
    out: Path,
    known: dict[str, Outcomes],
    rows: dict[str, list[Outcomes]],
    rankers: Sequence[Path],
    looked: Sequence[float],
    costs: dict[str, str],
    command: str,
) -> Path:
    everything: dict[str, Measured] = {name: known[name] for name in BASELINES[SIMULATOR]}
    everything |= {name: mean_of(each) for name, each in rows.items()}
    first = known["cascade"]
    card = open_checkpoint(rankers[0]).card
    facts = card.training["clicks"]
    learned: Differences = [("+ click ranker", name) for name in
                            ("cascade", "generator", "generator + shipped ranker")]  # fmt: skip
    learned.append(("generator + shipped ranker", "cascade"))
    gain = ", ".join(f"`{name}` {share:.0%}" for name, share in list(facts["gain"].items())[:8])
    truth = [examined(at) for at in range(len(looked))]
    lines = [
        "# What a click ranker is worth",
        "",
        f"Written by `{command}`; nothing here was typed in by hand. The simulated world of "
        "[results.md](results.md) (seed 1, English). Candidates are those of the checkpoint "
        f"`{card.training['parent']}`; the click ranker (`onebar train clicks`, "
        "[training.md](training.md#what-people-tap)) has learned from "
        f"{facts['impressions']:,} bars of the valid part, {facts['taps']:,} of them tapped, and "
        f"chooses from {facts['settings_of_run']['beam']} candidates of the generator, "
        f"{facts['book']:,} known queries, anchors, history and text. Measured on "
        f"{int(first.has_target.sum()):,} clicks and {int(first.is_reject.sum()):,} rejects of the "
        f"test part. Intervals are 95 %, from a bootstrap over users and over "
        f"{len(rankers)} seeds of the ranker; the generator is one.",
        "",
        *table([(name, summary(each)) for name, each in everything.items()], TAPPED),
        "",
        "`true_tap` is how likely the first query, or any of the bar, is tapped by the simulator's "
        "hidden truth, by a user whom the video interests. `oracle` knows it. `ips_taps` is what "
        "the log alone says of it: logged taps on these queries, by how likely their places are "
        "looked at, a tapped bar.",
        "",
        f"Putting a list in order cost {costs.get('+-click-ranker-0', '–')} of processor time "
        f"in the median, {costs.get('generator-+-shipped-ranker-0', '–')} with the shipped ranker: "
        "candidates put together, described and chosen from, without the generation. Where more "
        "runs than there are cores (the load), a list takes more of a processor's time.",
        "",
        "## Differences",
        "",
        *differences(everything, learned, TAPPED),
        "",
        "## Where people look",
        "",
        "Estimated from the log: what stood now at one place and now at the next, up to the tap.",
        "",
        "| place | " + " | ".join(str(at + 1) for at in range(len(looked))) + " |",
        "|---|" + "---|" * len(looked),
        "| estimated | " + " | ".join(f"{e:.2f}" for e in looked) + " |",
        "| the simulator's | " + " | ".join(f"{e:.2f}" for e in truth) + " |",
        "",
        "## What it goes by",
        "",
        f"{facts['trees']} trees; the share of the gain by feature: {gain}. Held-out bars of the "
        f"valid part: {told_of(facts['held_out'])}.",
    ]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def told_of(held_out: dict[str, float]) -> str:
    """The held-out figures in words."""
    return (
        f"HR@8 {held_out['hr@8']:.3f} where {held_out['reached']:.3f} of the clicks were among "
        f"the candidates, {held_out['before hr@8']:.3f} in the order of the shipped ranker"
    )


if __name__ == "__main__":
    main()
