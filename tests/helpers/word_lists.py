"""The archives that composed videos take their words from, in small."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from stream.simulator.composed.words import JIEBA, TAXONOMY


def _archive(path: Path, member: str, text: str) -> None:
    data = text.encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def word_lists(directory: Path) -> Path:
    """The archives that the words come from, in small."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"{a} {b}" for a in ("Trail", "Bird", "Steel", "Night") for b in NOUNS]
    vertical = {"name": "All", "categories": [{"name": name} for name in (*NOUNS, *names)]}
    _archive(directory / TAXONOMY[0], TAXONOMY[1], json.dumps({"verticals": [vertical]}))
    lines = [f"{a}{b} 99 n" for a in "山水木金火" for b in "车船灯刀碗"]
    lines += [f"{a}{b} 99 nz" for a in "红蓝" for b in "星云"]
    lines += ["漂亮 99 a", "收纳 99 v", "喜欢 900 v", "真的 900 d"]
    _archive(directory / JIEBA[0], JIEBA[1], "\n".join(lines) + "\n")
    return directory


NOUNS = ("Lamps", "Shoes", "Cages", "Kettles & Pots", "Boxes", "Tents", "Brushes", "Guitars")
