"""The trainer's and the owners' samples: the data module, labelled sets, their division, noise and hard cases."""

from lit_valuation.data.module import OwnersDataModule
from lit_valuation.data.planting import PlantedBackground, ScarceClasses

__all__ = ["OwnersDataModule", "PlantedBackground", "ScarceClasses"]
