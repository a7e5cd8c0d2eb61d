"""The packages' own verbs, as their console commands know them."""

from functools import cache
from importlib import import_module

PACKAGES = ("lit_moe", "lit_valuation", "lit_detect")


@cache
def own_verbs():
    """Return the functions of the verbs by package and name."""
    found = {}
    for package in PACKAGES:
        verbs = import_module(f"{package}.cli").VERBS
        found[package] = {name: verb.load() for name, verb in verbs.items()}
    return found
