"""Real Chinese text: QBQTC's page titles and the web-search queries that led to them, as a dataset.

    python benchmarks/qbqtc.py qbqtc_dev.json --out /tmp/qbqtc      # then train and evaluate on it
    onebar train sft /tmp/qbqtc --init shipped --out /tmp/qbqtc-sft --batch-size 16 \\
        --learning-rate 4e-4 --steps 1600 --set pointing=0.5 --set dropout=0.05
    onebar train phrases /tmp/qbqtc --init /tmp/qbqtc-sft --out /tmp/qbqtc-trained
    onebar evaluate shipped /tmp/qbqtc-trained --dataset /tmp/qbqtc --baselines

Pairs with label 1 or 2 become click triggers: T is the title, the target the query. Titles and
queries repeat, so pairs that share either stay on the same side of the split. `category` says which
titles look like pages of videos or of shops, by keyword. The data (CLUE benchmark) carries no
licence: it is read from where it lies and nothing made of it belongs into a repository.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from onebar.evidence.evidence import video_line
from onebar.evidence.text import clean_video, normalize_query
from onebar.records import VideoText
from onebar.triggers import Split, Trigger, TriggerDataset, write_dataset

CATEGORIES = {
    "video": re.compile(
        "视频|在线观看|电影|电视剧|动漫|综艺|直播|爱奇艺|优酷|腾讯视频|哔哩|播放|全集|高清"
    ),
    "shopping": re.compile("价格|多少钱|淘宝|京东|天猫|报价|批发|购买|商城|品牌|旗舰店|促销|优惠"),
}
SPLITS: tuple[tuple[Split, float], ...] = (("test", 0.1), ("valid", 0.2), ("train", 1.0))


class Pair(Struct, frozen=True):
    """One line of the file; `label` 0 (irrelevant) to 2."""

    query: str
    title: str
    label: int


def category(title: str) -> str:
    """`video`, `shopping` or `other`."""
    return next((name for name, words in CATEGORIES.items() if words.search(title)), "other")


def components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each query (`q:…`) and title (`t:…`) the least name among all it is tied to, through
    however many pairs."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for query, title in pairs:
        first, second = sorted((root(f"q:{query}"), root(f"t:{title}")))
        parent[second] = first
    return {name: root(name) for name in parent}


def split_of(component: str) -> Split:
    """By hash: the same whatever else is in the file."""
    digest = hashlib.blake2b(component.encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return next(name for name, end in SPLITS if share < end)


def triggers(pairs: list[Pair]) -> dict[Split, list[Trigger]]:
    """The pairs with a relevant query, once each, by split."""
    kept: dict[tuple[str, str], None] = {}
    for pair in pairs:
        query, title = normalize_query(pair.query), pair.title.strip()
        if pair.label >= 1 and query and title:
            kept[query, title] = None
    tied = components(kept)
    splits: dict[Split, list[Trigger]] = {name: [] for name, _ in SPLITS}
    for number, (query, title) in enumerate(kept):
        text = video_line(clean_video(VideoText(title=title)))
        if not text:
            continue
        splits[split_of(tied[f"q:{query}"])].append(
            Trigger(
                trigger_id=f"qbqtc-{number}",
                kind="click",
                ts=float(number),
                video_id=hashlib.blake2b(title.encode(), digest_size=8).hexdigest(),
                category=category(title),
                text=text,
                target=query,
            )
        )
    return splits


def read_pairs(file: Path) -> list[Pair]:
    """The pairs of `file`, one JSON object a line."""
    decoder = msgspec.json.Decoder(Pair, strict=False)
    with file.open("rb") as lines:
        return [decoder.decode(line) for line in lines if line.strip()]


def make_dataset(file: Path, out: Path) -> TriggerDataset:
    """The pairs of `file` as a dataset at `out`."""
    splits = triggers(read_pairs(file))
    texts = dict.fromkeys(
        text for trigger in splits["train"] for text in (trigger.text, trigger.target)
    )
    return write_dataset(out, splits, texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, help="qbqtc_dev.json, one JSON object a line")
    parser.add_argument("--out", type=Path, required=True, help="the dataset directory to write")
    options = parser.parse_args()
    dataset = make_dataset(options.file, options.out)
    print(msgspec.json.encode(dataset.card.splits).decode())


if __name__ == "__main__":
    main()
