"""What `benchmarks/batching.py` compares with: LitServe around `transformers.generate`.

    python benchmarks/litserve_peer.py CHECKPOINT PORT

Needs litserve, torch, transformers, tokenizers and safetensors; nothing of OneBar.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BartConfig, BartForConditionalGeneration

CHECKPOINT = Path(sys.argv[1])


class Queries(litserve.LitAPI):
    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
        model = BartForConditionalGeneration(
            BartConfig.from_json_file(str(CHECKPOINT / "config.json"))
        )
        model.load_state_dict(load_file(CHECKPOINT / "model.safetensors"), strict=False)
        model.tie_weights()
        self.model = model.eval()

    def decode_request(self, request: dict[str, str]) -> str:
        return request["prompt"]

    def predict(self, prompts: list[str]) -> list[list[str]]:
        ids = self.model.config
        rows = [
            [ids.bos_token_id, *encoding.ids[:94], ids.eos_token_id]
            for encoding in self.tokenizer.encode_batch(
                [f" {prompt}" for prompt in prompts], add_special_tokens=False
            )
        ]
        longest = max(map(len, rows))
        inputs = torch.tensor([row + [ids.pad_token_id] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            found = self.model.generate(
                input_ids=inputs,
                attention_mask=(inputs != ids.pad_token_id).long(),
                num_beams=8,
                num_return_sequences=8,
                early_stopping=True,
                length_penalty=0.0,
                max_new_tokens=24,
                do_sample=False,
            )
        texts = self.tokenizer.decode_batch(found.tolist())
        return [texts[at : at + 8] for at in range(0, len(texts), 8)]

    def encode_response(self, queries: list[str]) -> dict[str, Any]:
        return {"queries": queries}


if __name__ == "__main__":
    api = Queries(max_batch_size=16, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
        generate_client_file=False,  # it would be written where we stand
    )
