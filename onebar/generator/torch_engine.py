"""The torch engine: our own beam search, in float32, on a GPU where there is one."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from onebar.generator.bart import Bart, Cache
from onebar.generator.checkpoint import CONFIG, WEIGHTS, Checkpoint
from onebar.generator.engine import Engine, EngineError, ended_hypotheses, ordered
from onebar.generator.trie import Trie
from onebar.generator.within import Follower, Within
from onebar.records import Candidate

NEVER = -1e9


class TorchEngine(Engine):
    """Beam search that agrees with CTranslate2's in float32, and with a length penalty with
    `transformers.generate` too (`early_stopping=True`).

    On a CPU prompts are decoded one by one, so that company can't change a result even by
    rounding. On a GPU they go together; there scores are equal to about 1e-5 only.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        beam_size: int = 8,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tokenizer = checkpoint.tokenizer()
        self._generation = checkpoint.card.generation
        self._name = checkpoint.name
        self._beam_size = beam_size
        self._follower = Follower(self._tokenizer)
        self._lock = threading.Lock()
        self._bart: Bart | None = Bart(
            checkpoint.need(CONFIG), checkpoint.need(WEIGHTS), self._device
        )

    @property
    def model(self) -> str:
        """The checkpoint's name."""
        return self._name

    def generate(
        self, prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()
    ) -> list[list[Candidate]]:
        """See `onebar.generator.engine.Engine`. The beam is as wide as `beam_size` and `k` ask
        for. What a prompt is held within masks each step of its search, which runs by itself; what
        is outside comes from a second one."""
        if any(each is not None for each in within):
            return [
                self._constrained(prompt, k, each)
                for prompt, each in zip(prompts, within, strict=True)
            ]
        sources = self._tokenizer.encode(prompts)
        size = len(sources) if self._device.type != "cpu" else 1
        results: list[list[Candidate]] = []
        with self._lock, torch.inference_mode():
            if self._bart is None:
                raise EngineError("the engine is closed")
            for at in range(0, len(sources), max(1, size)):
                results += self._search(self._bart, sources[at : at + size], k)
        return results

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._bart = None

    def _constrained(self, prompt: str, k: int, within: Within | None) -> list[Candidate]:
        outside: list[Candidate] = []
        if within is None or within.prefer:
            [outside] = self.generate([prompt], k)
        if within is None:
            return outside
        tries = (
            self._follower.trie(within.everywhere),
            Trie(self._follower.sequences(within.more)),
        )
        with self._lock, torch.inference_mode():
            if self._bart is None:
                raise EngineError("the engine is closed")
            [inside] = self._search(self._bart, self._tokenizer.encode([prompt]), k, tries)
        return ordered([*filter(lambda each: within.holds(each.text), inside), *outside])

    def _search(
        self, bart: Bart, sources: list[list[int]], k: int, tries: Sequence[Trie] = ()
    ) -> list[list[Candidate]]:
        beams = max(self._beam_size, k)
        most = self._generation.max_target_tokens
        source, hidden = _pad(sources, bart.architecture.pad_token_id, self._device)
        cache = bart.begin(source, hidden, beams=beams, most=most)
        ids, scores = search(
            *(bart, cache),
            beams=beams,
            hypotheses=ended_hypotheses(beams),
            most=most,
            length_penalty=self._generation.length_penalty,
            tries=tries,
        )
        return [
            ordered(
                [
                    Candidate(self._tokenizer.decode(row), min(0.0, score))
                    for row, score in zip(rows, row_scores, strict=True)
                    if score > NEVER / 2
                ]
            )[:k]
            for rows, row_scores in zip(ids.tolist(), scores.tolist(), strict=True)
        ]


def search(
    bart: Bart,
    cache: Cache,
    *,
    beams: int,
    hypotheses: int,
    most: int,
    length_penalty: float,
    tries: Sequence[Trie] = (),
) -> tuple[Tensor, Tensor]:
    """Beam search: ids (B, hypotheses, most) padded with the end token, scores (B, hypotheses),
    best first.

    A prompt is done once so many hypotheses have ended and, without a length penalty, one of them
    was ahead of all that went on, so that none of these can become the first. Those that never
    end are cut at `most` ids. A hypothesis' score is its log probability over (ids with the end
    token) to the power of `length_penalty`. Only hypotheses among the best `beams` of a step may
    end in it. With `tries` every hypothesis is a sequence of one of them; its log probability stays
    that among all of the vocabulary. There are fewer then where there are no more.
    """
    prompts = cache.hidden.shape[0]
    device = cache.hidden.device
    end = bart.architecture.eos_token_id
    ids = torch.full((prompts, beams, most), end, device=device)
    newest = torch.full(
        (prompts * beams, 1), bart.architecture.decoder_start_token_id, device=device
    )
    running = torch.full((prompts, beams), NEVER, device=device)
    running[:, 0] = 0.0
    ended_ids = torch.full((prompts, hypotheses, most), end, device=device)
    ended = torch.full((prompts, hypotheses), NEVER, device=device)
    done = torch.zeros((prompts, 1), dtype=torch.bool, device=device)
    # With a length penalty scores can rise, and nothing is won before all have ended.
    won = torch.full_like(done, length_penalty != 0)
    base = torch.arange(prompts, device=device)[:, None] * beams
    rank = torch.arange(2 * beams, device=device)

    for at in range(most):
        log_probs = bart.step(newest, cache).view(prompts, beams, -1)
        if tries:
            log_probs = log_probs + _mask(tries, ids[:, :, :at], running, log_probs.shape[-1], end)
        vocabulary = log_probs.shape[-1]
        totals = (log_probs + running[:, :, None]).flatten(1)
        best, flat = totals.topk(2 * beams, dim=1)
        origin, token = flat // vocabulary, flat % vocabulary
        grown = ids.gather(1, origin[:, :, None].expand(-1, -1, most)).clone()
        grown[:, :, at] = token

        last = at + 1 == most
        stops = (token == end) | (last and not tries)
        score = best / float(at + 1) ** length_penalty
        score = score.masked_fill(~(stops & (rank < beams)) | done, NEVER)
        ended, chosen = torch.cat([ended, score], 1).topk(hypotheses, dim=1)
        pool = torch.cat([ended_ids, grown], 1)
        ended_ids = pool.gather(1, chosen[:, :, None].expand(-1, -1, most))
        won |= token[:, :1] == end
        done = (ended[:, -1:] > NEVER / 2) & won
        running, kept = best.masked_fill(token == end, NEVER).topk(beams, dim=1)
        if last or bool((done | (running[:, :1] <= NEVER / 2)).all()):
            break

        ids = grown.gather(1, kept[:, :, None].expand(-1, -1, most))
        newest = token.gather(1, kept).view(-1, 1)
        cache.reorder((origin.gather(1, kept) + base).view(-1))
    return ended_ids, ended


def _mask(tries: Sequence[Trie], ids: Tensor, running: Tensor, vocabulary: int, end: int) -> Tensor:
    """What to add to log probabilities (B, W, V): 0 where a trie goes on, else never. `ids`
    (B, W, T) are those chosen so far, `running` (B, W) their scores."""
    mask = torch.full((*ids.shape[:2], vocabulary), NEVER, device=ids.device)
    for row, (beams, scores) in enumerate(zip(ids.tolist(), running.tolist(), strict=True)):
        for beam, (prefix, score) in enumerate(zip(beams, scores, strict=True)):
            if score > NEVER / 2:
                for trie in tries:
                    followers = trie.followers(prefix, end)
                    mask[row, beam, torch.tensor(followers, dtype=torch.long)] = 0.0
    return mask


def _pad(sources: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (B, S) padded with `pad`, and (B, S) true on padding."""
    longest = max(map(len, sources))
    rows = [source + [pad] * (longest - len(source)) for source in sources]
    hidden = [[False] * len(source) + [True] * (longest - len(source)) for source in sources]
    return torch.tensor(rows, device=device), torch.tensor(hidden, device=device)
