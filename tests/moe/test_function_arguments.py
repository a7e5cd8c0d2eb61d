"""Arguments that change what a network computes: refused on a resume, told elsewhere; each argument is tried."""

import dataclasses
import types
from functools import partial
from typing import Literal, get_args, get_type_hints

import pytest
import torch
from all_routers import CLASSES, arguments

from lit_core.errors import UserError
from lit_moe.module import MoELanguageModel
from lit_moe.nn import AdapterConfig, DecoderConfig, HFConfig, MoEConfig, SinkhornRouter
from lit_moe.nn.function_arguments import function_arguments
from lit_moe.nn.hf_config import LOSSES

MIXTURE = MoEConfig(n_experts=4, top_k=2, expert_width=8, n_shared=1, shared_gate=True)
DECODER = DecoderConfig(
    *(32, 1, 16, 2),
    **{"n_kv_heads": 2, "head_dim": 8, "d_ff": 16, "qk_norm": "head", "clip_qkv": 0.5, "feed_forward": MIXTURE},
)
TOKENS = torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(0))


def others(value, hint):
    """Other values of a field's type: each choice, the other truth, numbers near and far, and None if it may be."""
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if kind is types.NoneType:
            yield None
        elif getattr(kind, "__origin__", None) is Literal:
            yield from get_args(kind)
        elif kind is bool:
            yield not value
        elif kind in (int, float) and value is not None:
            yield from {kind(value * 2), kind(value / 2), kind(value + 1)}


def changed(config):
    """Each field of a dataclass with each other value that it takes."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, field.name)):
            for name, inner in changed(value):
                yield f"{field.name}.{name}", dataclasses.replace(config, **{field.name: inner})
            continue
        for other in others(value, hints[field.name]):
            try:
                if other != value:
                    yield field.name, dataclasses.replace(config, **{field.name: other})
            except UserError:
                continue


def described(module):
    return function_arguments(module.plain_arguments())


def logits(module, state):
    """Logits of a module with given weights; None if it has no place for them, or cannot run."""
    own = module.state_dict()
    if {name: one.shape for name, one in own.items()} != {name: one.shape for name, one in state.items()}:
        return None
    module.load_state_dict(state)
    with torch.no_grad():
        try:
            return module.eval()(TOKENS)
        except UserError:
            return None


@torch.no_grad()
def spread(module):
    for parameter in module.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))


def differing(first, variants, harmless):
    """Check that an argument is told exactly if logits of the same weights change, but for those that may be told.

    Returns what is told of each argument that leaves the shapes of the weights.
    """
    spread(first)
    state, before = first.state_dict(), described(first)
    expected = logits(first, state)
    tried = {}
    for name, module in variants:
        found = logits(module, state)
        now = described(module)
        told = [key for key in now if key in before and now[key] != before[key]]
        if found is not None:
            same = torch.equal(found, expected)
            assert told or same, f"{name} changes the logits and is not told"
            assert not told or not same or name.partition(".")[0] in harmless, (
                f"{name} changes nothing, but {told} is told"
            )
            tried[name] = told
    return tried


def test_each_argument_of_the_decoder_is_told_if_and_only_if_it_changes_the_logits():
    variants = ((name, MoELanguageModel(one, seed=0)) for name, one in changed(DECODER))
    tried = differing(MoELanguageModel(DECODER, seed=0), variants, harmless=set())
    told = {name for name, keys in tried.items() if keys}
    assert told >= {"activation", "rope_theta", "rope_fraction", "clip_qkv", "norm_eps", "feed_forward.top_k"}
    assert told >= {"feed_forward.normalize_top_k"}
    assert {"max_seq_len", "activation_checkpointing", "feed_forward.backend"} <= tried.keys() - told


def test_a_shape_that_is_written_out_is_the_same_as_a_default():
    mixture = MoEConfig(n_experts=8, top_k=1, expert_width=704)
    written = DecoderConfig(32, n_kv_heads=4, head_dim=64, feed_forward=mixture)
    shapes = [dataclasses.asdict(each) for each in (DecoderConfig(32, feed_forward="switch"), written)]
    one, two = (function_arguments({"decoder": shape}) for shape in shapes)
    assert one == two and function_arguments({"decoder": {"vocab_size": 32, "feed_forward": "switch"}}) == one


@pytest.mark.parametrize("foreign", [None, 3, "text", [1], {"class_path": 3}, {"rank": "x"}, {"config": [1]}])
def test_arguments_of_another_kind_are_not_compared(foreign):
    for name in ("decoder", "router", "hugging_face", "adapter"):
        assert isinstance(function_arguments({"decoder": {"vocab_size": 8}, name: foreign}), dict)


def test_a_router_counts_by_its_class_and_by_whether_it_normalises():
    keys = {"router", "decoder.feed_forward.normalize_top_k"}
    plain = described(MoELanguageModel(DECODER, seed=0))
    for kind in CLASSES:
        router = partial(kind, **arguments(kind))
        now = described(MoELanguageModel(DECODER, router=router, seed=0))
        assert {key for key in now if now[key] != plain[key]} == ({"router"} if kind is not SinkhornRouter else set())
    now = described(MoELanguageModel(DECODER, router=partial(SinkhornRouter, normalize_top_k=True), seed=0))
    assert {key for key in now if now[key] != plain[key]} == keys - {"router"}


SHAPE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
SHAPE |= {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 8}
#: What the defaults of a type do not fit to these sizes.
FITTING = {
    "qwen3_moe": {"num_experts_per_tok": 2},
    "deepseek_v3": {
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
        **{"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8},
    },
}


def theirs(model_type, **changes):
    pytest.importorskip("transformers")
    config = {"model_type": model_type, **SHAPE, **FITTING.get(model_type, {}), **changes}
    return MoELanguageModel(DecoderConfig(32), hugging_face=HFConfig(config=config), seed=0)


def keys_with_others(config):
    """Each key of a config of transformers with another value, also inside mappings."""
    for key, value in config.items():
        if isinstance(value, dict):
            for inner, changes in keys_with_others(value):
                yield f"{key}.{inner}", {key: value | changes}
        elif isinstance(value, bool):
            yield key, {key: not value}
        elif isinstance(value, int | float) and value:
            yield from ((key, {key: type(value)(other)}) for other in (2 * value, value / 2))
        elif value in ("silu", "gelu"):
            yield key, {key: "relu"}


def variants(model_type, config):
    for key, changes in keys_with_others({key: value for key, value in config.items() if key not in SHAPE}):
        try:
            yield key, theirs(model_type, **changes)
        except UserError:
            continue


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "gpt_oss", "granitemoe", "deepseek_v3"])
def test_each_key_of_a_config_of_transformers_that_changes_the_logits_is_told(model_type):
    first = theirs(model_type)
    config = first.decoder.describe()["config"]
    tried = differing(first, variants(model_type, config), harmless=config.keys())
    assert sum(map(bool, tried.values())) >= 3, "such as top-k, theta and the activation"


def test_losses_and_ways_of_training_a_model_of_transformers_are_not_told():
    config = {"model_type": "mixtral", **SHAPE}
    given = {"gates": "gate", "top_k": 2, "activation_checkpointing": True, **dict.fromkeys(LOSSES, 0.5)}
    others = {"model", "config", "selection_bias", "bias_rate"}  # of which one is the network, and a gate has no bias
    assert given.keys() | others == {field.name for field in dataclasses.fields(HFConfig)}
    changed = MoELanguageModel(DecoderConfig(32), hugging_face=HFConfig(config=config, **given), seed=0)
    assert described(changed) == described(theirs("mixtral"))


@pytest.fixture
def adapted(tmp_path, token_root, make_trainer):
    """A function that trains adapters of an alpha for some steps, from a checkpoint if there is one."""
    from test_module import tiny_data, tiny_decoder

    pytest.importorskip("peft")

    def fit(alpha, steps, **options):
        module = MoELanguageModel(tiny_decoder(), adapter=AdapterConfig(["attention.q"], rank=2, alpha=alpha), seed=1)
        trainer = make_trainer(max_steps=steps, limit_val_batches=0)
        trainer.fit(module, datamodule=tiny_data(token_root), weights_only=True, **options)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        return module, trainer

    return fit


def told(recorded):
    return [str(warning.message) for warning in recorded if "in the checkpoint" in str(warning.message)]


def test_a_resume_with_another_alpha_is_refused_and_any_other_use_says_so(adapted, tmp_path, recwarn):
    module, _ = adapted(16.0, 1)
    adapted(16.0, 2, ckpt_path=tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    module.on_load_checkpoint(checkpoint)
    assert not told(recwarn)
    with pytest.raises(UserError, match=r"`adapter.alpha` is 4.0, but 16.0 in the checkpoint, and a resume cannot"):
        adapted(4.0, 3, ckpt_path=tmp_path / "run.ckpt")
    MoELanguageModel(
        DecoderConfig(**module.hparams["decoder"]), adapter=AdapterConfig(["attention.q"], rank=2, alpha=4.0)
    ).on_load_checkpoint(checkpoint)
    [said] = told(recwarn)
    assert said.startswith("`adapter.alpha` is 4.0, but 16.0 in the checkpoint, so the network does not compute what")
