"""A path in a callback's state, in a checkpoint of somebody else, leads a resumed run to no file of the user's."""

import copy
import json
import shutil
from pathlib import Path

import lightning.pytorch.callbacks as lightning
import pytest
import torch
from lightning.pytorch import Callback
from test_foreign_checkpoints import at, last, places
from test_foreign_checkpoints import former as former  # a fixture

from lit_valuation.cli import main

#: Arguments of the callbacks of Lightning that have a state, and of one of ours that each run has. None: our commands
#: refuse it or have no module for it, and its state holds no path.
GIVEN = {
    "RunCheckpoint": {},
    "ModelCheckpoint": {"monitor": "val/all/loss", "save_top_k": 1, "save_last": True, "dirpath": "best"},
    "EarlyStopping": {"monitor": "val/all/loss"},
    "Timer": {},
    "StochasticWeightAveraging": None,
    "WeightAveraging": {},
    "EMAWeightAveraging": {},
    "BackboneFinetuning": None,
    "BaseFinetuning": None,
    "SpikeDetection": None,
}
SECRET = b"what stands in a thesis"


def test_each_callback_of_lightning_that_has_a_state_is_here():
    kinds = {name: getattr(lightning, name) for name in lightning.__all__}
    having = {name for name, kind in kinds.items() if kind.load_state_dict is not Callback.load_state_dict}
    assert having == GIVEN.keys() - {"RunCheckpoint"}


def resume(path, name, steps, capsys):
    """Resume a run, with a callback and a validation, and return the exit code and what was said."""
    entry = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": GIVEN[name]}
    more = [] if name == "RunCheckpoint" else ["--trainer.callbacks+", json.dumps(entry)]
    flags = ["--trainer.max_steps", str(steps), "--run", "own", "--overwrite", "--trainer.check_val_every_n_epoch", "1"]
    capsys.readouterr()
    return main(["fit", "--ckpt_path", str(path), *flags, *more]), capsys.readouterr().err


def victims(folder):
    """Make files that a run could take for its own, and return the paths by which they are named."""
    (folder / "parts.ckpt").mkdir(parents=True)
    for name in ("thesis.ckpt", "thesis.txt", "parts.ckpt/meta.pt"):
        (folder / name).write_bytes(SECRET)
    return [str(folder / "thesis.ckpt"), f"local://{folder}/parts.ckpt", f"best/../{folder.name}/thesis.txt"]


def content(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.slow  # trains
@pytest.mark.parametrize("name", [name for name, given in GIVEN.items() if given is not None])
def test_a_path_in_a_state_leads_nowhere(name, former, capsys):
    assert main(["divide", "--config", "prepare.valuation.yaml"]) == 0
    code, said = resume(last("valuation/first"), name, 12, capsys)
    assert code == 0, said
    [begun] = Path("runs").glob("**/own/checkpoints/last.ckpt")
    checkpoint = torch.load(begun, weights_only=True)
    [key] = [key for key in checkpoint["callbacks"] if key.startswith(name)]
    state, mine = checkpoint["callbacks"][key], Path("mine").absolute()
    paths = victims(mine)
    before = content(mine)
    texts = [path for path in places(state) if isinstance(at(state, path), str | None) and path != ("dirpath",)]
    tables = [path for path in places(state) if isinstance(at(state, path), dict) and "path" in str(state)]
    each = [([place], paths[0]) for place in texts + tables]
    for chosen, victim in each + [(texts + tables, path) for path in paths if texts]:
        changed = copy.deepcopy(state)
        for place in chosen:
            at(changed, place[:-1])[place[-1]] = {victim: torch.tensor(9.0)} if place in tables else victim
        shutil.rmtree("runs/valuation/own")
        torch.save({**checkpoint, "callbacks": {**checkpoint["callbacks"], key: changed}}, "theirs.ckpt")
        resume("theirs.ckpt", name, 15, capsys)
        assert content(mine) == before, (chosen, victim)
        assert not any(SECRET in text for text in content(Path("runs")).values() if text)
