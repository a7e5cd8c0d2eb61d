"""A small random copy of a model of transformers has each of its kinds of layer, and no part of it is idle."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lit_moe.doctor.families import build, holds_mixture, mixture_families, small_config, unbuilt
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import watch_gates
from lit_moe.nn.hf_shrink import shrink

FEW = ["gpt_oss", "deepseek_v3"]


def _chosen(decoder, tokens):
    """Return the experts that each mixture layer was called with, by hooks on the experts."""
    chosen = []

    def note(module, args, output):
        chosen.append(next(a for a in args if not a.is_floating_point()))

    for name, module in decoder.named_modules():
        if name.endswith(".experts"):
            module.register_forward_hook(note)
    decoder(tokens)
    return chosen


@pytest.mark.parametrize("model_type", FEW)
def test_a_small_model_is_small_and_routes_by_token(model_type):
    specimen = Specimen(small_config(model_type))
    decoder, tokens = specimen.decoder(), specimen.tokens(2, 32)
    assert sum(p.numel() for p in decoder.parameters()) < 1_000_000
    chosen = _chosen(decoder, tokens)
    assert len(chosen) >= 2
    for indices_Tk in chosen:
        assert indices_Tk.shape == (64, 2)
        assert len(indices_Tk.unique()) >= 4
    again = specimen.decoder()
    assert all(
        torch.equal(a, b) for a, b in zip(decoder.state_dict().values(), again.state_dict().values(), strict=True)
    )
    state, other = decoder.state_dict(), Specimen(small_config(model_type), seed=1).decoder().state_dict()
    assert not any(torch.equal(state[name], other[name]) for name in state)
    module = specimen.module()
    assert all(torch.equal(state[name], value) for name, value in module.decoder.state_dict().items())


@pytest.mark.slow  # a gate of each family is found
def test_a_small_model_chooses_several_experts_where_the_real_one_does():
    one = {"llama4_text", "zaya"}  # of which transformers' own and the published configs choose one
    for model_type in mixture_families():
        with torch.device("meta"):
            gates = watch_gates(build(small_config(model_type)))
        expected = {1} if model_type in one else {2} if gates else set()
        assert {gate.router.top_k for gate in gates.values()} == expected, model_type


def test_a_small_dbrx_chooses_several_experts():
    assert small_config("dbrx").ffn_config.moe_top_k == 2 and small_config("dbrx").ffn_config.moe_num_experts == 16


def test_selection_biases_are_random_and_change_the_choice():
    specimen = Specimen(small_config("deepseek_v3"))
    decoder, tokens = specimen.decoder(), specimen.tokens(2, 32)
    biases = [b for name, b in decoder.named_buffers() if name.endswith("e_score_correction_bias")]
    assert biases and all(len(b.unique()) == len(b) for b in biases)
    chosen = _chosen(decoder, tokens)[0].sort(-1).values
    biases[0].zero_()
    assert not torch.equal(chosen, _chosen(decoder, tokens)[0].sort(-1).values)


def test_each_kind_of_layer_stays_in_its_order():
    config = AutoConfig.for_model(
        "gpt_oss", num_hidden_layers=36, num_local_experts=128, num_experts_per_tok=4, hidden_size=2880
    )
    small = shrink(config)
    assert small.layer_types == ["sliding_attention", "full_attention"] * 2
    assert (small.num_hidden_layers, small.num_local_experts, small.num_experts_per_tok) == (4, 16, 2)
    assert config.num_hidden_layers == 36
    small = shrink(AutoConfig.for_model("deepseek_v3", n_group=8, topk_group=4))
    assert small.first_k_dense_replace == 1
    assert (small.n_group, small.topk_group) == (4, 2)
    assert small.qk_head_dim == small.qk_nope_head_dim + small.qk_rope_head_dim
    assert small.num_key_value_heads == small.num_attention_heads
    small = shrink(AutoConfig.for_model("glm4_moe_lite", num_hidden_layers=47))
    assert small.mlp_layer_types == ["dense", "sparse", "sparse", "sparse"]


def test_a_published_config_is_shrunk_without_what_belongs_to_its_files():
    quantized = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    files = {"auto_map": {"AutoModelForCausalLM": "own.Own"}, "torch_dtype": "bfloat16"}
    config = AutoConfig.for_model("deepseek_v3", quantization_config=quantized, **files)
    small = shrink(config)
    assert not {"auto_map", "quantization_config"} & {*small.to_dict()} and small.dtype is None
    assert not hasattr(small, "quantization_config") and config.quantization_config == quantized


def test_a_dense_model_holds_no_mixture():
    for config in (
        AutoConfig.for_model("qwen3", num_hidden_layers=2),
        AutoConfig.for_model("qwen3_moe", num_hidden_layers=2, mlp_only_layers=[0, 1], decoder_sparse_step=1),
    ):
        with torch.device("meta"):
            assert not holds_mixture(build(shrink(config)))


# slow: it imports and builds each of the 60 families of transformers
@pytest.mark.slow
def test_every_family_whose_model_has_experts_is_found_and_builds():
    families = mixture_families()
    assert unbuilt() == {}
    # by the text of transformers: the modules with a causal language model and a class of experts or of a router
    folder = Path(importlib.util.find_spec("transformers").submodule_search_locations[0]) / "models"
    names = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    built = {type(build(small_config(name))).__name__ for name in families}
    for source in folder.glob("*/modeling_*.py"):
        text = source.read_text()
        if re.search(r"^class \w*(Experts|MoE|Moe|SparseMoeBlock|Router)\b", text, re.M):
            classes = set(re.findall(r"^class (\w+ForCausalLM)\b", text, re.M)) & names
            assert classes <= built, source
    for name in families:
        specimen = Specimen(small_config(name))
        decoder = specimen.decoder()
        assert sum(p.numel() for p in decoder.parameters()) < 1_000_000, name
        assert decoder(specimen.tokens(2, 32)).isfinite().all(), name
