"""FLOPs of transformers' families: what is answered is what torch counts; anything else is not answered."""

import contextlib
import copy
import math
from functools import cache

import pytest
import torch
from hf_models import SHAPE

from lit_moe.doctor.checks.flops import products_per_token
from lit_moe.nn import HFConfig, HFDecoder
from lit_moe.nn.hf_flops import UnknownFlops, flops_per_token

transformers = pytest.importorskip("transformers")
#: Sizes by all the names that families have for them.
SMALL = SHAPE | {"head_dim": 8, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "hidden_size": 32}
SMALL |= {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}
SMALL |= {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "ffn_hidden_size": 24, "d_model": 32}
SMALL |= {"n_heads": 4, "n_layers": 2, "decoder_layers": 2, "decoder_attention_heads": 4, "encoder_layers": 1}
SMALL |= {"encoder_attention_heads": 4, "decoder_ffn_dim": 24, "ffn_dim": 24, "word_embed_proj_dim": 32}
SMALL |= {"num_layers": 2, "num_heads": 4, "rotary_dim": 8, "sliding_window": 8, "layer_types": None}


@cache
def families():
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def built(kind, **changes):
    """A small model of a family; None if it takes more than sizes to make one."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    taken = set(CONFIG_MAPPING[kind]().to_dict()) | set(getattr(CONFIG_MAPPING[kind], "attribute_map", {}))
    if kind in ("mamba", "rwkv"):
        taken -= {"head_dim"}
    config = AutoConfig.for_model(kind, **{key: value for key, value in SMALL.items() if key in taken} | changes)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    if sum(parameter.numel() for parameter in whole.parameters()) > 3e6:
        return None
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    return AutoModelForCausalLM.from_config(config, **eager).eval()


def known(model, length=8):
    with torch.device("meta"):
        twin = type(model)(copy.deepcopy(model.config))
    try:
        return flops_per_token(twin, length)
    except UnknownFlops:
        return math.nan


def measured(model, length=8):
    return products_per_token(model, torch.randint(1, 60, (2, length)))


ANSWERED = ["bloom", "falcon", "gemma2", "gpt_neox", "gptj", "mistral", "mixtral", "mpt", "phi3", "qwen2_moe"]


@pytest.mark.parametrize("kind", ANSWERED)
def test_what_is_answered_is_what_torch_counts(kind):
    model = built(kind)
    assert known(model) == measured(model)


@pytest.mark.slow  # some 170 families are built
def test_what_is_answered_of_any_family_is_what_torch_counts():
    answered = set()
    for kind in families():
        model = done = None
        with contextlib.suppress(Exception):
            model = built(kind)
            done = None if model is None else measured(model)
        if done is not None and not math.isnan(known(model)):
            assert known(model) == done, kind
            answered.add(kind)
    mixtures = {"gpt_oss", "jetmoe", "granitemoe", "doge", "minimax_m2"}
    assert answered > {*ANSWERED, *mixtures, "llama", "gpt2", "qwen3", "olmoe", "opt", "gemma3_text"}


@pytest.mark.parametrize(
    ("kind", "full"), [("mistral", 0), ("llama", 2), ("gemma2", 1), ("qwen2", 2), ("qwen3_moe", 2), ("mixtral", 0)]
)
def test_a_window_counts_the_tokens_that_it_holds(kind, full):
    """Of two layers, so many attend to the whole sequence; the windows hold 8 tokens, of 4 heads of 8 numbers."""
    model = built(kind)
    assert known(model, 40) - known(model, 8) == 4 * full * 32 * 32


def test_chunks_count_as_windows():
    changes = {"layer_types": ["chunked_attention", "full_attention"], "attention_chunk_size": 8}
    model = built("llama", **changes)
    assert known(model, 40) - known(model, 8) == 4 * 32 * 32


UNKNOWN = ["rwkv", "prophetnet"]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_is_not_answered(kind):
    assert math.isnan(known(built(kind)))


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


@pytest.mark.parametrize("by_hand", PUBLISHED, ids=lambda by_hand: by_hand.__name__)
def test_published_models_are_counted_as_by_hand(by_hand):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**PUBLISHED[by_hand]))
    assert flops_per_token(model, 256) == pytest.approx(2 * by_hand(256), rel=1e-12)


def test_experts_that_compute_nothing_are_not_guessed():
    changes = {"zero_expert_num": 2, "ffn_hidden_size": 24, "expert_ffn_hidden_size": 8, "q_lora_rank": 8}
    changes |= {"kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "moe_topk": 2}
    assert math.isnan(known(built("longcat_flash", **changes)))


def test_what_is_not_known_is_said_once(recwarn):
    config = {"model_type": "rwkv", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2}
    decoder = HFDecoder(HFConfig(config=config))
    for _ in range(2):
        assert math.isnan(decoder.flops_per_token(16))
    [said] = [str(warning.message) for warning in recwarn if "FLOPs" in str(warning.message)]
    assert "RwkvForCausalLM are not known and logged as nan" in said
