"""The paper's runs as configs: each combination is what `fit` takes, of the published size, on the meta device."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from fit_run import rows, run

from lit_moe import CosineInf, WarmupCosine
from lit_moe.cli import main

PAPER = Path(__file__).parents[2] / "configs" / "moe" / "paper"
MODELS = {"dense": 570.9, "switch_sinkhorn": 2024.5, "switch_penalty": 2024.5}
MODELS |= {"granular_sinkhorn": 2025.0, "granular_penalty": 2025.0}
SHIFTS = [("stack", "30"), ("german", "40"), ("german", "10"), ("german", "0")]
RUNS = [["phase/pretrain", "data/fineweb"]]
RUNS += [[f"phase/continue_{how}", f"data/{new}", f"replay/{old}"] for how in ("flat", "rewarm") for new, old in SHIFTS]
RUNS += [["phase/retrain", f"data/fineweb_and_{new}"] for new in ("stack", "german")]
EACH_FILE = (0, 1, 6, 3, 8, 9, 10)  # runs in which each file comes up
TOKENS = {"pretrain": "400.0 G", "continue_flat": "200.0 G", "continue_rewarm": "200.0 G", "retrain": "600.0 G"}


def arguments(model, run, trainer="trainer/gpu8_ddp"):
    names = ["base", f"model/{model}", *run]
    configs = [f"configs/moe/paper/{name}.yaml" for name in names] + [f"configs/{trainer}.yaml"]
    return [argument for config in configs for argument in ("--config", config)]


def check(model, run, capsys, trainer="trainer/gpu8_ddp"):
    flags = ["--trainer.num_nodes=8", "--vocab_size=128256"]
    assert main(["plan", *arguments(model, run, trainer), *flags]) == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    counts = {part: int(number.replace(",", "")) for part, number in re.findall(r"^  (\w+) +([\d,]+) ", text, re.M)}
    assert round((counts["sum"] - counts["norms"]) / 1e6, 1) == MODELS[model]
    assert re.search(rf"^  tokens +{TOKENS[run[0].removeprefix('phase/')]}$", text, re.M)


def test_all_files_are_used():
    assert {name for number in EACH_FILE for name in RUNS[number]} == {name for run in RUNS for name in run}
    used = {name for run in RUNS for name in run} | {f"model/{model}" for model in MODELS} | {"base", "prepare"}
    assert used == {str(path.relative_to(PAPER).with_suffix("")) for path in PAPER.rglob("*.yaml")}


@pytest.mark.parametrize(("model", "number"), list(zip([*MODELS, *MODELS], EACH_FILE, strict=False)))
def test_each_file_makes_a_run_of_the_published_size(model, number, capsys):
    check(model, RUNS[number], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["trainer/gpu8_ddp", "moe/trainer/gpu8_fsdp2"])
@pytest.mark.parametrize("model", MODELS)
def test_each_run_of_each_model(model, trainer, capsys):
    for files in RUNS:
        check(model, files, capsys, trainer)


SHRUNK = """
data: {{init_args: {{root: {root}, sequence_length: 32, global_batch_size: 10, micro_batch_size: 5,
  validation_samples: 6}}}}
model: {{init_args: {{decoder: {{n_layers: 2, d_model: 16, n_heads: 2, d_ff: 32, max_seq_len: 32}}}}}}
trainer: {{accelerator: cpu, devices: 2, max_steps: 10, val_check_interval: 5, log_every_n_steps: 1}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["trainer/gpu8_ddp", "moe/trainer/gpu8_fsdp2"])
def test_shrunk_runs_train_on_two_processes(token_root, trainer, tmp_path, monkeypatch):
    for name, source in {"fineweb": "austen", "german": "stdlib", "stack": "stdlib"}.items():
        shutil.copytree(token_root / source, tmp_path / "data" / name)
    shutil.copy(token_root / "tokenizer.json", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    Path("shrunk.yaml").write_text(SHRUNK.format(root=tmp_path / "data"))
    branch = ["--branch_from", "runs/moe/pretrain/checkpoints/last.ckpt"]
    for name, files, more in (("pretrain", RUNS[0], []), ("flat", RUNS[2], branch), ("rewarm", RUNS[6], branch)):
        flags = arguments("granular_penalty", files, trainer)
        flags = [str(PAPER.parents[2] / flag) if flag.endswith(".yaml") else flag for flag in flags]
        run("fit", *flags, "--config", "shrunk.yaml", "--run", name, *more)
        losses = [float(row["train/loss"]) for row in rows(name) if "train/loss" in row]
        assert len(losses) == 10 and all(0 < loss < 10 for loss in losses)
        assert any("val/german/loss" in row for row in rows(name))


def test_callbacks_of_all_files_come_together(capsys):
    assert main(["fit", *arguments("switch_penalty", RUNS[1]), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    callbacks = {item["class_path"].split(".")[-1]: item["init_args"] for item in config["trainer"]["callbacks"]}
    assert list(callbacks) == ["RouterBalance", "RunCheckpoint", "Forgetting", "ReplayMixing"]
    assert callbacks["ReplayMixing"]["fraction"] == 0.3 and callbacks["Forgetting"]["new"] == ["stack"]
    assert config["model"]["init_args"]["router"]["class_path"].endswith("PenaltyRouter")
    assert config["model"]["init_args"]["scheduler"]["init_args"]["total_steps"] == 95370
    assert (config["trainer"]["devices"], config["trainer"]["gradient_clip_val"]) == (8, 1.0)


def rates(phase):
    """Return the phase's number of steps, and its learning rate as a function of the step."""
    config = yaml.safe_load((PAPER / "phase" / f"{phase}.yaml").read_text())
    schedule, steps = config["model"]["init_args"]["scheduler"], config["trainer"]["max_steps"]
    kind = {"lit_moe.CosineInf": CosineInf, "lit_moe.WarmupCosine": WarmupCosine}[schedule["class_path"]]
    peak = yaml.safe_load((PAPER / "base.yaml").read_text())["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=peak)
    built = kind(optimizer, **{**schedule["init_args"], "total_steps": steps})
    return steps, lambda step: built.rate(step, peak)


def test_schedules_join():
    steps, rate = rates("pretrain")
    every = yaml.safe_load((PAPER / "phase" / "pretrain.yaml").read_text())["trainer"]["callbacks+"][0]["init_args"]
    kept = [step for step in range(0, steps, every["every_n_train_steps"]) if rate(step - 1) == rate(step + 1)]
    assert kept[-1] == 152576, "the last checkpoint of the constant phase, which the config's comment names"
    assert rate(steps) == pytest.approx(3e-5) and max(map(rate, range(0, steps, 100))) == pytest.approx(3e-4, rel=1e-3)
    steps, flat = rates("continue_flat")
    assert flat(0) == rate(152576) == flat(76000) == 1.65e-4 and flat(steps) == pytest.approx(3e-5)
    steps, rewarmed = rates("continue_rewarm")
    assert rewarmed(0) == 0 and rewarmed(954) == pytest.approx(3e-4) and rewarmed(steps) == pytest.approx(3e-5)
    assert rates("retrain")[0] == rates("pretrain")[0] + steps


def test_the_data_can_be_asked_for(capsys):
    assert main(["prepare", "--config", "configs/moe/paper/prepare.yaml", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    names = {corpus["init_args"]["name"] for corpus in config["corpora"]}
    base = yaml.safe_load((PAPER / "base.yaml").read_text())["data"]["init_args"]
    assert (names, config["root"]) == ({"fineweb", "stack", "german"}, base["root"])
    for path in (PAPER / "data").glob("*.yaml"):
        data = yaml.safe_load(path.read_text())["data"]["init_args"]
        assert {*data["sources"], *data.get("replay", ()), *data["validation"]} == names
