"""Models of the classes that are used, a few thousand random weights each, and a clip."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import torch
from msgspec import structs
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Normalize,
    Pooling,
    StaticEmbedding,
    Transformer,
)
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from onebar.embedding.encoder import read_card, write_card
from onebar.embedding.train import save_embedder

RATE = 16_000
SIDE = 32
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}\n"
)


def make_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with these special tokens besides its own, by name."""
    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<s>", "</s>", *special.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Visual: a red shoe. Plot: she runs."] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens=special, padding_side="left",
    )  # fmt: skip


def make_bert(path: Path) -> str:
    """A BERT, as sentence-transformers starts from."""
    torch.manual_seed(0)
    fast = make_tokenizer()
    config = BertConfig(
        vocab_size=len(fast), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(path)
    fast.save_pretrained(path)
    return str(path)


def make_qwen3(path: Path) -> str:
    """What Qwen3-Embedding is made of: bfloat16 weights, an end token after each text, padding on
    the left, the last token's vector at unit length, a prompt for queries."""
    torch.manual_seed(0)
    fast = make_tokenizer()
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", fast.eos_token_id)]
    )
    config = Qwen3Config(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=48, max_position_embeddings=64,
        pad_token_id=0,
    )  # fmt: skip
    parts = path / "parts"
    Qwen3Model(config).to(torch.bfloat16).save_pretrained(parts)
    fast.save_pretrained(parts)
    body = Transformer(str(parts))
    model = SentenceTransformer(
        modules=[body, Pooling(32, pooling_mode="lasttoken"), Normalize()],
        prompts={"query": "Query: ", "document": ""},
        device="cpu",
    )
    model.save(str(path / "model"), create_model_card=False)
    return str(path / "model")


def make_static(path: Path, *, history_threshold: float | None = None) -> Path:
    """A static embedder with a card."""
    torch.manual_seed(0)
    table = StaticEmbedding(make_tokenizer().backend_tokenizer, embedding_dim=16)
    save_embedder(SentenceTransformer(modules=[table]), path, base="static", training={})
    card = read_card(path)
    assert card is not None
    write_card(path, structs.replace(card, threshold=0.0, history_threshold=history_threshold))
    return path


def make_vision(path: Path) -> str:
    """A LLaVA with a tokenizer of its own."""
    torch.manual_seed(0)
    fast = make_tokenizer(image_token="<image>")
    images = CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **small, num_attention_heads=2, image_size=SIDE, patch_size=16, projection_dim=16
        ),
        text_config=LlamaConfig(
            **small, vocab_size=len(fast), num_attention_heads=2, num_key_value_heads=2,
            max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(path)
    LlavaProcessor(
        image_processor=images, tokenizer=fast, patch_size=16, chat_template=CHAT,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    ).save_pretrained(path)  # fmt: skip
    return str(path)


def make_speech(path: Path) -> str:
    """A wav2vec 2.0 that spells in capital letters."""
    torch.manual_seed(0)
    path.mkdir(parents=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    vocabulary = path / "vocab.json"
    vocabulary.write_text(json.dumps({letter: at for at, letter in enumerate(letters)}))
    config = Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, conv_dim=(8,) * 7, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(path)
    Wav2Vec2Processor(
        feature_extractor=Wav2Vec2FeatureExtractor(return_attention_mask=False),
        tokenizer=Wav2Vec2CTCTokenizer(str(vocabulary)),
    ).save_pretrained(path)
    return str(path)


def make_clip(path: Path, *, seconds: float = 2.0, sound: bool = True, tone: float = 440.0) -> Path:
    """A clip that is red, then green, then blue, with a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono") if sound else None
        count = round(seconds * 10)
        for number in range(count):
            image = np.zeros((64, 64, 3), dtype=np.uint8)
            image[..., 3 * number // count] = 200
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            time = np.arange(round(seconds * RATE)) / RATE
            wave = (0.3 * np.sin(2 * np.pi * tone * time)).astype(np.float32)
            for start in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(
                    wave[None, start : start + 1024], format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts = RATE, start
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path
