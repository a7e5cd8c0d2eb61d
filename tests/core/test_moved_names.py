"""Each public import path from before the move still leads to its class or function."""

from importlib import import_module
from inspect import ismodule
from pathlib import Path

import pytest
import torch

from lit_core.moved_names import MOVED_MODULES, MOVED_NAMES, current_path, current_paths

FORMER = (Path(__file__).parents[1] / "fixtures/before_the_move/import_paths.txt").read_text().split()
#: Paths that lead nowhere any more, each with the reason why no config or checkpoint can hold it.
REMOVED = {
    **dict.fromkeys(
        (
            "lit_valuation.samples.together",
            "lit_valuation.sources.base.labelled",
            "lit_valuation.exchange.folder.nameless",
        ),
        "takes samples in memory",
    ),
    "lit_valuation.exchange.rank.without_copies": "a part of the command `rank`, made of samples in memory",
    **dict.fromkeys(
        [f"lit_valuation.simulate.{name}" for name in ("make_division", "make_recipe")],
        "a part of a study's cell, made of its arguments",
    ),
}


def located(path):
    """Return what an import path names; None where that is nothing."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name, None)
        return found
    return None


def test_each_former_import_path_resolves_today():
    assert len(FORMER) > 300
    lost = [path for path in FORMER if not is_class_or_function(located(current_path(path))) and path not in REMOVED]
    assert not lost, "add these to lit_core/moved_names.py, or with a reason to REMOVED"


def is_class_or_function(found):
    return found is not None and not ismodule(found)


def test_no_removed_path_resolves():
    for path in REMOVED:
        assert not is_class_or_function(located(path)), path


@pytest.mark.parametrize("former", [*MOVED_MODULES, *MOVED_NAMES])
def test_no_valid_path_is_replaced_and_each_replacement_is_final(former):
    assert located(former) is None
    present = (MOVED_MODULES | MOVED_NAMES)[former]
    assert located(present) is not None
    assert current_path(present) == present


def test_only_whole_import_paths_are_replaced():
    assert current_path("lit_core.lm.HuggingFaceLM.from_pretrained") == "lit_core.lm.HuggingFaceLM.from_pretrained"
    assert current_path("lit_detect.scoring.MaskedLM.from_pretrained") == "lit_detect.scoring.MaskedLM.from_pretrained"
    assert current_path("lit_detect.masked.MaskedLM.of") == "lit_detect.scoring.masked_language_model.MaskedLM.of"
    for other in ("", "x", "lit_detect", "lit_detect.words2.Synonyms", "see lit_core.schedules.WarmupCosine"):
        assert current_path(other) == other
    config = {"a": [{"class_path": "lit_core.schedules.WarmupCosine"}, 1, None], "lit_core.tokenizer": torch.float32}
    assert current_paths(config) == {
        "a": [{"class_path": "lit_core.lightning.schedules.WarmupCosine"}, 1, None],
        "lit_core.tokenizer": torch.float32,
    }


@pytest.mark.parametrize("former", MOVED_MODULES)
def test_what_only_begins_like_a_former_path_is_not_replaced(former):
    for other in (former, f"{former}.txt", f"{former}.jsonl.gz", f"{former}s.X", f"{former}.Missing", f"x.{former}.X"):
        assert current_path(other) == other
        assert current_paths({"prompt": [other]}) == {"prompt": [other]}
