"""What an object is built from, as plain data that two runs compare: classes, arguments, their defaults."""

import sys
import types
from functools import partial

import pytest
from lightning.pytorch import LightningModule
from torch import nn

from lit_core.errors import UserError
from lit_core.lightning.same_function import built_from, check_same_function
from lit_core.origin import KeepsOrigin, described


class Part(KeepsOrigin):
    def __init__(self, width: int = 3, dropout: float = 0.1, seed: int | None = None, inner: object = None) -> None:
        pass


PATH = f"{Part.__module__}.Part"


def test_arguments_are_named_by_their_places_and_idle_ones_are_left_out():
    made = described({"one": Part(4, inner=Part()), "several": [Part(), Part(5)], "numbers": (1, 2)})
    assert built_from(made, "x", {"numbers"}) == {
        **{"x.one": "Part", "x.one.width": 4, "x.one.inner": "Part", "x.one.inner.width": 3},
        **{"x.one.inner.inner": None, "x.several": "2 entries", "x.several.0": "Part", "x.several.0.width": 3},
        **{"x.several.0.inner": None, "x.several.1": "Part", "x.several.1.width": 5, "x.several.1.inner": None},
    }


@pytest.mark.parametrize("left_out", [{}, {"init_args": {}}, {"init_args": None}, {"init_args": {"width": 3}}])
def test_a_default_that_is_left_out_is_the_same_as_one_that_is_written(left_out):
    assert built_from({"class_path": PATH, **left_out}, "x", set()) == built_from(described(Part()), "x", set())
    assert built_from(described(partial(Part)), "x", set()) == built_from(described(Part()), "x", set())


def test_nothing_is_imported_for_a_name_in_somebody_elses_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "harmful_module.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = built_from({"class_path": "harmful_module.Net", "init_args": {"width": 3}}, "x", set())
    assert found == {"x": "Net", "x.width": 3} and "harmful_module" not in sys.modules


@pytest.mark.parametrize("foreign", [None, 3, "text", [1, {}], {"class_path": 3}, {"class_path": "os.nothing", 1: 2}])
def test_values_of_another_kind_are_plain_entries(foreign):
    assert isinstance(built_from(foreign, "x", set()), dict)


def test_what_could_not_be_kept_is_compared_by_what_it_was():
    kept = built_from(described(nn.Linear(1, 1)), "network", set())
    assert kept == {"network.not_kept": "a Linear that was built before"}


def resuming(now, then):
    module = LightningModule()
    module._fabric = None
    trainer = types.SimpleNamespace(training=True, ckpt_path="x.ckpt")
    module._trainer = trainer
    check_same_function(module, now, then)


def test_a_folder_that_was_moved_is_the_same_and_another_one_is_not(tmp_path):
    for name in ("there/model", "here/model"):
        (tmp_path / name).mkdir(parents=True)
    there, here = str(tmp_path / "there" / "model"), str(tmp_path / "here" / "model")
    resuming({"model": here}, {"model": "/gone/model"})
    resuming({"model": here}, {"model": f"{tmp_path}/there/../here/model"})
    for now, then in ((here, there), (here, "/gone/other"), ("minilm", "scratch-4x32")):
        with pytest.raises(UserError, match=f"{now[-50:]}, but .*{then[-50:]} in the checkpoint, and a resume cannot"):
            resuming({"model": now}, {"model": then})
