"""The tokenizer of a BART from elsewhere, made one of ours: functions over `tokenizer.json`.

Two families are known, told apart by the names of their special tokens: byte-level BPE with `<s>`,
`<pad>`, `</s>`, `<unk>` (facebook/bart-*), and WordPiece with `[CLS]`, `[PAD]`, `[SEP]`, `[UNK]`
(fnlp/bart-*-chinese and others that go with BertTokenizer). The second's get the first's names,
so that its `[SEP]`, which ends a text, becomes `</s>`, and our separator of fields is another
token that only starts as a copy of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from onebar.evidence.text import REJECT, SEP
from onebar.evidence.tokens import BOS, EOS, MASK, PAD, RESERVED, UNK
from onebar.generator.checkpoint import CheckpointCorruptError, CheckpointMismatchError

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json"),
    *("vocab.json", "merges.txt", "vocab.txt"),
)
"""Where `read_tokenizer` looks."""

_FAMILIES = (
    {BOS: BOS, PAD: PAD, EOS: EOS, UNK: UNK, MASK: MASK},
    {"[CLS]": BOS, "[PAD]": PAD, "[SEP]": EOS, "[UNK]": UNK, "[MASK]": MASK},
)
_OPTIONAL = {MASK, SEP, REJECT}
_CJK = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORDPIECE_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "Fuse"},
        # Its pre-tokenizer parts every Chinese character, so no space beside one is to be believed.
        {"type": "Replace", "content": "", "pattern": {
            "Regex": f"(?<=[{_CJK}]) | (?=[{_CJK}])"
        }},
    ],
}  # fmt: skip
_BYTE_LEVEL = {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True
}  # fmt: skip


class Vocabulary(Struct, frozen=True):
    """A tokenizer of ours, and where its rows of the model's embeddings come from.

    The ids below `kept` are the model's own. Each later one starts as the mean of the rows that
    `new` names for it.
    """

    tokenizer: dict[str, Any]
    kept: int
    new: dict[int, tuple[int, ...]]
    ids: dict[str, int]
    """Of `onebar.evidence.tokens.RESERVED`."""

    @property
    def size(self) -> int:
        return self.kept + len(self.new)


def read_tokenizer(directory: Path) -> dict[str, Any]:
    """The content of a directory's `tokenizer.json`, or one made of `vocab.json` and `merges.txt`
    (byte-level BPE) or of `vocab.txt` (WordPiece).

    Raises `CheckpointMismatchError` where there is none of them, `CheckpointCorruptError`.
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE, WordPiece

    path, vocab, merges, words = (
        directory / name for name in ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
    )
    if path.is_file():
        return read_object(path)
    try:
        if vocab.is_file() and merges.is_file():
            tokenizer = Tokenizer(BPE.from_file(str(vocab), str(merges)))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
        elif words.is_file():
            config_path = directory / "tokenizer_config.json"
            config = read_object(config_path) if config_path.is_file() else {}
            tokenizer = Tokenizer(WordPiece.from_file(str(words), unk_token="[UNK]"))
            tokenizer.normalizer = normalizers.BertNormalizer(
                lowercase=config.get("do_lower_case", True),
                strip_accents=config.get("strip_accents"),
                handle_chinese_chars=config.get("tokenize_chinese_chars", True),
            )
            tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        else:
            raise CheckpointMismatchError(
                f"{directory} has no tokenizer: expected tokenizer.json, or vocab.json with "
                "merges.txt, or vocab.txt"
            )
        found: dict[str, Any] = json.loads(tokenizer.to_str())
        return found
    except CheckpointMismatchError:
        raise
    except Exception as error:  # tokenizers raises no class of its own
        raise CheckpointCorruptError(
            f"the tokenizer in {directory} can't be read ({error}): copy it again"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointCorruptError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointCorruptError(f"{path} can't be read ({error}): copy it again") from None


def adopt(raw: dict[str, Any], rows: int) -> Vocabulary:
    """The tokenizer `raw` with our special tokens, for a model with `rows` rows of embeddings.

    Rows without an entry are cut off at the end and get a name, `<unused-ID>`, in between. A
    `<mask>` without a row (facebook/bart-large-cnn) is made anew. `[SEP]` starts as `</s>` and
    `[REJECT]` as the mean of the pieces of its text. Raises `CheckpointMismatchError`.
    """
    model = raw.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise _mismatch("its model is neither BPE nor WordPiece")
    kind = model.get("type") or ("BPE" if "merges" in model else "WordPiece")
    if kind not in ("BPE", "WordPiece"):
        raise _mismatch(f"its model is {kind}, neither BPE nor WordPiece")
    if kind == "BPE" and '"ByteLevel"' not in json.dumps(raw.get("pre_tokenizer")):
        raise _mismatch("its BPE is not byte-level")
    entries = _entries(raw, rows)
    kept = max(entries.values()) + 1
    names = {at: token for token, at in entries.items()}
    for at in range(kept):
        if at not in names:
            entries[f"<unused-{at}>"] = at
    base = _assemble(raw, kind, entries, [])
    missing = [token for token in (MASK, SEP, REJECT) if token not in entries]
    starts = {
        MASK: tuple(range(kept)),
        SEP: (entries[EOS],),
        REJECT: _pieces(base, REJECT, entries) or (entries[EOS],),
    }
    new = {kept + at: starts[token] for at, token in enumerate(missing)}
    entries |= {token: kept + at for at, token in enumerate(missing)}
    ids = {name: entries[name] for name in RESERVED}
    return Vocabulary(_assemble(raw, kind, entries, missing), kept, new, ids)


def _mismatch(reason: str) -> CheckpointMismatchError:
    return CheckpointMismatchError(
        f"this tokenizer can't be used: {reason}. OneBar takes byte-level BPE (facebook/bart-*) "
        "and WordPiece (fnlp/bart-*-chinese)"
    )


def _entries(raw: dict[str, Any], rows: int) -> dict[str, int]:
    """Ids by name, under our names of the special tokens; all below `rows`."""
    found = dict(raw["model"]["vocab"])
    found |= {added["content"]: added["id"] for added in raw.get("added_tokens") or ()}
    family = next(
        (
            names
            for names in _FAMILIES
            if all(theirs in found for theirs, ours in names.items() if ours not in _OPTIONAL)
        ),
        None,
    )
    if family is None:
        raise _mismatch(
            "it lacks special tokens: expected "
            + ", or ".join(
                " ".join(theirs for theirs, ours in names.items() if ours not in _OPTIONAL)
                for names in _FAMILIES
            )
        )
    if family is _FAMILIES[0]:
        entries = found
    else:
        special = {theirs: found.pop(theirs) for theirs in family if theirs in found}
        # An ordinary entry that is called as we call a special one can't be kept under that name.
        entries = {
            f"<unused-{at}>" if name in RESERVED else name: at for name, at in found.items()
        } | {family[theirs]: at for theirs, at in special.items()}
    beyond = sorted(name for name, at in entries.items() if at >= rows)
    if beyond == [MASK]:
        del entries[MASK]
    elif beyond:
        raise CheckpointMismatchError(
            f"this tokenizer does not match the model: it has {len(entries):,} entries, the model "
            f"embeddings for {rows:,}; without one are {', '.join(beyond[:5])}"
            f"{' and others' if len(beyond) > 5 else ''}. Take the tokenizer that the model was "
            "trained with"
        )
    if len(set(entries.values())) < len(entries):
        raise _mismatch("it gives one id to several entries")
    return entries


def _assemble(
    raw: dict[str, Any], kind: str, entries: dict[str, int], new: list[str]
) -> dict[str, Any]:
    """A `tokenizer.json` with these entries, of which those in `new` are added tokens only."""
    ours = [name for name in RESERVED if name in entries]
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    others = [
        added
        for added in raw.get("added_tokens") or ()
        if added["content"] not in RESERVED and entries.get(added["content"]) == added["id"]
    ]
    # A separator takes in the space before it, as in a vocabulary of our own.
    special = [
        {"id": entries[name], "content": name, "lstrip": name == SEP, **flags} for name in ours
    ]
    added = sorted([*others, *special], key=lambda token: int(token["id"]))
    only_added = {token["content"] for token in others} | set(new)
    vocab = {name: at for name, at in entries.items() if name not in only_added}
    return {
        **raw,
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "pre_tokenizer": _without_prefix_space(raw.get("pre_tokenizer")),
        # `onebar.evidence.tokens` adds the special tokens itself.
        "post_processor": None,
        "decoder": _BYTE_LEVEL if kind == "BPE" else _WORDPIECE_DECODER,
        "model": {
            **raw["model"],
            "type": kind,
            "vocab": vocab,
            "unk_token": None if kind == "BPE" else UNK,
        },
    }


def _without_prefix_space(part: Any) -> Any:
    """A pre-tokenizer that adds no space of its own: `onebar.evidence.tokens` puts one before
    each text."""
    if isinstance(part, list):
        return [_without_prefix_space(each) for each in part]
    if isinstance(part, dict):
        return {
            name: False if name == "add_prefix_space" else _without_prefix_space(value)
            for name, value in part.items()
        }
    return part


def _pieces(tokenizer: dict[str, Any], text: str, entries: dict[str, int]) -> tuple[int, ...]:
    """The known pieces of a text."""
    from tokenizers import Tokenizer

    try:
        opened = Tokenizer.from_str(json.dumps(tokenizer))
    except Exception as error:  # tokenizers raises no class of its own
        raise _mismatch(str(error)) from error
    ids = opened.encode(f" {text}", add_special_tokens=False).ids
    return tuple(at for at in ids if at != entries[UNK])
