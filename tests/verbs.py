"""The packages' own verbs, as their console commands know them."""

from functools import cache
from importlib import import_module
from unittest import mock

PACKAGES = ("lit_moe", "lit_valuation", "lit_detect")


@cache
def own_verbs():
    """Return the functions of the verbs by package and name."""
    found = {}
    for package in PACKAGES:
        cli = import_module(f"{package}.cli")
        with mock.patch.object(cli, "run") as run:
            cli.main([])
        ((_, _, verbs, *_),) = (call.args for call in run.call_args_list)
        found[package] = dict(verbs)
    return found
