"""Plans of transformers' models: parameters, memory as torch tracks it, and sentences on what is not known."""

import json
import logging
from functools import partial

import pytest
import torch
from test_plan import BATCH, LENGTH, guessed, tracked

from lit_core.errors import UserError
from lit_core.lightning.later_weights import weights_come_later
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, HFConfig
from lit_moe.plan.costs import describe, plan
from lit_moe.plan.layout import Layout
from lit_moe.plan.memory import total

transformers = pytest.importorskip("transformers", minversion="5.23")
SHAPE = {
    **{"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    **{"intermediate_size": 96, "vocab_size": 600, "num_experts_per_tok": 2},
}
QWEN = {"model_type": "qwen3_moe", "num_experts": 8, "moe_intermediate_size": 48, **SHAPE}
DEEPSEEK = {
    **{"model_type": "deepseek_v3", **SHAPE, "head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 8},
    **{"moe_intermediate_size": 48, "n_group": 1, "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16},
    **{"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1},
}
GPT_OSS = {"model_type": "gpt_oss", "num_local_experts": 8, "sliding_window": 64, **SHAPE}
LLAMA = {"model_type": "llama", **{key: value for key, value in SHAPE.items() if "experts" not in key}}


def task(config, later=True, **changes):
    theirs = HFConfig(config=config, **changes)
    with weights_come_later(later):
        return MoELanguageModel(
            DecoderConfig(config["vocab_size"]), hugging_face=theirs, optimizer=partial(torch.optim.AdamW, lr=1e-4)
        )


def largest(model, layout):
    return max(total(parts) for parts in guessed(model, layout).values())


@pytest.mark.slow  # each operation of a training step is followed
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("config", [QWEN, DEEPSEEK, GPT_OSS, LLAMA], ids=lambda config: config["model_type"])
def test_memory_is_what_torch_tracks(config, recompute, precision):
    model = task(config, later=False, activation_checkpointing=recompute)
    layout = Layout(micro_batch_size=BATCH, sequence_length=LENGTH, precision=precision)
    assert largest(model, layout) == pytest.approx(tracked(model, layout)[0], rel=0.15)


def test_parameters_are_those_of_the_model():
    network = describe(task(QWEN).decoder, Layout(sequence_length=16))
    built = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**QWEN))
    every = sum(parameter.numel() for parameter in built.parameters())
    experts = sum(one.numel() for layer in built.model.layers for one in layer.mlp.experts.parameters())
    assert sum(whole for whole, _ in network.parts.values()) == every
    assert network.parts["routed experts"] == (experts, experts * 2 // 8)
    assert network.parts["routers"] == (3 * 8 * 64,) * 2 and network.experts == 3 * 2
    assert sum(part.weights.whole for part in (*network.layers, network.outer)) == every
    assert sum(part.weights.routed for part in network.layers) == experts


def test_a_plan_says_what_it_does_not_know(monkeypatch):
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeAttention

    forward = Qwen3MoeAttention.forward

    def nosy(self, hidden_states, *args, **kwargs):
        if float(hidden_states.sum()) > 0:
            return forward(self, hidden_states, *args, **kwargs)
        return forward(self, -hidden_states, *args, **kwargs)

    model = task(QWEN)
    monkeypatch.setattr(Qwen3MoeAttention, "forward", nosy)
    text = plan(model, Layout(2, True, 2, sequence_length=16), tflops=1.0, bandwidth=1.0)
    assert "FLOPs and active parameters are not known" in text and "Memory is not known" in text
    assert "Traffic is not known" in text
    for absent in ("FLOPs of the model", "Memory of a device", "Sent by a device", "time at", "device-hours"):
        assert absent not in text
    assert "routed experts" in text and "not known" in text.splitlines()[8]


@pytest.mark.slow  # builds a small model of each mixture of transformers
def test_every_mixture_gets_a_plan_or_a_sentence():
    from lit_moe.doctor.families import mixture_families, small_config

    logging.disable(logging.WARNING)
    known = set()
    for kind in mixture_families():
        config = json.loads(small_config(kind).to_json_string(use_diff=False))
        model = task({"vocab_size": 128, **config})
        network = describe(model.decoder, Layout(sequence_length=16))
        assert sum(whole for whole, _ in network.parts.values()) == sum(p.numel() for p in model.parameters()), kind
        assert network.unknown or (network.knows_memory and network.flops and network.experts), kind
        known |= set() if network.unknown else {kind}
    logging.disable(logging.NOTSET)
    assert known > {"qwen3_moe", "deepseek_v3", "gpt_oss", "mixtral", "olmoe", "qwen2_moe", "glm4_moe", "jamba"}


def test_experts_that_cannot_be_divided_are_refused():
    with pytest.raises(UserError, match="a layer's 8 experts can't be divided evenly among 3 devices"):
        describe(task(QWEN).decoder, Layout(3, True, 3))
    with pytest.raises(UserError, match="LlamaForCausalLM has no stacked experts"):
        describe(task(LLAMA).decoder, Layout(2, True, 2))


def test_time_is_between_all_sending_hidden_and_none():
    model, layout = task(QWEN), Layout(4, True, 2, sequence_length=64)
    text = plan(model, layout, steps=1000, tflops=1e-3, bandwidth=1e-3, price=3600.0)
    assert "computing at 0.001 TFLOP/s" in text and "sending at 0.001 GB/s" in text
    hours = next(line.split()[1:] for line in text.splitlines() if "device-hours" in line)
    assert float(hours[0]) < float(hours[2])
    assert "to" in next(line for line in text.splitlines() if "money at" in line)
