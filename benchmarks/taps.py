"""What a click ranker is worth: docs/taps.md.

    python benchmarks/taps.py                     # half an hour on a core
    python benchmarks/taps.py --limit 15000 --most 18000
    python benchmarks/taps.py --neighbors 1000    # and what near videos' anchors add, on so many

The simulated world of docs/results.md; candidates of one checkpoint (the shipped one, or `--init`),
in four orders: the beam's own, the shipped ranker's, and those of click rankers grown with several
seeds; and the cascade beside them. Work lies in `--work`; what is there is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from anchors import EMBED_STEPS, STAGES, train_embedder
from experiments import SIMULATOR
from numpy.typing import NDArray
from report import BASELINES, TAPPED, Differences, baselines, differences, table
from sources import (
    dataset_of,
    make_simulated,
    propensity_of,
    relevance_of,
    taps_of,
    test_triggers,
    thinned,
)

from onebar.embedding.encoder import load_encoder
from onebar.embedding.enrich import Past, merged
from onebar.embedding.neighbors import NeighborConfig
from onebar.evaluation.metrics import Measured, Runs, compare, mean_of, summary
from onebar.evaluation.outcomes import Outcomes, measure
from onebar.evaluation.predict import BATCH, Prediction, material_of, prompt_of
from onebar.evaluation.slices import slices
from onebar.evidence.prompt import PromptConfig
from onebar.generator.checkpoint import SHIPPED, Checkpoint, open_checkpoint
from onebar.generator.load import load_engine
from onebar.learning.clicks import ClicksConfig, impressions, some_of, train_clicks
from onebar.process.console import Update, progress
from onebar.recommending.candidates import choose
from onebar.recommending.loading import open_taste
from onebar.recommending.material import MAX_ANCHORS, told
from onebar.recommending.pool import Taste
from onebar.records import Candidate
from onebar.triggers import SPLITS, Split, Trigger, open_dataset, write_dataset
from stream.simulator.taps import examined

BEAM = 8
LEARNED = "+ click ranker"
UNLEARNED = "+ click ranker as it was, near anchors"
AS_SOURCE = "+ click ranker, near anchors"
IN_PROMPT = "+ click ranker, near anchors also in A"
NEAR_ENOUGH = 0.3
"""The least similarity of a near anchor, as `onebar embed calibrate` found it (docs/anchors.md)."""
EMBEDDER = STAGES[0]
"""The stage that is measured; the clicked query is a tenth more often among the anchors of the last
one (docs/anchors.md), which takes several times as long to train."""
VIDEOS = ("cold video", "tail video", "head video")
NEAR_COLUMNS = ("hr@1", "hr@8", "true_tap@1", "true_tap@8", "ips_taps@8")


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
    parser.add_argument(
        "--neighbors", type=int, default=0, help="most triggers to measure near videos' anchors on"
    )
    options = parser.parse_args()
    work: Path = options.work
    make_simulated(work, options.events, options.days)
    checkpoint = open_checkpoint(options.init)
    rankers = [
        grow(config_of(work, checkpoint, seed, options.most)) for seed in range(options.seeds)
    ]
    triggers = test_triggers(work, SIMULATOR, options.limit)
    looked = propensity_of(work)
    known = baselines(work, SIMULATOR, triggers, looked)
    rows = measured(work, checkpoint, rankers, triggers, looked)
    beside = neighbors(work, checkpoint, rankers, rows[LEARNED], triggers, looked, options)
    costs = {path.stem: path.read_text("ascii").strip() for path in places_of(work).glob("*.ms")}
    page = write(options.out, known, rows, rankers, looked, costs, said(options))
    with page.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in beside)
    print(page)


def places_of(work: Path) -> Path:
    """Where outcomes lie."""
    return work / "taps" / "outcomes"


def said(options: argparse.Namespace) -> str:
    """The command as anybody could give it."""
    names = ("events", "days", "seeds", "most", "limit", "neighbors")
    given = [(name, getattr(options, name)) for name in names if getattr(options, name)]
    return " ".join(["python benchmarks/taps.py", *(f"--{name} {value}" for name, value in given)])


def config_of(
    work: Path, checkpoint: Checkpoint, seed: int, most: int | None, near: Path | None = None
) -> ClicksConfig:
    """How a click ranker is grown; `near` is the dataset with near videos' anchors."""
    name = f"{'near-' if near else ''}{checkpoint.name}"
    return ClicksConfig(
        dataset=near or dataset_of(work, SIMULATOR).path,
        checkpoint=checkpoint.path,
        out=work / "taps" / f"{name}-{seed}",
        beam=BEAM,
        most=most,
        seed=seed,
        rows=work / "taps" / f"{name}.rows",
    )


def grow(config: ClicksConfig) -> Path:
    """The checkpoint with a click ranker of this seed; the rows are made once for all seeds."""
    if config.out.is_dir():
        return config.out
    seed = config.seed
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
    checkpoint: Checkpoint,
    triggers: Sequence[Trigger],
    path: Path,
    update: Update,
    prompt: PromptConfig | None = None,
) -> dict[str, list[Candidate]]:
    """The beam of each trigger, read where it was made before; from the checkpoint's own form of
    the prompt, or another."""
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
            prompts = [prompt_of(one, prompt or checkpoint.card.prompt) for one in chunk]
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
        *((LEARNED, seed, open_taste(open_checkpoint(path)))
          for seed, path in enumerate(rankers)),
    ]  # fmt: skip
    found: dict[str, list[Outcomes]] = {}
    for name, seed, taste in orders:
        ordered = Ordered(name, beams, taste)
        found.setdefault(name, []).append(outcomes_of(work, ordered, seed, triggers, looked))
    return found


def outcomes_of(
    work: Path,
    ordered: Ordered,
    seed: int,
    triggers: Sequence[Trigger],
    looked: Sequence[float],
) -> Outcomes:
    """The outcomes of one order, read where they were measured before."""
    path = places_of(work) / f"{ordered.name.replace(' ', '-')}-{seed}"
    if path.with_name(path.name + ".json").exists():
        return Outcomes.load(path)
    with progress(f"{ordered.name}, seed {seed}") as update:
        outcomes = measure(
            ordered,
            triggers,
            relevance=relevance_of(work, SIMULATOR),
            taps=taps_of(work),
            propensity=looked,
            progress=lambda done, of: update(done / of, ""),
        )
    outcomes.save(path)
    if ordered.ms:
        busy = f"load {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores"
        cost = path.with_name(path.name + ".ms")
        cost.write_text(f"{median(ordered.ms):.2f} ms ({busy})\n", encoding="ascii")
    return outcomes


def near_dataset(work: Path, triggers: Sequence[Trigger], config: ClicksConfig) -> Path:
    """These triggers of the test part, and the parts before it, as the embedder that was trained
    on what came before has them: behind a trigger's own anchors those of near videos and of the
    log, wherever it is learned from or measured on."""
    out = work / "taps" / f"near-{config.most}-{len(triggers)}"
    if out.is_dir():
        return out
    encoder = load_encoder(train_embedder(work, EMBED_STEPS, EMBEDDER) / EMBEDDER)
    plain = dataset_of(work, SIMULATOR)
    bars, _ = some_of(impressions(plain, config), config.most)
    measured = {trigger.trigger_id for trigger in triggers}
    wanted = measured | {trigger.trigger_id for trigger in bars}
    settings = NeighborConfig(threshold=NEAR_ENOUGH)
    past = Past(encoder, settings.nearest, settings.queries)

    def enriched(split: Split) -> Iterator[Trigger]:
        rows = plain.read(split, ("click", "search", "reject") if split == "test" else ())
        for each in past.follow(rows, lambda one: one.trigger_id in wanted):
            if split != "test" or each.trigger.trigger_id in measured:
                yield merged(each, settings, MAX_ANCHORS)

    card = msgspec.structs.replace(plain.card, neighbors=True)
    return write_dataset(out, {split: enriched(split) for split in SPLITS}, card=card).path


def neighbors(
    work: Path,
    checkpoint: Checkpoint,
    rankers: Sequence[Path],
    own: Sequence[Outcomes],
    triggers: Sequence[Trigger],
    looked: Sequence[float],
    options: argparse.Namespace,
) -> list[str]:
    """What near videos' anchors add to the click rankers' lists, as lines of the page."""
    if not options.neighbors:
        return []
    few = thinned(list(triggers), options.neighbors)
    config = config_of(work, checkpoint, 0, options.most)
    near = near_dataset(work, few, config)
    given = {trigger.trigger_id: trigger for trigger in open_dataset(near).read("test")}
    new = [given[trigger.trigger_id] for trigger in few]
    kept = np.isin(own[0].trigger_id, list(given))
    found: dict[str, list[Outcomes]] = {LEARNED: [part_of(one, kept) for one in own]}
    grown = list(rankers)
    for name, reads in ((UNLEARNED, False), (AS_SOURCE, False), (IN_PROMPT, True)):
        if name == AS_SOURCE:
            configs = (config_of(work, checkpoint, seed, options.most, near)
                       for seed in range(len(rankers)))  # fmt: skip
            grown = [grow(each) for each in configs]
        prompt = msgspec.structs.replace(checkpoint.card.prompt, neighbors=reads)
        path = places_of(work) / f"{'near-' if reads else ''}{checkpoint.name}.beams"
        with progress("generating") as update:
            beams = generate(checkpoint, new, path, update, prompt)
        tastes = [open_taste(open_checkpoint(one)) for one in grown]
        found[name] = [
            outcomes_of(work, Ordered(name, beams, taste), seed, new, looked)
            for seed, taste in enumerate(tastes)
        ]
    return near_lines(
        {name: mean_of(each) for name, each in found.items()}, rankers, grown, few, said(options)
    )


def part_of(outcomes: Outcomes, kept: NDArray[np.bool_]) -> Outcomes:
    """Some of the rows, with their users counted as where only they were measured: paired
    differences go by that."""
    columns: dict[str, Any] = {
        name: column[kept]
        for name, column in vars(outcomes).items()
        if isinstance(column, np.ndarray)
    }
    seen: dict[int, int] = {}
    columns["user"] = np.array(
        [seen.setdefault(one, len(seen)) for one in columns["user"].tolist()]
    )
    return dataclasses.replace(outcomes, **columns, slices={})


def near_lines(
    found: dict[str, Runs],
    rankers: Sequence[Path],
    grown: Sequence[Path],
    triggers: Sequence[Trigger],
    command: str,
) -> list[str]:
    """The section about near videos' anchors."""
    reached = [
        np.mean([open_checkpoint(path).card.training["clicks"]["held_out"]["reached"]
                 for path in paths])
        for paths in (rankers, grown)
    ]  # fmt: skip
    first = found[LEARNED].runs[0]
    parts = {name: mask for name, mask in slices(triggers).items() if name in VIDEOS}
    lines = [
        "",
        "## With near videos' anchors",
        "",
        f"Measured by `{command}`. An embedder of {EMBED_STEPS} steps, trained on what came before "
        "the test part, gives a video the anchors of near videos and near queries of the log, "
        f"behind its own ([embedding.md](embedding.md)), at most {MAX_ANCHORS} in all (stage "
        f"`{EMBEDDER}`). `{UNLEARNED}` has them as candidates of rankers that were grown without: "
        "what `onebar neighbors` does to a checkpoint that knows none. "
        f"For `{AS_SOURCE}` rankers were grown anew on the same bars with them (the embedder has "
        f"learned from these bars as well, so what it finds fits them better than any to come); "
        f"`{IN_PROMPT}` gives them to the generator to read as well. Among the candidates "
        f"of the held-out bars were {reached[1]:.3f} of the clicks, {reached[0]:.3f} without. "
        f"Measured on {int(first.has_target.sum()):,} clicks and "
        f"{int(first.is_reject.sum()):,} rejects, evenly from those above; seeds of the ranker: "
        f"{len(grown)}.",
        "",
        *table([(name, summary(each)) for name, each in found.items()], TAPPED),
    ]
    everyone = np.ones(len(triggers), dtype=np.bool_)
    for name in (UNLEARNED, AS_SOURCE, IN_PROMPT):
        lines += ["", f"`{name}` less `{LEARNED}`, by how well the video was known:", ""]
        lines += ["| | clicks | " + " | ".join(NEAR_COLUMNS) + " |"]
        lines += ["|---|---|" + "---|" * len(NEAR_COLUMNS)]
        for part, mask in {"all": everyone, **parts}.items():
            gain = compare(found[LEARNED], found[name], mask)
            cells = [f"{g.value:+.4f} [{g.low:+.4f}, {g.high:+.4f}]"
                     for g in map(gain.__getitem__, NEAR_COLUMNS)]  # fmt: skip
            many = int((first.has_target & mask).sum())
            lines.append(f"| {part} | {many:,} | " + " | ".join(cells) + " |")
    return [*lines, "", "Cold videos had no search, tap or engagement before; the head is the "
            "better known half of the others. Intervals are 95 % and not corrected."]  # fmt: skip


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
