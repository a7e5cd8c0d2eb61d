"""Cells of the studies of Mycroft: `simulate` on images, `simulate_tables` on rows of a table."""

from lit_valuation.study.images import simulate
from lit_valuation.study.options import ExchangeOptions, TableOptions
from lit_valuation.study.tables import simulate_tables

__all__ = ["ExchangeOptions", "TableOptions", "simulate", "simulate_tables"]
