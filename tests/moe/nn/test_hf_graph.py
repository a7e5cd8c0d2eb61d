"""What is found in the graph of a model before it is trained."""

import pytest
from hf_models import config, tokens

from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import HFConfig, HFDecoder

pytest.importorskip("transformers")


def test_who_sees_later_tokens_is_warned_of():
    bert = dict(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.warns(UserWarning, match="BertLMHeadModel lets a token see later ones"):
        HFDecoder(HFConfig(config={"model_type": "bert", **bert}))


def test_what_gets_no_gradient_is_frozen_and_all_else_gets_one():
    with pytest.warns(UserWarning, match=r"20 parameters of DeepseekV32ForCausalLM get no gradient.*indexer"):
        ours = Specimen(small_config("deepseek_v32"), seed=0).decoder()
    ours(tokens(2, 9)).logsumexp(-1).mean().backward()
    assert {name for name, each in ours.named_parameters() if each.grad is None} == {
        name for name, each in ours.named_parameters() if ".indexer." in name and not each.requires_grad
    }


def test_infinite_numbers_of_a_config_come_back():
    ours = Specimen(small_config("granitemoehybrid"), seed=0).decoder()
    described = ours.describe()
    assert described["config"]["time_step_limit"] == [0.0, float("inf")]
    assert HFDecoder(HFConfig(**described)).config.time_step_limit == ours.config.time_step_limit
    described["config"]["time_step_limit"][1] = {"__float__": "Infinity"}  # as checkpoints held it
    assert tuple(HFDecoder(HFConfig(**described)).config.time_step_limit) == (0.0, float("inf"))


def test_a_model_that_is_causal_and_trained_whole_is_left_as_it_is(recwarn):
    ours = HFDecoder(HFConfig(config=config("mixtral")))
    assert all(each.requires_grad for each in ours.parameters()) and not recwarn.list
