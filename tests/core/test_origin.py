"""What `described` keeps of an argument: what a config would name, and a note of what has no such form."""

import copy
import inspect
import pickle
import pydoc
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from kinds import CONFIGS, KINDS, entries
from torch import nn
from torch.optim import SGD, Optimizer

from lit_core.lightning.optimizers import OptimizerCallable
from lit_core.origin import KeepsOrigin, described, keeps_origin, unkept
from lit_detect.detectors import Ensemble, EntityStatistics
from lit_moe.nn import DecoderConfig, HFConfig, MoEConfig
from lit_valuation.nn import MLP


class Part(KeepsOrigin):
    def __init__(self, size, *, other=None, **more):
        self.size, self.other, self.more = size, other, more


@keeps_origin
def make(size, other=3):
    return Part(size * 2)


def plain_sgd(params) -> Optimizer:
    return SGD(params, lr=0.1)


def bare_sgd(params):
    return SGD(params, lr=0.1)


PART, HERE = f"{__name__}.Part", __name__
OTHER = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (torch.tensor(2), 2),
        (torch.Size([1, 8]), [1, 8]),
        (np.array([1.0, 2.0]), [1.0, 2.0]),
        (Path("a/b"), "a/b"),
        (OrderedDict(a=(1, np.float64(2))), {"a": [1, 2.0]}),
        (SGD, {"class_path": "torch.optim.SGD"}),
        (partial(SGD, lr=np.float64(0.1)), {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}),
        (HFConfig(config={"model_type": "llama"}).config, {"model_type": "llama"}),
        (
            Part(np.int64(1), other=Part(2), third="x"),
            {
                "class_path": PART,
                "init_args": {
                    "size": 1,
                    "other": {"class_path": PART, "init_args": {"size": 2, "other": None}},
                    "third": "x",
                },
            },
        ),
        (make(2), {"class_path": f"{HERE}.make", "init_args": {"size": 2, "other": 3}}),
        (copy.deepcopy(Part(1)), {"class_path": PART, "init_args": {"size": 1, "other": None}}),
        (pickle.loads(pickle.dumps(Part(1))), {"class_path": PART, "init_args": {"size": 1, "other": None}}),
        (lambda: 1, {"not_kept": "a lambda"}),
        (OTHER, {"not_kept": "a Linear that was built before"}),
        (partial(bare_sgd, lr=1), {"not_kept": "a partial"}),
        (torch.zeros(2), {"not_kept": "a Tensor"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_value_is_kept_as_a_config_would_name_it(value, plain):
    assert described(value) == plain


def test_a_dataclass_is_kept_with_those_in_it():
    config = DecoderConfig(np.int64(8), feed_forward=MoEConfig(4, 2, 8))
    assert DecoderConfig(**described(config)) == config


def test_a_function_is_kept_where_a_config_can_name_it():
    assert described(plain_sgd, OptimizerCallable) == f"{HERE}.plain_sgd"
    assert list(unkept(described({"a": [bare_sgd]}))) == [("a.0", "bare_sgd, which a config cannot name")]


def test_arguments_are_those_that_were_given_whatever_becomes_of_them():
    hidden = [3]
    network = MLP((4,), 2, hidden)
    hidden.append(5)
    assert described(network)["init_args"]["hidden"] == [3]


def test_a_detector_is_kept_with_those_in_it():
    plain = described(Ensemble([EntityStatistics(), EntityStatistics(64)]))
    assert [part["init_args"]["max_tokens"] for part in plain["init_args"]["members"]] == [512, 64]
    assert not list(unkept(plain))


def test_each_function_that_makes_a_part_of_a_detector_notes_its_arguments():
    paths = {path for kind in KINDS if "detector" in kind.folder for path in kind.paths}
    named = {part["class_path"] for path in paths for part in entries(yaml.safe_load(path.read_text()), "**")}
    functions = [part for part in map(pydoc.locate, named) if inspect.isroutine(part)]
    assert CONFIGS and len(functions) > 1
    assert all(hasattr(part, "__wrapped__") for part in functions), functions


def test_a_class_that_a_parser_leaves_to_be_called_is_described():
    parser = ArgumentParser()
    parser.add_argument("--optimizer", type=Callable[[list], SGD])
    config = parser.parse_args(["--optimizer", "torch.optim.SGD", "--optimizer.lr", "0.5"])
    assert described(parser.instantiate(config).optimizer)["init_args"]["lr"] == 0.5
