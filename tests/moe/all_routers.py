"""Every router that lit_moe exports, found by its base class; needed arguments are those of the router's config."""

import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from needed import needed_arguments

import lit_moe.nn
from lit_moe.nn import Router

CONFIGS = Path(__file__).parents[2] / "configs" / "moe" / "router"
CLASSES = [
    part
    for part in map(vars(lit_moe.nn).get, lit_moe.nn.__all__)
    if inspect.isclass(part) and issubclass(part, Router) and not inspect.isabstract(part)
]


def arguments(kind):
    """Return the arguments that a router needs beside the two numbers of experts, as its config gives them."""
    described = [yaml.safe_load(path.read_text())["model"]["init_args"]["router"] for path in CONFIGS.glob("*.yaml")]
    return needed_arguments(kind, described, given=2)


def made(kind):
    """Return what makes a router of a class from the two numbers of experts."""
    needed = arguments(kind)
    return partial(kind, **needed) if needed else kind


def balances(router):
    """Tell whether what a router does depends on the load of the batch."""
    losses = router.losses(torch.ones(()), torch.ones(()))
    return router.differs_in_training or router.counts_steps or any(loss is not None for loss in losses)


def draws(router):
    """Tell whether a router in training draws at random: whether two calls on the same tokens differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        once, again = (router.train()(torch.zeros(64, router.n_experts)) for _ in range(2))
        perturbed = [router.perturb(torch.ones(64, 8)) for _ in range(2)]
    return not torch.equal(once.indices_Tk, again.indices_Tk) or not torch.equal(*perturbed)


ROUTERS = [pytest.param(made(kind), id=kind.__name__) for kind in CLASSES]
#: Those that do not draw at random, so that their routing does not depend on how tokens are divided among calls.
DRAWLESS = [pytest.param(made(kind), id=kind.__name__) for kind in CLASSES if not draws(made(kind)(4, 2))]
#: Those of them whose training depends on the load of the batch.
BALANCED = {kind.__name__: made(kind) for kind in CLASSES if balances(made(kind)(4, 2)) and not draws(made(kind)(4, 2))}
