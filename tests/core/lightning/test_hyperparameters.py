"""Hyperparameters are kept in one order."""

import itertools

import pytest
from lightning.pytorch import LightningDataModule

from lit_core.lightning import hyperparameters
from lit_core.lightning.hyperparameters import KeepsHyperparameters


class Ours(KeepsHyperparameters, LightningDataModule):
    def __init__(self, classes, shape):
        super().__init__()
        self.keep_arguments()


class AUsers(KeepsHyperparameters, LightningDataModule):
    def __init__(self, classes, shape):
        super().__init__()
        self.save_hyperparameters()


@pytest.mark.parametrize("kind", [Ours, AUsers])
def test_linked_arguments_are_kept_in_one_order_whichever_the_command_line_adds_first(kind, monkeypatch):
    orders = []
    for names in itertools.permutations(("classes", "shape")):
        given = {**dict.fromkeys(names, 1), "_class_path": "x"}
        monkeypatch.setattr(hyperparameters, "given_by_cli", lambda given=given: given)
        orders.append(list(kind(1, 1).hparams))
    assert orders[0] == orders[1]
    assert set(orders[0]) > {"classes", "shape"}
