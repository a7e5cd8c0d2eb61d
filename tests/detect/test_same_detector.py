"""Arguments that change what a detector computes: refused on a resume, told elsewhere; each argument is tried."""

import inspect
import json
import pydoc
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest
import torch
from austen_pairs import pairs
from jsonargparse import ArgumentParser
from stand_ins import cases

from lit_core.errors import UserError
from lit_core.origin import origin
from lit_detect import DetectorTask
from lit_detect.cli import main
from lit_detect.detectors import Detector, FeatureDetector, TrainedDetector
from lit_detect.formats import EmbeddedPairs
from lit_detect.module import _IDLE

KIND, CONFIGS = cases(Detector)
RECORDS = list(EmbeddedPairs().records())
TEXTS = [" ".join(record.text for record in RECORDS[start : start + 12]) for start in (0, 12, 24)]


def others(value, hint):
    """Other values of an argument: each choice, None if it may be, numbers near and far."""
    for kind in get_args(hint) or (hint,):
        if kind is type(None):
            yield None
        elif getattr(hint, "__origin__", None) is Literal:
            yield kind
        elif getattr(kind, "__origin__", None) is Literal:
            yield from get_args(kind)
        elif kind is int:
            yield from (1, 16, 24, 100) if not isinstance(value, int) else (value // 2, value // 8, value // 32)


def changed(node, name="detector"):
    """A described object with each argument of it, or of an object inside, changed to each other value."""
    made = pydoc.locate(node["class_path"])
    hints = get_type_hints(made.__init__ if isinstance(made, type) else made)
    for key, value in node["init_args"].items():
        nested = [(0, value)] if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
        parts = [(at, one) for at, one in nested if "class_path" in one]
        inner = [(at, path, other) for at, one in parts for path, other in changed(one, f"{name}.{key}")]
        for at, path, other in inner:
            given = other if isinstance(value, dict) else [*value[:at], other, *value[at + 1 :]]
            yield path, node | {"init_args": node["init_args"] | {key: given}}
        for other in others(value, hints.get(key, str)) if not nested else ():
            if other != value:
                yield f"{name}.{key}", node | {"init_args": node["init_args"] | {key: other}}


def built(node):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--detector", type=Detector)
    return parser.instantiate(parser.parse_object({"detector": node})).detector


def scores(detector, state):
    """Scores, or features, of texts with given weights; None where there is no place for them."""
    if isinstance(detector, TrainedDetector):
        own = detector.state_dict()
        if {name: one.shape for name, one in state.items()} != {name: one.shape for name, one in own.items()}:
            return None
        detector.load_state_dict(state)
    with torch.no_grad():
        return detector.features(TEXTS) if isinstance(detector, FeatureDetector) else detector.eval().score(TEXTS)


def function(detector):
    task = DetectorTask(detector)
    return task.function_arguments(task.plain_arguments())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", CONFIGS)
def test_each_argument_of_a_detector_is_told_if_and_only_if_it_changes_its_scores(config, stand_ins):
    first = stand_ins.build(KIND, config, lambda detector: detector.count_tokens(["It rained."]))
    state, before, tried = first.state_dict(), function(first), {}
    if isinstance(first, TrainedDetector):
        state = {name: torch.randn_like(one) if one.is_floating_point() else one for name, one in state.items()}
    expected = scores(first, state)
    for name, node in changed(origin(first)):
        try:
            other = built(node)
            found = scores(other, state)
        except (UserError, ValueError):
            continue
        if found is None:
            continue
        after = function(other)
        told = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        same = found.shape == expected.shape and torch.equal(found, expected)
        assert told or same or name.rpartition(".")[2] in _IDLE, f"{name} changes the scores and is not told"
        is_null = name.rpartition(".")[2] in ("max_tokens", "machine_label")  # null may be what is written elsewhere
        assert not told or not same or is_null, f"{name} changes nothing, but {told} is told"
        tried.setdefault(name.rpartition(".")[2], []).append(bool(told) and not same)
    names = inspect.signature(type(first)).parameters
    assert "max_tokens" not in names or any(tried["max_tokens"]), tried


SETTINGS = """
data:
  class_path: lit_detect.TextDataModule
  init_args:
    root: texts
    sources: [{class_path: lit_detect.formats.LitShiftJSONL, init_args: {path: pairs.jsonl, name: pairs}}]
    train: [pairs]
    batch_size: 10
model:
  class_path: lit_detect.DetectorTask
  init_args:
    detector: {class_path: lit_detect.detectors.EncoderDetector, init_args: {model: scratch-1x32, max_tokens: 32}}
trainer: {max_epochs: 2, accelerator: cpu, limit_val_batches: 0, enable_progress_bar: false}
"""


def test_a_resume_with_another_detector_or_normalisation_is_refused_and_a_test_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    Path("pairs.jsonl").write_text("".join(json.dumps(record.to_dict()) + "\n" for record in pairs(20)))
    Path("settings.yaml").write_text(SETTINGS)
    fit = ["fit", "--config", "settings.yaml", "--run", "run"]
    assert main([*fit, "--trainer.max_epochs", "1"]) == 0, capsys.readouterr().err
    last = ["--ckpt_path", "runs/detect/run/checkpoints/last.ckpt"]
    for flag, value, was in (
        ("model.init_args.detector.init_args.max_tokens", 16, 32),
        ("data.normalize", "true", False),
    ):
        name = "detector.max_tokens" if value == 16 else "data.normalize"
        assert main([*fit, *last, f"--{flag}", str(value)]) == 2
        said = capsys.readouterr().err
        assert f"`{name}` is {str(value).capitalize()}, but {was} in the checkpoint, and a resume cannot" in said
        with pytest.warns(UserWarning, match=f"but {was} in the checkpoint, so the network does not compute"):
            assert main(["test", *last, f"--{flag}", str(value)]) == 0
    assert main([*fit, *last]) == 0, "the same arguments are no others"
    assert "in the checkpoint" not in "".join(capsys.readouterr())
