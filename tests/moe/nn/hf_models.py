"""Tiny random models of transformers, made by transformers itself."""

import torch

SHAPE = dict(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=None,
)
MIXTURES = {
    "mixtral": dict(num_local_experts=6, num_experts_per_tok=2),
    "olmoe": dict(num_experts=6, num_experts_per_tok=2),
    "qwen2_moe": dict(
        num_experts=6, num_experts_per_tok=3, moe_intermediate_size=8, shared_expert_intermediate_size=24
    ),
    "qwen3_moe": dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=8, head_dim=8),
}
DENSE = {
    "llama": dict(tie_word_embeddings=False),
    "qwen3": dict(tie_word_embeddings=True, head_dim=8),
    "gpt2": dict(n_embd=16, n_head=4, n_layer=2, n_positions=64),
    "gemma2": dict(head_dim=4, sliding_window=32),  # caps its logits
}


def config(kind, **changes):
    """Return the keys of a config, as a YAML file has them."""
    own = (MIXTURES | DENSE)[kind]
    shape = {key: SHAPE[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")} if kind == "gpt2" else SHAPE
    return {"model_type": kind, **shape, **own, **changes}


def spread(model, seed=0):
    """Draw weights with which routers and logits differ clearly between tokens."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and parameter.dim() == 1 else 0.0, 0.3)
    return model


def make(kind, **changes):
    """Return a model of transformers in evaluation mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    return spread(AutoModelForCausalLM.from_config(AutoConfig.for_model(**config(kind, **changes)))).eval()


def tokens(*shape, seed=1, vocab_size=64):
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(seed))
