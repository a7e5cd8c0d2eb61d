"""Ways to choose the few samples worth sharing, all with one interface and equal budgets."""

from lit_valuation.selectors.base import Pool, Selection, Selector, split_budget

__all__ = ["Pool", "Selection", "Selector", "split_budget"]
