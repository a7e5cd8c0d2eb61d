"""FLOPs of transformers' families: what is answered is what torch counts; anything else is not answered."""

import contextlib
import math
from functools import cache

import pytest
import torch
from hf_models import SHAPE
from torch.utils.flop_counter import FlopCounterMode

from lit_moe.nn import HFConfig, HFDecoder, watch_gates
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
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}  # torch counts those
    return AutoModelForCausalLM.from_config(config, **eager).eval()


def known(model, length=8):
    try:
        return flops_per_token(model, watch_gates(model), length)
    except UnknownFlops:
        return math.nan


def measured(model, length=8):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randint(1, 60, (2, length)), use_cache=False)
    return counter.get_total_flops() / (2 * length)


ANSWERED = ["bloom", "falcon", "gemma2", "gpt_neox", "gptj", "mistral", "mixtral", "mpt", "phi3", "qwen2_moe"]


@pytest.mark.parametrize("kind", ANSWERED)
def test_what_is_answered_is_what_torch_counts(kind):
    model = built(kind)
    assert known(model) == measured(model)


@pytest.mark.slow  # some 170 families are built
def test_what_is_answered_of_any_family_is_what_torch_counts():
    answered = set()
    for kind in families():
        model = None
        with contextlib.suppress(Exception):
            model = built(kind)
        if model is not None and not math.isnan(known(model)):
            assert known(model) == measured(model), kind
            answered.add(kind)
    assert answered > {*ANSWERED, "llama", "gpt2", "qwen3", "olmoe", "opt", "gemma3_text"}


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


UNKNOWN = ["mamba", "rwkv", "diffllama", "doge", "minicpm3", "jamba", "qwen3_next", "gpt_oss", "granitemoe", "bart"]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_is_not_answered(kind):
    assert math.isnan(known(built(kind)))


def test_what_is_not_known_is_said_once(recwarn):
    config = {"model_type": "mamba", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    decoder = HFDecoder(HFConfig(config=config))
    for _ in range(2):
        assert math.isnan(decoder.flops_per_token(16))
    [said] = [str(warning.message) for warning in recwarn if "FLOPs" in str(warning.message)]
    assert "MambaForCausalLM are not known and logged as nan" in said
