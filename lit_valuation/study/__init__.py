"""Cells of the studies of Mycroft: owners of images and of tables."""

from lit_valuation.study.images import simulate
from lit_valuation.study.tables import simulate_tables

__all__ = ["simulate", "simulate_tables"]
