"""Training the behaviour-aligned embedding, in the paper's order: first q→v, then all relations.

Stages share one loop with the generator's (`onebar.training.loop`): resumable, one seed gives the
same curve twice, curves go to TensorBoard.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from onebar.embedding.encoder import (
    CARD,
    EmbedderCard,
    EmbedderError,
    Encoder,
    SentenceEncoder,
    load_sentence_transformer,
    read_card,
    write_card,
)
from onebar.embedding.losses import info_nce
from onebar.embedding.negatives import hard_negatives
from onebar.embedding.relations import (
    CARD as RELATIONS_CARD,
)
from onebar.embedding.relations import (
    KINDS,
    EmptyRelationsError,
    Relation,
    RelationKind,
    open_relations,
)
from onebar.process.files import occupied, publish, replacing, staging
from onebar.process.quiet import quiet_transformers
from onebar.training.batches import Rows
from onebar.training.loop import Backward, Loop, LoopConfig, Metrics, make_accelerator
from onebar.training.models.tokenizer import train_tokenizer

log = structlog.get_logger(__name__)

STATIC = "static"
"""The base that is trained from scratch: a table of token vectors."""
STAGES: dict[str, tuple[RelationKind, ...]] = {"q2v": ("q2v",), "all": KINDS}
"""The stages by name, in order, with the relations each learns from."""
RATES = {STATIC: 2e-2}
RATE = 2e-5
"""Peak learning rate of a pretrained base."""


class EmbedConfig(LoopConfig, frozen=True, kw_only=True):
    """One stage of the embedding."""

    relations: Path
    """A directory that `onebar embed relations` wrote."""
    out: Path
    init: str | None = None
    """An embedder to go on from; None starts from `base`."""
    base: str = STATIC
    """`static`, or a sentence-transformers or transformers model: a directory or a name."""
    kinds: tuple[RelationKind, ...] = KINDS
    dim: int = 128
    vocab_size: int = 8000
    """Of a static model's tokenizer."""
    steps: int = 1000
    batch_size: int = 256
    temperature: float = 0.05
    negatives: int = 0
    """Hard negatives mined for each left text with `init`; each step draws one of them."""

    @property
    def fingerprint(self) -> str:
        """What must be equal for a run to go on from another's state."""
        watched = {"threads", "device", "save_every_s", "log_every", "progress"}
        fixed = {n: getattr(self, n) for n in self.__struct_fields__ if n not in watched}
        fixed["relations"] = (self.relations / RELATIONS_CARD).read_bytes()
        if self.init is not None and (card := read_card(Path(self.init))) is not None:
            fixed["init"] = card.name
        content = msgspec.json.encode(fixed, enc_hook=str, order="sorted")
        return hashlib.sha256(content).hexdigest()


@dataclass
class PairBatch:
    """Relations of one kind, and a hard negative for some of them. `tokens` is told by the step."""

    relations: list[Relation]
    hard: list[str]
    tokens: int = 0

    @property
    def weight(self) -> int:
        return len(self.relations)


class KnownPairs:
    """Which texts are known to belong together, asked for whole batches."""

    def __init__(self, relations: Sequence[Relation]) -> None:
        texts = {text for r in relations for text in (r.left, r.right)}
        self._number = {text: at for at, text in enumerate(sorted(texts))}
        self._codes = np.unique(
            self._code(
                self._numbers([r.left for r in relations]),
                self._numbers([r.right for r in relations]),
            )
        )

    def among(self, lefts: Sequence[str], rights: Sequence[str]) -> NDArray[np.bool_]:
        """(len(lefts), len(rights)): whether the two belong together."""
        codes = self._code(self._numbers(lefts)[:, None], self._numbers(rights)[None, :])
        at = np.searchsorted(self._codes, codes)
        found: NDArray[np.bool_] = self._codes[np.minimum(at, len(self._codes) - 1)] == codes
        return found

    def _numbers(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self._number[text] for text in texts], dtype=np.int64)

    def _code(self, lefts: NDArray[np.int64], rights: NDArray[np.int64]) -> NDArray[np.int64]:
        return lefts * len(self._number) + rights


class RelationBatches:
    """The relations, in batches of one kind: a text of another kind is no negative that anything
    could be learnt from."""

    def __init__(
        self, relations: Sequence[Relation], hard: dict[RelationKind, dict[str, list[str]]]
    ) -> None:
        """`hard` are the hard negatives of a left text, by kind."""
        self._relations = relations
        self._hard = hard
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for at, relation in enumerate(relations):
            self._places[relation.kind].append(at)

    def __len__(self) -> int:
        return len(self._relations)

    def order(self, size: int, *, seed: int, epoch: int) -> list[Rows]:
        draw = random.Random(f"{seed}:{epoch}")
        batches: list[list[int]] = []
        for kind in sorted(self._places):
            order = list(self._places[kind])
            draw.shuffle(order)
            chunks = [order[at : at + size] for at in range(0, len(order), size)]
            # A lone relation has nothing to be told from.
            batches += [chunk for chunk in chunks if len(chunk) > 1] or chunks[:1]
        draw.shuffle(batches)
        return batches

    def batch(self, rows: Rows, *, seed: int, epoch: int) -> PairBatch:
        relations = [self._relations[row] for row in rows]
        known = self._hard.get(relations[0].kind, {})
        hard = [
            random.Random(f"{seed}:{epoch}:{row}").choice(found)
            for row, relation in zip(rows, relations, strict=True)
            if (found := known.get(relation.left))
        ]
        return PairBatch(relations, list(dict.fromkeys(hard)))


class Alignment:
    """A stage, for `onebar.training.loop.Loop`. Keeps nothing back: a relation is an edge between
    texts that others name as well."""

    name = "embed"
    held_out = None

    def __init__(
        self, config: EmbedConfig, relations: Sequence[Relation], encoder: Encoder | None
    ) -> None:
        """`encoder` finds the hard negatives, where any are asked for."""
        self._temperature = config.temperature
        self._known = KnownPairs(relations)
        by_kind: defaultdict[RelationKind, list[Relation]] = defaultdict(list)
        for relation in relations:
            by_kind[relation.kind].append(relation)
        hard = {}
        if config.negatives and encoder is not None:
            hard = {
                kind: hard_negatives(found, encoder, config.negatives)
                for kind, found in by_kind.items()
            }
        self.examples = RelationBatches(relations, hard)

    def step(self, model: Any, batch: PairBatch, backward: Backward) -> Metrics:
        import torch

        lefts = [relation.left for relation in batch.relations]
        rights = [relation.right for relation in batch.relations]
        hard = [text for text in batch.hard if text not in set(rights)]
        vectors, batch.tokens = embed(model, [*lefts, *rights, *hard])
        n = len(lefts)
        together = torch.from_numpy(self._known.among(lefts, rights)).to(vectors.device)
        loss = info_nce(
            vectors[:n],
            vectors[n : 2 * n],
            together,
            vectors[2 * n :],
            temperature=self._temperature,
        )
        backward(loss)
        return {"loss": loss.detach()}


def embed(model: Any, texts: Sequence[str]) -> tuple[Any, int]:
    """(unit vectors (n, dim) that carry gradients, tokens read)."""
    import torch

    device = next(model.parameters()).device
    features = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in model.preprocess(list(texts)).items()
    }
    tokens = int(features["input_ids"].numel())
    vectors = model(features)["sentence_embedding"]
    return torch.nn.functional.normalize(vectors.float(), dim=-1), tokens


def train_embedder(config: EmbedConfig) -> Path:
    """Train one stage and write its embedder; the path.

    Ctrl-C saves the state and is raised again; the same settings go on from there. Raises
    `RelationsError`, `EmbedderError`; nothing half-written is left under `out`.
    """
    import torch

    if occupied(config.out, CARD):
        raise EmbedderError(f"{config.out} exists and is no embedder: choose another directory")
    opened = open_relations(config.relations)
    relations = list(opened.read(config.kinds))
    if not relations:
        raise EmptyRelationsError(
            f"{config.relations} has no relations of kind {', '.join(config.kinds)}, only "
            f"{opened.card.counts}: nothing ties a query to a video in that way"
        )
    accelerator = make_accelerator(config)
    torch.manual_seed(config.seed)
    directory = config.out.parent / f".{config.out.name}.training"
    directory.mkdir(parents=True, exist_ok=True)
    parent = None if config.init is None else read_card(Path(config.init))
    base = parent.base if parent else Path(config.base).name
    with accelerator.main_process_first():
        model = _begin(config, relations, directory)
    encoder = SentenceEncoder(model, name="") if config.negatives else None
    if encoder is not None:
        log.info("mining_negatives", relations=len(relations))
    stage = Alignment(config, relations, encoder)
    loop = Loop(
        config,
        stage,
        model,
        peak=config.learning_rate or RATES.get(base, RATE),
        accelerator=accelerator,
        directory=directory,
        curves=config.out.parent / "curves" / config.out.name,
        fingerprint=config.fingerprint,
    )
    done = loop.run()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        facts = {
            "fingerprint": config.fingerprint,
            "relations": dict(opened.card.counts),
            "until": opened.card.until,
            "kinds": list(config.kinds),
            "init": parent.name if parent else config.init,
            "steps": done.step,
            "seconds": round(done.seconds),
            "loss": round(done.loss, 4),
            "settings": {
                name: getattr(config, name)
                for name in ("batch_size", "temperature", "negatives", "seed", "learning_rate")
            },
        }
        save_embedder(model.to("cpu").eval(), config.out, base=base, training=facts)
        shutil.rmtree(directory)
    accelerator.wait_for_everyone()
    return config.out


def _begin(config: EmbedConfig, relations: Sequence[Relation], directory: Path) -> Any:
    """The model a stage begins with: `dim` wide, of unit length."""
    if config.init is not None:
        return load_sentence_transformer(config.init)
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        StaticEmbedding,
    )

    if config.base == STATIC:
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        if not path.exists():
            texts = sorted({text for r in relations for text in (r.left, r.right)})
            with replacing(path, durable=False) as temporary:
                train_tokenizer(texts, temporary, vocab_size=config.vocab_size)
        table = StaticEmbedding(Tokenizer.from_file(str(path)), embedding_dim=config.dim)
        return SentenceTransformer(modules=[table, Normalize()], device="cpu")
    base = load_sentence_transformer(config.base)
    modules = [module for module in base if not isinstance(module, Normalize)]
    wide = int(base.get_embedding_dimension())
    if wide != config.dim:
        import torch

        modules.append(Dense(wide, config.dim, bias=False, activation_function=torch.nn.Identity()))
    return SentenceTransformer(modules=[*modules, Normalize()])


def save_embedder(model: Any, out: Path, *, base: str, training: dict[str, Any]) -> Path:
    """Write a model and its card to `out`, whole or not at all."""
    with staging(out) as staged, quiet_transformers():
        model.save(str(staged), create_model_card=False)
        digest = hashlib.sha256()
        for path in sorted(staged.rglob("*.safetensors")):
            digest.update(path.read_bytes())
        card = EmbedderCard(
            name=f"embed-{digest.hexdigest()[:8]}",
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            dim=int(model.get_embedding_dimension()),
            base=base,
            training=training,
        )
        write_card(staged, card)
        publish(staged, out)
    return out


def train_all(out: Path, config: EmbedConfig) -> Path:
    """Run the stages in a row into `out/STAGE`, each from the one before; the last one's path.

    A stage that is there already with the same settings is passed over, so an interrupted row goes
    on; one that the log has no relations for is left out, with a warning. `out`, `kinds` and `init`
    are set for each stage; from scratch the first one mines no negatives, for nothing could find
    any. Raises what `train_embedder` does.
    """
    counts = open_relations(config.relations).card.counts
    before = config.init
    for stage, kinds in STAGES.items():
        if not any(counts.get(kind) for kind in kinds):
            log.warning("stage_left_out", stage=stage, reason="no relations", kinds=kinds)
            continue
        settings = msgspec.structs.replace(
            config,
            out=out / stage,
            kinds=kinds,
            init=before,
            negatives=config.negatives if before is not None else 0,
        )
        card = read_card(settings.out)
        if card is not None and card.training.get("fingerprint") == settings.fingerprint:
            log.info("stage_is_there", stage=stage, embedder=card.name)
        else:
            train_embedder(settings)
        before = str(settings.out)
    return out / list(STAGES)[-1]
