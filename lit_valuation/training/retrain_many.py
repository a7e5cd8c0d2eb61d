"""Retraining many small classifiers at once: their parameters are rows of stacked tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F

from lit_core.errors import RunFailure, UserError
from lit_core.lightning.optimizers import build_optimizers
from lit_core.seeds import part_seed
from lit_valuation.module import ClassifierTask
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import Mode, TrainingRecipe, batch_rows


def retrain_many(
    recipe: TrainingRecipe,
    train: Samples,
    shared: Sequence[Samples | None],
    seed: int | None = None,
    mode: Mode = "scratch",
    steps: Sequence[int] | None = None,
    at_once: int = 32,
    weights: Sequence[Tensor | None] | None = None,
) -> list[ClassifierTask]:
    """Train a classifier with each of several answers; up to rounding the same as `retrain` with each, but faster.

    Args:
        recipe: Settings of the training, without Trainer arguments; its ``make`` must return a `ClassifierTask`.
        train: The trainer's own training set.
        shared: Shared samples of each answer, whose classes are matched by name; None adds nothing.
        seed: Seed of the initial weights and of the order of samples, 0 or more; None takes that of the run.
        mode: Whether to train from scratch or from the recipe's weights.
        steps: Ascending steps after which a copy of each classifier is returned; None returns those after the recipe's
            last step.
        at_once: Number of classifiers that are trained at once, 1 or more.
        weights: Weights of the samples in the loss for each answer, as `retrain` takes them; None for 1 each.

    Returns:
        The classifiers in evaluation mode: those of the first answer at all steps, then those of the second, …

    Raises:
        UserError: If the recipe has Trainer arguments or an augmentation, or has no weights to fine-tune.
        RunFailure: If a loss is not finite.
    """
    if recipe.trainer:
        raise UserError(f"The recipe sets {next(iter(recipe.trainer))} of the Trainer; use retrain, which has one.")
    if mode == "finetune" and recipe.weights is None:
        raise UserError("mode is finetune, but the recipe has no weights to start from; give some, or use scratch.")
    seed = part_seed(seed)
    moments = [recipe.steps] if steps is None else list(steps)
    trained: list[ClassifierTask] = []
    given = [None] * len(shared) if weights is None else list(weights)
    for start in range(0, len(shared), at_once):
        part = slice(start, start + at_once)
        trained += _train(recipe, train, shared[part], given[part], seed, mode, moments)
    return trained


def _train(
    recipe: TrainingRecipe,
    train: Samples,
    shared: Sequence[Samples | None],
    weights: Sequence[Tensor | None],
    seed: int,
    mode: Mode,
    moments: Sequence[int],
) -> list[ClassifierTask]:
    task = _made(recipe, seed)
    if mode == "finetune":
        task.load_state_dict(recipe.weights or {})
    stacked = {name: value.detach().repeat(len(shared), *[1] * value.ndim) for name, value in _state(task).items()}
    parameters = {name: stacked[name].requires_grad_() for name, _ in task.network.named_parameters()}
    optimizer, scheduler = _optimizer(task, parameters)
    x, y, rows_JSB, weight_JSB = _data(recipe, train, shared, weights, seed, moments[-1])

    def loss(state: dict[str, Tensor], x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        logits = functional_call(task.network, state, x)
        nll = F.cross_entropy(logits, y, label_smoothing=task.label_smoothing, reduction="none")
        return (nll * weight).mean()

    losses = vmap(loss, randomness="different")
    task.network.train()
    trained: dict[int, list[ClassifierTask]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(1, moments[-1] + 1):
            rows = rows_JSB[:, step - 1]
            total = losses(stacked, x[rows], y[rows], weight_JSB[:, step - 1]).sum()
            if not torch.isfinite(total):
                raise RunFailure(f"The loss became {total.item()} at step {step - 1}; lower the learning rate.")
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            if step in moments:
                trained[step] = [_unstacked(recipe, seed, stacked, row) for row in range(len(shared))]
    return [trained[step][row] for row in range(len(shared)) for step in moments]


def _made(recipe: TrainingRecipe, seed: int) -> ClassifierTask:
    task = recipe.make(seed)
    if getattr(task, "augmentation", None) is not None:
        raise UserError("The recipe's classifier has an augmentation, which draws per training; use retrain.")
    assert isinstance(task, ClassifierTask)
    return task


def _state(task: ClassifierTask) -> dict[str, Tensor]:
    return dict(task.network.named_parameters()) | dict(task.network.named_buffers())


def _optimizer(task: ClassifierTask, parameters: dict[str, Tensor]) -> tuple[torch.optim.Optimizer, Any]:
    """Return the task's own optimizer and schedule, on the stacked parameters; the optimizer must work elementwise."""
    built = build_optimizers(task, task.optimizer, task.scheduler)
    optimizer = built["optimizer"] if isinstance(built, dict) else built
    names = {id(parameter): name for name, parameter in task.network.named_parameters()}
    for group in optimizer.param_groups:
        group["params"] = [parameters[names[id(parameter)]] for parameter in group["params"]]
    return optimizer, built["lr_scheduler"]["scheduler"] if isinstance(built, dict) else None


def _data(
    recipe: TrainingRecipe,
    train: Samples,
    shared: Sequence[Samples | None],
    weights: Sequence[Tensor | None],
    seed: int,
    steps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs, class indices, and rows and weights of each batch as in `retrain`, ``(tasks, steps, batch)``."""
    sets = [train, *(answer.renumbered(train.classes) for answer in shared if answer is not None)]
    x, y = torch.cat([part.inputs() for part in sets]), torch.cat([part.y for part in sets])
    orders, weighted, begin = [], [], len(train)
    for answer, given in zip(shared, weights, strict=True):
        end = begin + (0 if answer is None else len(answer))
        rows = torch.cat([torch.arange(len(train)), torch.arange(begin, end)])
        begin = end
        order = batch_rows(len(rows), steps, recipe.batch_size, seed)
        orders.append(rows[order])
        weighted.append((torch.ones(len(rows)) if given is None else given)[order])
    return x, y, torch.stack(orders), torch.stack(weighted)


def _unstacked(recipe: TrainingRecipe, seed: int, stacked: dict[str, Tensor], row: int) -> ClassifierTask:
    task = _made(recipe, seed)
    task.network.load_state_dict({name: value[row].detach() for name, value in stacked.items()})
    return task.eval()
