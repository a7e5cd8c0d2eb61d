"""The study of continual pre-training on embedded texts, and what one of its cells says."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from lit_core.data import TokenWindows
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.study.options import bind
from lit_moe.cli import main
from lit_moe.nn import Decoder, DecoderConfig, PenaltyRouter, moe_layers
from lit_moe.study import experiment

CONFIG = Path(__file__).parents[3] / "configs" / "moe" / "studies" / "continual.yaml"
FOLDER = Path("runs/moe/continual-smoke")
CELL = {"seed": 0, "model": "granular_penalty", "schedule": "infinite", "replay": 0.3, "shift": "code"}


def cell(**values):
    """Run a cell with the flat values of a study."""
    return experiment(**bind(experiment, values))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(data))


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load(CONFIG.read_text())


@pytest.fixture(scope="module")
def setting(config):
    short = {"pretrain_steps": 20, "steps": 4, "window": 4, "test_samples": 6}
    return config["grids"]["routers"]["arguments"] | CELL | short


def of(rows, **labels):
    (row,) = [row for row in rows if all(row.get(key) == value for key, value in labels.items())]
    return row


def by_hand(checkpoint, windows, decoder, n_samples):
    """Return the loss, and the MRI of each layer, of a checkpoint's weights on the first windows, one by one."""
    shape = DecoderConfig(vocab_size=384, feed_forward="granular", **decoder)
    model = Decoder(shape, PenaltyRouter).eval()
    model.load_state_dict({k.removeprefix("decoder."): v for k, v in checkpoint["state_dict"].items()})
    gates = []
    for layer in moe_layers(model).values():
        layer.gate.register_forward_hook(lambda gate, inputs, logits: gates.append(logits))
    nats, counts, tokens = 0.0, torch.zeros(shape.n_layers, 31), 0
    for index in range(n_samples):
        gates.clear()
        sample = windows[index]
        with torch.no_grad():
            logits = model(sample["input_ids"][None])[0]
        nats += float(F.cross_entropy(logits, sample["labels"], reduction="sum"))
        tokens += len(sample["labels"])
        for number, gate in enumerate(gates):
            for expert in gate.topk(3).indices.flatten().tolist():
                counts[number, expert] += 1
    return nats / tokens, (counts.max(1).values / tokens).tolist()


@pytest.fixture(scope="module")
def first(setting, data, tmp_path_factory):
    """The rows of the first cell, which leaves its pre-training to the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("first"))
        patch.setenv("LITSHIFT_DATA", str(data))
        return cell(**setting)


def test_a_cell_measures_what_a_plain_loop_does(setting, data, first):
    rows = first
    (kept,) = data.glob("moe/study/pretrained-*")
    (texts,) = data.glob("moe/study/texts-*")
    checkpoint = load_checkpoint_file(kept / "constant" / "last.ckpt")
    for text, source in (("old", "austen"), ("new", "stdlib")):
        windows = TokenWindows(texts / source / "test", 32, tail=True)
        loss, mri = by_hand(checkpoint, windows, setting["decoder"], setting["test_samples"])
        found = of(rows, what="text", moment="before", text=text)
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        assert found["mri"] == pytest.approx(sum(mri) / len(mri), rel=1e-5)
    run, old, new = of(rows, what="run"), *(of(rows, what="text", moment="after", text=t) for t in ("old", "new"))
    assert run["forgetting"] == pytest.approx(old["loss"] - of(rows, moment="before", text="old", what="text")["loss"])
    assert run["mean_loss"] == pytest.approx((old["loss"] + new["loss"]) / 2)
    layers = [row for row in rows if row["what"] == "layer" and row["text"] == "old"]
    assert [row["layer"] for row in layers] == [0, 1, 2]
    assert old["mri"] == pytest.approx(sum(row["mri"] for row in layers) / 3)
    assert of(rows, what="band", text="old", band="13-23")["crs"] == layers[2]["crs"] < 1
    steps = [row for row in rows if row["what"] == "step"]
    assert [row["step"] for row in steps] == list(range(-4, 4))
    before = checkpoint["callbacks"]["Trace"]["steps"]
    assert len(before) == 16 and [row["mri"] for row in steps[:4]] == [step["mri"] for step in before[-4:]]
    assert steps[-1]["tokens_per_expert"] == round(3 * 8 * 32 * 3 / 31)
    curve = [row for row in rows if row["what"] == "curve"]
    assert [row["tokens"] for row in curve] == [step * 8 * 32 for step in range(5)]
    assert run["tflop_total"] == pytest.approx(run["tflop"] * 5, rel=1e-6)  # 16 steps before, 4 behind


def test_pretraining_is_shared_and_each_schedule_starts_where_it_should(setting, data, first):
    rows = {"infinite": first}
    times = {path: path.stat().st_mtime_ns for path in data.glob("moe/study/*/*/last.ckpt")}
    for schedule in ("cosine", "union"):
        rows[schedule] = cell(**setting | {"schedule": schedule})
    assert {path: path.stat().st_mtime_ns for path in data.glob("moe/study/*/*/last.ckpt")} == times
    assert cell(**setting) == rows["infinite"]
    moments = {schedule: {row.get("moment") for row in found} for schedule, found in rows.items()}
    assert "before" in moments["cosine"] and "before" not in moments["union"]
    assert of(rows["union"], what="run")["tflop"] == pytest.approx(of(rows["infinite"], what="run")["tflop"] * 6)
    before = [
        of(rows[schedule], what="text", moment="before", text="old")["loss"] for schedule in ("infinite", "cosine")
    ]
    assert before[0] != before[1]
    assert not any("crs" in row or row["what"] == "step" for row in rows["union"])


def test_what_is_not_there_is_said(setting):
    with pytest.raises(UserError, match=r'model is granular_penalti, .* Did you mean "granular_penalty"'):
        cell(**setting | {"model": "granular_penalti"})
    with pytest.raises(UserError, match=r'recipe.batchsize is not an argument of .* Did you mean "batch_size"'):
        cell(**setting | {"recipe": {"batchsize": 8}})
    with pytest.raises(UserError, match="old is latin, but must be one of austen, stdlib"):
        cell(**setting | {"old": ["latin"]})
    with pytest.raises(UserError, match=r"models\.granular_penalty\.router: lit_moe\.nn\.None is not"):
        models = {"granular_penalty": {"feed_forward": "granular", "router": {"class_path": "lit_moe.nn.None"}}}
        cell(**setting | {"models": models})


def test_a_grid_with_an_unknown_key_is_refused(config, capsys):
    config["grids"]["replay"]["vary"]["replays"] = [0.5]
    Path("mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["study", "--config", "mine.yaml"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "grids.replay gives replays" in said and 'Did you mean "replay"' in said
    assert not FOLDER.exists()


@pytest.mark.slow  # the shipped cells fill all tables and claims in the fast set
def test_grids_of_the_smoke_study():
    flags = ["--sizes.smoke.grids", "[routers,union]", "--sizes.smoke.values"]
    flags.append("{model: [dense, switch_sinkhorn], pretrain_steps: 10, steps: 4, window: 4, test_samples: 6}")
    assert main(["study", "--config", str(CONFIG), *flags]) == 0
    page = (FOLDER / "report.md").read_text()
    assert all(f"\n| {number} |" in page for number in range(1, 14))
    assert "**undecided**" in page and "**not testable here**" in page  # one seed decides nothing
    with (FOLDER / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["what"] for row in rows} == {"run", "text", "layer", "band", "step", "curve"}
    assert {(row["grid"], row["model"]) for row in rows} == {
        (grid, model) for grid in ("routers", "union") for model in ("dense", "switch_sinkhorn")
    }
    assert (FOLDER / "report" / "mri-around-the-shift-in-steps.png").is_file()


@pytest.mark.slow
def test_each_claim_is_tested_where_all_grids_are_run(config, tmp_path):
    (tmp_path / "texts").mkdir()
    for number, path in enumerate(sorted(Path(yaml.__file__).parent.glob("*.py"))):
        (tmp_path / "texts" / f"{number}.txt").write_text(path.read_text())
    other = {
        "class_path": "lit_core.corpora.TextFolder",
        "init_args": {"name": "other", "folder": str(tmp_path / "texts")},
    }
    values = {
        "corpora": [*config["grids"]["routers"]["arguments"]["corpora"], other],
        "shifts": {"code": ["stdlib"], "german": ["other"]},
        "decoder": {"n_layers": 6, "d_model": 16, "n_heads": 2, "d_ff": 16, "tie_embeddings": True},
        "pretrain_steps": 16,
        "steps": 8,
        "test_samples": 4,
    }
    config["sizes"]["smoke"] = {"seeds": [0], "values": values}
    Path("mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["study", "--config", "mine.yaml"]) == 0
    page = (FOLDER / "report.md").read_text()
    untested = [line.split("|")[1].strip() for line in page.splitlines() if "not testable here" in line]
    assert untested == ["10 architecture"]


@pytest.mark.slow
def test_the_smoke_study_killed_and_resumed(tmp_path, monkeypatch):
    args = ["study", "--config", str(CONFIG), "--sizes.smoke.grids", "[routers,replay]"]
    args += ["--sizes.smoke.values", "{model: [dense, switch_sinkhorn, granular_bias], test_samples: 4}"]
    assert main(args) == 0
    FOLDER.rename("never-killed")
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "killed"))
    study = tmp_path / "killed" / "moe" / "study"
    for reached in (
        lambda: list(study.glob("pretrained-*/constant/last.ckpt")),  # in the middle of the first pre-training
        lambda: len(list(FOLDER.glob("*/result.json"))) > 2,
    ):
        process = subprocess.Popen([sys.executable, "-m", "lit_moe", *args], stdout=subprocess.DEVNULL)
        try:
            while not reached() and process.poll() is None:
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
    assert 3 <= len(list(FOLDER.glob("*/result.json"))) < 9
    assert main(args) == 0
    assert (FOLDER / "results.csv").read_text() == Path("never-killed/results.csv").read_text()
