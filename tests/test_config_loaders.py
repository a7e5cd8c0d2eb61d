"""A function that configs name to load a checkpoint does not speak of the argument of a command."""

import inspect

import pytest
from kinds import PACKAGES, modules_of

from lit_core import origin
from lit_core.errors import UserError


def loaders():
    """Functions and class methods under `keeps_origin` that take the path of a checkpoint first, by their names."""
    found = {}
    for module in (module for package in PACKAGES for module in modules_of(package)):
        for owner in [module, *(part for part in vars(module).values() if inspect.isclass(part))]:
            for name, member in vars(owner).items():
                code = getattr(getattr(member, "__func__", member), "__code__", None)
                if code is not None and code.co_filename == origin.__file__ and code.co_name == "build":
                    part = getattr(owner, name)
                    first = next(iter(inspect.signature(part).parameters))
                    if first in ("path", "checkpoint", "ckpt_path"):
                        found[part.__qualname__] = part
    return found


def test_a_missing_checkpoint_is_not_called_that_of_the_command():
    found = loaders()
    assert {"DecoderLM.from_checkpoint", "trained", "load_detector"} <= set(found)
    for name, load in found.items():
        with pytest.raises(UserError, match=r"nowhere\.ckpt, but there is no such file") as refused:
            load("nowhere.ckpt")
        assert "--" not in str(refused.value), name
