"""Small random models as transformers makes and saves them: several shapes of each family."""

import torch
import transformers

from lit_core.lm.tokenizer import Tokenizer

TOKENIZER = Tokenizer.bytes()
_SHAPE = dict(
    vocab_size=260,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=None,
    eos_token_id=TOKENIZER.end_of_text,
    pad_token_id=None,
    tie_word_embeddings=False,
)
_EXPERTS = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24)
#: Differences from the common shape, by family.
SHAPES = {
    "Llama": [
        dict(num_key_value_heads=4),
        dict(num_key_value_heads=1, tie_word_embeddings=True, rope_theta=5e5, rms_norm_eps=1e-5),
        dict(head_dim=16, num_hidden_layers=3, hidden_act="gelu"),
    ],
    "Qwen2": [dict(), dict(tie_word_embeddings=True, rope_theta=1e6), dict(num_key_value_heads=4)],
    "Qwen3": [dict(head_dim=16), dict(head_dim=8, tie_word_embeddings=True), dict(head_dim=4, num_key_value_heads=1)],
    "Mixtral": [
        dict(num_local_experts=6),
        dict(num_local_experts=5, num_experts_per_tok=3, tie_word_embeddings=True, rope_theta=1e4),
        dict(num_local_experts=4, head_dim=16, num_key_value_heads=1),
    ],
    "Olmoe": [
        dict(_EXPERTS, num_key_value_heads=4),
        dict(_EXPERTS, norm_topk_prob=True, clip_qkv=0.5),
        dict(_EXPERTS, num_experts_per_tok=1, tie_word_embeddings=True, rope_theta=5e4),
    ],
    "Qwen2Moe": [
        dict(_EXPERTS, shared_expert_intermediate_size=24),
        dict(_EXPERTS, shared_expert_intermediate_size=72, norm_topk_prob=True, tie_word_embeddings=True),
        dict(_EXPERTS, shared_expert_intermediate_size=48, qkv_bias=False, num_experts_per_tok=4, rope_theta=1e6),
    ],
    "Qwen3Moe": [
        dict(_EXPERTS, head_dim=16),
        dict(_EXPERTS, head_dim=8, norm_topk_prob=True, num_experts_per_tok=3, rope_theta=1e6),
        dict(_EXPERTS, head_dim=8, tie_word_embeddings=True, num_key_value_heads=4),
    ],
}
CASES = [(family, number) for family, shapes in SHAPES.items() for number in range(len(shapes))]


def make(family, number=0, **changes):
    """Return a random model whose weights are large enough for differences to show, gains and biases included."""
    torch.manual_seed(number)
    values = _SHAPE | SHAPES[family][number] | changes
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**values))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.15)
    return model.eval()


def save(model, folder, **options):
    """Save a model with a tokenizer, as on the hub."""
    model.save_pretrained(folder, **options)
    TOKENIZER.save(folder)
    return folder


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def tokens(*shape, seed=1):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))


def logits(model, ids):
    """Return the logits of their model or of ours."""
    with torch.no_grad():
        found = model(ids)
    return getattr(found, "logits", found)
