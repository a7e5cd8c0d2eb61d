"""A first step of a training, by which a LightningModule of the user's own shows whether it can be trained here."""

from __future__ import annotations

from dataclasses import replace

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_core.errors import RunFailure, UserError, reason_of
from lit_core.lightning.checkpoint_module import CheckpointModule
from lit_valuation.contract import FAULTS
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import TrainingRecipe, retrain


def tried(recipe: TrainingRecipe, train: Samples) -> TrainingRecipe:
    """Return a recipe with the kind of batches that its module trains on, after a step of training on one.

    Args:
        recipe: The recipe; that of a module of ours is returned as it is.
        train: The training set.

    Raises:
        UserError: If the module lacks a method that a training needs, or a step fails on both kinds of batches.
    """
    task = recipe.make(0)
    if isinstance(task, CheckpointModule):
        return recipe
    name = type(task).__name__
    for method in ("training_step", "configure_optimizers"):
        if not is_overridden(method, task):
            raise UserError(f"{name} has no {method}, but each ranking trains it; define it.")
    clipping = {key: value for key, value in recipe.trainer.items() if key.startswith("gradient_clip")}
    one = replace(recipe, steps=1, trainer=clipping)
    batch = train.take(range(min(recipe.batch_size, len(train))))  # an epoch of one step, so that its end is tried too
    reasons = []
    for pairs in (False, True):
        try:
            retrain(replace(one, pairs=pairs), batch, None, 0)
        except RunFailure:  # a loss that is not finite is one of the kind of batches that it takes
            return replace(recipe, pairs=pairs)
        except (*FAULTS, MisconfigurationException) as error:
            reasons.append(f"{type(error).__name__}: {reason_of(error)}")
        else:
            return replace(recipe, pairs=pairs)
    raise UserError(
        f"{name} cannot be trained: a step fails on a batch {{'x', 'y'}} ({reasons[0]}) and on a pair (x, y) "
        f"({reasons[1]}); correct its training_step."
    )
