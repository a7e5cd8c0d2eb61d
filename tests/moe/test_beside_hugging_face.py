"""Each argument of the task that is given beside a model of transformers changes something, or is refused by name."""

import inspect
import typing
from dataclasses import MISSING, asdict, fields, replace
from functools import partial

import pytest
import torch
from bad_input import said
from test_adapters import SHAPE

from lit_core.errors import UserError
from lit_core.lightning.schedules import WarmupCosine
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.module import MoELanguageModel
from lit_moe.nn import AdapterConfig, DecoderConfig, HFConfig, PenaltyRouter, SinkhornRouter

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
SIZE = 384
#: Random weights, and those of a folder, which none of the arguments of a network's description can change.
RANDOM = {"model_type": "deepseek_v3", **SHAPE, "n_routed_experts": 4, "moe_intermediate_size": 16, "vocab_size": SIZE}
RANDOM |= {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
}
RANDOM |= {
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 2,
}
RANDOM |= {"num_hidden_layers": 3}
GIVEN = {
    "router": PenaltyRouter,
    "optimizer": partial(torch.optim.SGD, lr=0.5),
    "scheduler": partial(WarmupCosine, total_steps=9),
    "seed": 5,
    "freeze": ["mlp.gate"],
    "lr_factors": {"mlp.gate": 0.5},
    "adapter": AdapterConfig(["experts"]),
}
OF_THE_MODEL = {  # with what it needs beside it
    "gates": {"gates": r"1\.mlp\.gate"},
    "top_k": {"top_k": 1},
    "selection_bias": {"selection_bias": "loss_free"},
    "bias_rate": {"bias_rate": 0.5, "selection_bias": "loss_free"},
    "activation_checkpointing": {"activation_checkpointing": True},
    **{name: {name: 0.5} for name in ("balance_weight", "z_weight", "sequence_weight", "global_weight")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, token_root):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(**RANDOM)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    Tokenizer.load(str(token_root)).save(path)
    return str(path)


def task(described, decoder=None, **arguments):
    torch.manual_seed(0)
    return MoELanguageModel(decoder or DecoderConfig(SIZE), hugging_face=described, **arguments)


def state(module):
    """Return all that arguments can change in a task, and all that its gates and layers are told."""
    optimizers = module.configure_optimizers()
    optimizer = optimizers["optimizer"] if isinstance(optimizers, dict) else optimizers
    weights = [(name, p.requires_grad, float(p.detach().double().sum())) for name, p in module.named_parameters()]
    groups = [{k: v for k, v in group.items() if k != "params"} | {"n": len(group["params"])}
              for group in optimizer.param_groups]  # fmt: skip
    gates = {
        name: {
            k: repr(v) if k == "bias" and v is None else str(v).split(" at ")[0] for k, v in vars(gate.router).items()
        }
        for name, gate in module.decoder.watched.items()
    }
    recomputed = [getattr(part, "gradient_checkpointing", None) for part in module.modules()]
    hooks = len(optimizer._optimizer_step_pre_hooks)
    schedule = type(optimizers.get("lr_scheduler", {}).get("scheduler")) if isinstance(optimizers, dict) else None
    return str((weights, type(optimizer), groups, gates, recomputed, hooks, schedule))


def other(kind, value):
    """Return another value of a field's type."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return next(choice for choice in inner if choice != value)
    if bool in (kind, *inner) or isinstance(value, bool):
        return not value
    if value is None:
        kind = next(one for one in inner if one is not type(None))
        return 2 * kind(2) if kind in (int, float) else other(kind, None)
    return value / 2 if isinstance(value, float) else value * 2 if isinstance(value, int) else "granular"


@pytest.mark.slow  # twenty models are built, and each is tried; what is refused is so before, as the next tests show
def test_each_argument_of_the_task_has_an_effect_or_is_refused(folder):
    assert set(inspect.signature(MoELanguageModel).parameters) == {"decoder", "hugging_face", *GIVEN}
    refused = {}
    for described in (HFConfig(config=RANDOM), HFConfig(folder)):
        plain = state(task(described))
        for name, value in GIVEN.items():
            try:
                changed = state(task(described, **{name: value}))
            except UserError as error:
                assert f"`{name}`" in str(error) and "leave it out" in str(error)
                refused.setdefault(name, []).append(described.model)
            else:
                assert changed != plain, name
    assert refused == {"router": [None, folder], "seed": [folder]}
    assert state(task(HFConfig(folder), seed=5, adapter=GIVEN["adapter"])) != state(
        task(HFConfig(folder), seed=6, adapter=GIVEN["adapter"])
    )


@pytest.mark.slow  # as the former
def test_each_field_of_the_model_has_an_effect():
    assert set(OF_THE_MODEL) == {field.name for field in fields(HFConfig)} - {"model", "config"}
    for name, given in OF_THE_MODEL.items():
        without = {key: value for key, value in given.items() if key != name}
        tasks = [task(replace(HFConfig(config=RANDOM), **some)) for some in (given, without)]
        assert state(tasks[0]) != state(tasks[1]), name


def test_each_field_of_the_decoder_is_refused_and_its_default_is_not():
    described, hints = HFConfig(config=RANDOM), typing.get_type_hints(DecoderConfig)
    with_default = [field for field in fields(DecoderConfig) if field.default is not MISSING]
    assert len(with_default) > 15
    for field in with_default:
        value = other(hints[field.name], field.default)
        with pytest.raises(UserError, match=rf"`decoder.{field.name}` \({value}\) has no effect beside"):
            task(described, replace(DecoderConfig(SIZE), **{field.name: value}))
    with pytest.raises(UserError, match=r"have no effect .* is `hugging_face.activation_checkpointing`; .*: 4, False"):
        task(described, DecoderConfig(SIZE, n_layers=2, activation_checkpointing=True))
    with pytest.raises(UserError, match="`router` is PenaltyRouter, without effect beside `hugging_face`"):
        task(described, router=PenaltyRouter)
    with pytest.raises(UserError, match=r"`seed` is 5, but all weights are read from `hugging_face\.model`"):
        task(HFConfig("folder"), seed=5)
    task(described, asdict(DecoderConfig(SIZE)), router=partial(SinkhornRouter))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param(
            ["--config", "configs/moe/quickstart/pretrain.yaml"], "`decoder.n_layers` (3), `decoder.d_model` ("
        ),
        *(
            pytest.param(given, name, marks=pytest.mark.slow)  # each is a start of the command line
            for given, name in (
                (["--model.router", "PenaltyRouter"], "`router` is PenaltyRouter"),
                (
                    ["--model.router", "SinkhornRouter", "--model.router.normalize_top_k", "true"],
                    "`router` is Sinkhorn",
                ),
                (["--model.decoder.n_layers", "2"], "`decoder.n_layers` (2)"),
            )
        ),
    ],
)
def test_an_argument_without_effect_is_named_on_the_command_line(given, name, tmp_path, monkeypatch, token_root):
    monkeypatch.chdir(tmp_path)
    files = ["quickstart/hugging_face.yaml", "hugging_face/mixtral.yaml"]
    base = [part for file in files for part in ("--config", f"configs/moe/{file}")]
    code, lines = said(["fit", *base, "--data.root", str(token_root), "--run", "x", *given])
    assert code == 2 and len(lines) == 1 and name in lines[0], lines


def test_what_only_concerns_untrained_parameters_is_refused():
    described = HFConfig(config=RANDOM)
    for arguments in (
        {"adapter": AdapterConfig(["experts"]), "freeze": ["mlp.gate"]},
        {"adapter": AdapterConfig(["experts"]), "lr_factors": {"mlp.gate": 0.5}},
        {"freeze": ["mlp"], "lr_factors": {"mlp.gate": 0.5}},
    ):
        with pytest.raises(
            UserError, match=r"mlp\.gate, which names only parameters that are not trained; leave it out"
        ):
            task(described, **arguments)
