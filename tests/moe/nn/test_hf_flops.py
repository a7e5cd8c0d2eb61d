"""FLOPs of transformers' families: what is answered is what torch counts; anything else is not answered."""

import contextlib
import copy
import math
from functools import cache

import pytest
import torch
from hf_models import SHAPE
from published_flops import PUBLISHED

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
