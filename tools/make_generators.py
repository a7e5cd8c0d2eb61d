"""Make the wild generators of the embedded set from SmolLM2 and from scratch, below the data root.

Run from a checkout, ``python tools/make_generators.py [fewer_layers] [continued] [scratch]`` makes those that are
named, by default all. It takes about ten minutes on two quiet cores; each is a folder that Hugging Face reads.

- ``fewer_layers``: SmolLM2-135M-Instruct without the 17th to 19th of its 30 layers, those it misses least; not trained.
- ``continued``: SmolLM2-135M-Instruct, its last eight layers trained on the anarchism FAQ.
- ``scratch``: a Llama of 3 layers with a tokenizer of its own, trained on the novels, the handbook and the FAQ.

Only documents that ``lit-detect generate`` calls train are read.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_core.corpora import AnarchistFAQ, Austen, DebianHandbook
from lit_core.files.paths import data_root
from lit_core.lm.pretrained import smollm2
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.generation.ngram_model import training_texts

SEED = 0
LEFT_OUT = range(16, 19)


def folder(name: str) -> Path:
    """Return where a generator is kept."""
    return data_root() / "detect" / "generators" / name


def tokens_of(texts: list[str], tokenizer: Tokenizer) -> torch.Tensor:
    """Return all texts as one row of tokens, an end-of-text token after each."""
    return torch.tensor([token for row in tokenizer.encode_batch(texts) for token in [*row, tokenizer.end_of_text]])


def train(model: Any, tokens: torch.Tensor, steps: int, rows: int, length: int, lr: float, warm_up: int) -> None:
    """Train a causal model on random stretches, the learning rate falling to zero along a cosine."""
    chosen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr, betas=(0.9, 0.95), weight_decay=0.1)
    draw = torch.Generator().manual_seed(SEED)
    began = time.perf_counter()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / warm_up) * (1 + math.cos(math.pi * step / steps)) / 2
        starts = torch.randint(len(tokens) - length, (rows,), generator=draw)
        ids = torch.stack([tokens[start : start + length] for start in starts.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    model.eval()


def fewer_layers() -> None:
    """Leave out three neighbouring layers: perplexity 64 in place of 51 on two stretches of novel and handbook."""
    lm = smollm2()
    model: Any = lm.module
    kept = [layer for place, layer in enumerate(model.model.layers) if place not in LEFT_OUT]
    model.model.layers = nn.ModuleList(kept)
    model.config.num_hidden_layers = len(kept)
    for place, layer in enumerate(kept):
        layer.self_attn.layer_idx = place
    model.config.layer_types = None
    save(model, lm.tokenizer, "fewer_layers")


def continued() -> None:
    """Train the last eight layers of SmolLM2 on political essays."""
    lm = smollm2()
    model: Any = lm.module
    model.requires_grad_(False)
    for part in (*model.model.layers[-8:], model.model.norm):
        part.requires_grad_(True)
    train(model, tokens_of(training_texts([AnarchistFAQ()]), lm.tokenizer), 40, 4, 128, 5e-4, 5)
    save(model, lm.tokenizer, "continued")


def scratch() -> None:
    """Train a small model from nothing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = training_texts([Austen(), DebianHandbook(), AnarchistFAQ()])
    tokenizer = Tokenizer.train_bpe(texts, 2048)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.end_of_text,
            eos_token_id=tokenizer.end_of_text,
        )
    )
    train(model, tokens_of(texts, tokenizer), 2500, 8, 128, 4e-3, 40)
    save(model, tokenizer, "scratch")


def save(model: Any, tokenizer: Tokenizer, name: str) -> None:
    """Write a model as Hugging Face reads it."""
    model.save_pretrained(folder(name))
    tokenizer.save(folder(name))
    print(folder(name), flush=True)


if __name__ == "__main__":
    makers = {maker.__name__: maker for maker in (fewer_layers, continued, scratch)}
    for wanted in sys.argv[1:] or makers:
        makers[wanted]()
