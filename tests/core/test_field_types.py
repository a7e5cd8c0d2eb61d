"""Dataclasses that a config describes refuse values of other types in Python, too, each field by its name."""

import typing
from dataclasses import fields

import numpy as np
import pytest
import torch

import lit_moe.nn
from lit_core.errors import UserError
from lit_moe.module import MoELanguageModel
from lit_moe.nn import AdapterConfig, DecoderConfig, HFConfig, MoEConfig

NEEDED = {
    HFConfig: {"config": {"model_type": "mixtral"}},
    AdapterConfig: {"targets": ["q_proj"]},
    DecoderConfig: {"vocab_size": 8},
    MoEConfig: {"n_experts": 4, "top_k": 2, "expert_width": 8},
}
FIELDS = [(kind, field.name) for kind in NEEDED for field in fields(kind)]


def wrong_of(hint):
    """Return values that no parser would take for an annotation."""
    kinds = {hint, *typing.get_args(hint)}
    inside = {one for kind in kinds for one in typing.get_args(kind)}
    values = [b"x", object(), [3.5]]
    values += [] if MoEConfig in kinds else [{3.5: 1}]
    values += [] if float in kinds else [1.5]
    values += [] if str in kinds else ["x"]
    values += [] if type(None) in kinds else [None]
    values += [] if bool in kinds else [True, np.bool_(True)]
    values += ["q_proj", {}] if str in inside and "list" in str(hint) else []
    return values


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_each_field_of_each_config_refuses_other_types_in_a_sentence(kind, name):
    for value in wrong_of(typing.get_type_hints(kind)[name]):
        with pytest.raises(UserError, match=rf"`{name}` is .*, but must be .*; change it\.$"):
            kind(**{**NEEDED[kind], name: value})


def test_all_configs_of_networks_are_among_them():
    exported = [getattr(lit_moe.nn, name) for name in lit_moe.nn.__all__ if name.endswith("Config")]
    assert set(exported) == set(NEEDED)


def test_sentences_say_what_a_field_takes_and_numbers_of_others_are_numbers():
    with pytest.raises(UserError, match=r"^`top_k` is 1.5, but must be a whole number or null; change it\.$"):
        HFConfig("x", top_k=1.5)
    with pytest.raises(UserError, match=r"^`balance_weight` is 'x', but must be a number; change it\.$"):
        HFConfig("x", balance_weight="x")
    with pytest.raises(UserError, match="`selection_bias` is 'free', but must be frozen or loss_free"):
        HFConfig("x", selection_bias="free")
    with pytest.raises(
        UserError, match="`feed_forward` is 3, but must be dense, switch, granular or the fields of a Mo"
    ):
        DecoderConfig(8, feed_forward=3)
    with pytest.raises(
        UserError, match=r"`feed_forward` has 'n_expert', but its keys are .* Did you mean \"n_experts\"?"
    ):
        DecoderConfig(8, feed_forward={"n_expert": 4})
    with pytest.raises(UserError, match=r"`hugging_face` has 3\.5, but its keys are model, config"):
        MoELanguageModel(DecoderConfig(8), hugging_face={3.5: 1})
    with pytest.raises(UserError, match="`decoder` has no vocab_size, which a DecoderConfig needs; give it"):
        MoELanguageModel({"n_layers": 2})
    with pytest.raises(UserError, match="`targets` is 'q_proj', but must be a list, of which each is a text"):
        AdapterConfig("q_proj")
    config = HFConfig("x", top_k=np.int64(2), balance_weight=torch.tensor(1), activation_checkpointing=np.bool_(True))
    assert (type(config.top_k), type(config.balance_weight), config.activation_checkpointing) == (int, int, True)
