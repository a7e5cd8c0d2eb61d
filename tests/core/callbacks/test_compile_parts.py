"""A compiled run has the losses of one that is not, and checkpoints that load without the compiler."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_core.callbacks import CompileParts
from lit_core.errors import UserError

sys.path.append(str(Path(__file__).parents[2]))
from switch_runs import FILES, PROJECTS

pytestmark = pytest.mark.filterwarnings("ignore")
#: A network whose class is not torch's own.
OWN = {"valuation": ["--model.init_args.network", '{"class_path": "lit_valuation.nn.MLP"}']}


@pytest.fixture
def project(request, tmp_path, monkeypatch, token_root):
    monkeypatch.chdir(tmp_path)
    torch.compiler.reset()
    project = PROJECTS[request.param]
    project = replace(project, root=project.prepare(tmp_path) if project.prepare else token_root)
    project.write()
    return project


def compiled(**arguments):
    added = {"class_path": "lit_core.callbacks.CompileParts", "init_args": arguments}
    return f"--trainer.callbacks+={json.dumps(added)}"


# torch traces the others for a minute, and inductor compiles C++
SLOW = [("moe", "aot_eager"), ("detect", "aot_eager"), ("valuation", "inductor")]
CASES = [("valuation", "aot_eager"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


@pytest.mark.parametrize(("project", "backend"), CASES, indirect=["project"])
def test_a_compiled_run_trains_to_the_same(project, backend):
    own, flag = OWN.get(project.package, []), compiled(backend=backend)
    assert project.fit(*FILES, *own, "--run", "plain") == 0
    assert project.fit(*FILES, *own, "--run", "compiled", flag, "--trainer.max_steps=2") == 0
    assert project.fit("--ckpt_path", project.last("compiled"), "--trainer.max_steps=4") == 0
    plain, other = (
        [float(row["train/loss"]) for row in project.rows(run) if "train/loss" in row] for run in ("plain", "compiled")
    )
    assert other == pytest.approx(plain, rel=1e-4) and len(plain) == 4
    plain, other = (project.checkpoint(run)["state_dict"] for run in ("plain", "compiled"))
    assert plain.keys() == other.keys()
    assert project.main(["test", "--ckpt_path", str(project.last("compiled")), "--trainer.logger=false"]) == 0


@pytest.mark.parametrize("project", ["valuation"], indirect=True)
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([compiled(backend="aot_eager")], "torch has compiled nothing of the parts that CompileParts names"),
        ([compiled(backend="inducto")], '`backend` is inducto, which is not one of torch\'s. Did you mean "inductor"?'),
        ([compiled(parts=["netwrk"])], '`parts` names netwrk, which ClassifierTask has not. Did you mean "network"?'),
    ],
)
def test_what_cannot_be_compiled_is_one_sentence(project, typed, words, capsys):
    assert project.fit(*FILES, *typed) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and not Path("runs").exists()


def test_a_foreign_module_names_its_parts(make_trainer, byte_data, byte_model):
    with pytest.raises(UserError, match="`parts` is null, but ByteModel has no `main_parts`"):
        make_trainer(CompileParts(backend="eager")).fit(byte_model(), datamodule=byte_data(replay=False))
    short = {"max_steps": 1, "limit_val_batches": 0}
    callback = CompileParts(["blocks.0"], backend="eager")
    make_trainer(callback, **short).fit(byte_model(), datamodule=byte_data(replay=False))
