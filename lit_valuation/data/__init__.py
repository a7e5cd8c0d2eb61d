"""Data of the trainer and the owners: the data module, labelled sets, division, planting, noise and hard cases."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_valuation.data.module import OwnersDataModule
    from lit_valuation.data.planting import PlantedBackground, ScarceClasses

__all__ = ["OwnersDataModule", "PlantedBackground", "ScarceClasses"]
__getattr__, __dir__ = exports(__name__)
