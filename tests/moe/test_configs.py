"""Every packaged config runs."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from lit_moe.cli import main
from lit_moe.nn.config import preset

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = """
data: {class_path: lit_moe.TokenDataModule, init_args: {root: %s, sequence_length: 32, global_batch_size: 4,
  micro_batch_size: 2, validation_samples: 2}}
model: {class_path: lit_moe.MoELanguageModel, init_args: {decoder: {n_layers: 1, d_model: 16, n_heads: 2, d_ff: 16}}}
trainer: {accelerator: cpu, max_steps: 2, limit_val_batches: 1, enable_progress_bar: false, enable_model_summary: false}
"""
#: Of the last callback of quickstart/pretrain.yaml, which samples text.
FEW = ["--trainer.callbacks.init_args.max_new_tokens", "3"]
PARTS = sorted((CONFIGS / "moe" / "router").glob("*.yaml")) + sorted((CONFIGS / "moe" / "scheduler").glob("*.yaml"))


@pytest.fixture
def small(token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL % token_root)
    return ["--config", "small.yaml", "--model.init_args.decoder.max_seq_len", "256"]


def command_of(path):
    """The arguments of the command in the first lines of a config."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("#   ")]
    program, *arguments = shlex.split(" ".join(line.strip("# \\") for line in lines))
    assert program == "lit-moe"
    return arguments


def fit(*configs, small, run):
    named = [argument for config in configs for argument in ("--config", f"configs/moe/{config}")]
    return main(["fit", *named, *small, "--run", run])


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_a_part_replaces_that_of_the_base(path, small):
    assert fit("quickstart/pretrain.yaml", f"{path.parent.name}/{path.name}", small=[*small, *FEW], run="run") == 0
    part = yaml.safe_load(path.read_text())["model"]["init_args"]
    (key, chosen), *_ = part.items()
    ran = yaml.safe_load(Path("runs/moe/run/config.yaml").read_text())["model"]["init_args"][key]["class_path"]
    assert ran.rsplit(".", 1)[-1] == chosen["class_path"].rsplit(".", 1)[-1]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, token_root):
    """A folder with the two runs of the quickstart, which commands of other configs begin from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("quickstart"))
        Path("small.yaml").write_text(SMALL % token_root)
        small = ["--config", "small.yaml", "--model.init_args.decoder.max_seq_len", "256"]
        assert fit("quickstart/pretrain.yaml", small=[*small, *FEW], run="quickstart-pretrain") == 0
        small += ["--branch_from", "runs/moe/quickstart-pretrain/checkpoints/last.ckpt"]
        configs = ("quickstart/continue.yaml", "quickstart/replay_30.yaml")
        assert fit(*configs, small=small, run="quickstart-replay-30") == 0
        return Path.cwd()


def test_pretrain_then_both_continuations(quickstart, small):
    shutil.copytree(quickstart / "runs", "runs")  # which has the continuation with replay
    branch = [*small, "--branch_from", "runs/moe/quickstart-pretrain/checkpoints/last.ckpt"]
    assert fit("quickstart/continue.yaml", "quickstart/replay_0.yaml", small=branch, run="quickstart-replay-0") == 0
    for replay in ("30", "0"):
        config = yaml.safe_load(Path(f"runs/moe/quickstart-replay-{replay}/config.yaml").read_text())
        assert config["model"]["init_args"]["decoder"]["feed_forward"] == "granular"  # from the branch's checkpoint


def callbacks():
    for path in sorted((CONFIGS / "moe" / "callbacks").glob("*.yaml")):
        compiles = [pytest.mark.slow] if path.stem == "compile_parts" else []
        yield pytest.param(path, id=path.stem, marks=compiles)


@pytest.mark.parametrize("path", list(callbacks()))
def test_a_callback_runs_by_the_command_of_its_config(path, quickstart, small):
    shutil.copytree(quickstart / "runs", "runs")
    assert main([*command_of(path), *small, "--run", "run"]) == 0
    (config,) = Path("runs/moe/run").glob("config*.yaml")
    ran = yaml.safe_load(config.read_text())["trainer"]["callbacks"]
    (own,) = yaml.safe_load(path.read_text())["trainer"]["callbacks+"]
    assert own["class_path"].rpartition(".")[2] in [entry["class_path"].rpartition(".")[2] for entry in ran]


def is_within(part, whole):
    """Tell whether a config has the values of another, which leaves out defaults."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_within(value, whole[key]) for key, value in part.items())
    return part == whole


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("trainer/*.yaml")), ids=lambda path: path.stem)
def test_the_command_of_a_trainer_config_divides_its_batch(path, capsys):
    assert main([*command_of(path), "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    trainer, data = config["trainer"], config["data"]["init_args"]
    assert is_within(yaml.safe_load(path.read_text())["trainer"], trainer)
    assert data["global_batch_size"] % (trainer["num_nodes"] * trainer["devices"] * data["micro_batch_size"]) == 0
    strategy, decoder = trainer["strategy"], config["model"]["init_args"]["decoder"]
    parallel = strategy["init_args"]["expert_parallel"] if isinstance(strategy, dict) else 1
    assert preset(decoder["feed_forward"], decoder["d_ff"]).n_experts % parallel == 0
