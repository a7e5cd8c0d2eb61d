"""Multiply-adds of a token in published mixtures, counted by hand from their config.json, and those configs."""


def mixture(width, experts, top_k, expert_width):
    """Multiply-adds of a gate and of gated experts, for one token."""
    return width * experts + top_k * 3 * width * expert_width


def attention(width, heads, groups, head, keys):
    """Multiply-adds of grouped-query attention, for one token."""
    return width * head * (2 * heads + 2 * groups) + 2 * heads * head * keys


def mixtral(length):
    layer = attention(4096, 32, 8, 128, length) + mixture(4096, 8, 2, 14336)
    return 32 * layer + 4096 * 32000


def olmoe(length):
    layer = attention(2048, 16, 16, 128, length) + mixture(2048, 64, 8, 1024)
    return 16 * layer + 2048 * 50304


def qwen3(length):
    layer = attention(2048, 32, 4, 128, length) + mixture(2048, 128, 8, 768)
    return 48 * layer + 2048 * 151936


def gpt_oss(length):
    layers = 12 * attention(2880, 64, 8, 64, length) + 12 * attention(2880, 64, 8, 64, min(length, 128))
    return layers + 24 * mixture(2880, 32, 4, 2880) + 2880 * 201088


def deepseek(length):
    latent = 7168 * 1536 + 1536 * 128 * 192 + 7168 * (512 + 64) + 512 * 128 * (128 + 128) + 128 * 128 * 7168
    layers = 61 * (latent + 128 * (192 + 128) * length)
    return layers + 3 * 3 * 7168 * 18432 + 58 * (mixture(7168, 256, 8, 2048) + 3 * 7168 * 2048) + 7168 * 129280


def qwen3_next(length):
    """Three of four layers are linear, in chunks of 64 tokens, with a convolution over 3 tokens before the first."""
    heads, size, chunk = 32, 128, 64
    products, solves = 3 * chunk * size + 3 * size * size, 2 * chunk * size / 2
    delta = heads * (products + solves)
    kept = 2 * 16 * size + heads * size
    linear = 2048 * (kept + heads * size + 2 * heads) + kept * 4 * (length + 3) / length + delta + heads * size * 2048
    full = attention(2048, 16, 2, 256, length) + 2048 * 16 * 256  # a gate as wide as the queries
    layers = 36 * linear + 12 * full
    return layers + 48 * (mixture(2048, 512, 10, 512) + 3 * 2048 * 512 + 2048) + 2048 * 151936


#: Values of published config.json files, as far as they are not those of the class.
PUBLISHED = {
    mixtral: {"model_type": "mixtral"},
    olmoe: {"model_type": "olmoe", "intermediate_size": 1024},
    qwen3: {
        **{"model_type": "qwen3_moe", "num_hidden_layers": 48, "num_key_value_heads": 4, "head_dim": 128},
        **{"moe_intermediate_size": 768},
    },
    gpt_oss: {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32},
    deepseek: {"model_type": "deepseek_v3", "num_key_value_heads": 128},
    qwen3_next: {"model_type": "qwen3_next"},
}
