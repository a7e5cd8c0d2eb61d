"""`lit-detect fit`, `test` and `predict` with each kind of detector; one process equals two, a resume equals none."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import short_search
import torch
from austen_pairs import pairs

from lit_core.errors import UserError
from lit_core.files.paths import file_sha256
from lit_detect.calibration import Calibration
from lit_detect.cli import main
from lit_detect.data.text_shards import TextSet
from lit_detect.detectors import EntityStatistics, ZeroShotDetector
from lit_detect.functional.calibration import Platt
from lit_detect.human_scores import Group, Length
from lit_detect.loading import load_checkpoint
from lit_detect.module import DetectorTask

SETTINGS = """
seed_everything: 0
data:
  class_path: lit_detect.TextDataModule
  init_args:
    root: texts
    sources: [{class_path: lit_detect.formats.LitShiftJSONL, init_args: {path: pairs.jsonl, name: pairs}}]
    train: [pairs]
    batch_size: 10
model: {class_path: lit_detect.DetectorTask}
trainer:
  max_epochs: 1
  accelerator: cpu
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
"""
STATISTICS = ["--model.init_args.detector", "lit_detect.detectors.EntityStatistics"]
ENCODER = """
model:
  init_args:
    detector: {class_path: lit_detect.detectors.EncoderDetector, init_args: {model: scratch-1x32, max_tokens: 128}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
"""


class LowerStarts(ZeroShotDetector):
    """A zero-shot detector without a language model: share of the sentences that start in lower case."""

    name, max_tokens = "LowerStarts", None

    def score(self, texts):
        starts = [re.findall(r"(?:^|[.!?]\s+)(\w)", text) for text in texts]
        return torch.tensor([sum(map(str.islower, found)) / max(1, len(found)) for found in starts]).double()

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


@pytest.fixture(autouse=True)
def in_folder_with_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    lines = [json.dumps(record.to_dict()) for record in pairs(60)]
    Path("pairs.jsonl").write_text("\n".join(lines) + "\n")
    Path("settings.yaml").write_text(SETTINGS)
    Path("encoder.yaml").write_text(ENCODER)


def fit(*args, run):
    return main(["fit", "--config", "settings.yaml", *args, "--run", run])


def last(run):
    return torch.load(f"runs/detect/{run}/checkpoints/last.ckpt", weights_only=True)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_trained_detector_is_trained_tested_and_asked(capsys):
    assert fit("--config", "encoder.yaml", "--trainer.max_epochs", "2", run="encoder") == 0, capsys.readouterr().err
    checkpoint = last("encoder")
    assert checkpoint["detector"] == {
        "name": "EncoderDetector[scratch-1x32]",
        "max_tokens": 128,
        "min_tokens": 50,
    }
    said = "".join(capsys.readouterr())
    assert re.search(r"[1-9]\d* of 12 validation texts are longer than what EncoderDetector.* reads at once", said)
    assert said.count("validation texts") == 1, "not at each epoch"
    assert main(["test", "--ckpt_path", "runs/detect/encoder/checkpoints/last.ckpt", "--verbose", "false"]) == 0
    said = "".join(capsys.readouterr())
    assert re.search(r"[1-9]\d* of 12 texts are longer .* largest of their windows\. Without a calibration", said)
    logged = {key for row in rows("runs/detect/encoder/metrics.csv") for key, value in row.items() if value}
    assert {"train/loss", "val/pairs/auroc", "test/pairs/auroc", "test/pairs/domain/emma/auroc"} <= logged
    asked = [record.text for record in pairs(12)]
    Path("asked.jsonl").write_text("".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(asked)))
    predict = ["predict", "--ckpt_path", "runs/detect/encoder/checkpoints/last.ckpt", "--data.init_args.predict"]
    assert main([*predict, "asked.jsonl", "--model.init_args.min_tokens", "60"]) == 0
    lines = [json.loads(line) for line in Path("runs/detect/encoder/predictions.jsonl").read_text().splitlines()]
    judge = load_checkpoint("runs/detect/encoder/checkpoints/last.ckpt")
    scores = judge.scores(asked)
    assert [line["id"] for line in lines] == [str(number) for number in range(24)]
    assert [line["score"] for line in lines] == pytest.approx(scores.tolist(), abs=1e-5)
    counts = judge.detector.count_tokens(asked)
    decided = [60 <= count <= 126 for count in counts]  # longer ones are judged in windows, which need a calibration
    assert [line["decision"] != "abstain" for line in lines] == decided and any(decided) and min(counts) < 60
    for line, score, is_decided in zip(lines, scores, decided, strict=True):
        assert line["probability"] == (pytest.approx(float(torch.sigmoid(score)), abs=1e-5) if is_decided else None)


def test_statistics_are_fitted_to_the_whole_training_set_once():
    assert fit(*STATISTICS, run="once") == 0
    judge = load_checkpoint("runs/detect/once/checkpoints/last.ckpt")
    train = training_set()
    by_hand = EntityStatistics()
    by_hand.fit_features(by_hand.features([r.text for r in train]), torch.tensor([r.label for r in train]))
    some = [record.text for record in pairs(10)]
    assert torch.allclose(judge.detector.score(some), by_hand.score(some), atol=1e-6)


def documented():
    text = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()
    lines = text.split("## Metric keys of lit-detect")[1].split("\n## ")[0].splitlines()
    return {key for line in lines if line.startswith("| `") for key in re.findall(r"`([^`]+)`", line.split("|")[1])}


def generic(key):
    """A logged key as the contract names it."""
    key = re.sub(r"^(val|test)/pairs/", "{stage}/{source}/", key)
    if key.split("/")[2:3] == ["attack"]:
        return re.sub(r"attack/[^/]+/", "attack/{attack}/", key)
    key = re.sub(r"\}/(domain|generator|decoding|priming)/[^/]+/.*", "}/{field}/{value}/{metric}", key)
    return re.sub(r"(human|machine)$", "{class}", re.sub(r"_0[15]$", "_{rate}", key))


def test_the_documented_keys_are_those_that_runs_log():
    callbacks = """
    trainer:
      callbacks:
        - class_path: lit_detect.RobustnessMonitor
          init_args: {attacks: [{class_path: lit_detect.attacks.Homoglyph}]}
        - class_path: lit_detect.AdversarialTraining
          init_args: {attacks: [{class_path: lit_detect.attacks.UpperLower}]}
    """
    Path("callbacks.yaml").write_text(dedent(callbacks))
    assert fit("--config", "encoder.yaml", "--config", "callbacks.yaml", "--trainer.max_epochs", "2", run="keys") == 0
    assert main(["test", "--ckpt_path", "runs/detect/keys/checkpoints/last.ckpt"]) == 0
    logged = {key for row in rows("runs/detect/keys/metrics.csv") for key, value in row.items() if value}
    too_few = {"{stage}/{source}/tpr_at_fpr_{rate}", "{stage}/{source}/achieved_fpr_{rate}"}  # of 6 human texts
    assert {generic(key) for key in logged - {"step", "epoch"}} == documented() - too_few


def training_set():
    found = TextSet("data/texts/pairs/train")
    return [found.record(number) for number in range(len(found))]


def test_two_processes_fit_the_same_statistics_and_log_the_same():
    assert fit(*STATISTICS, run="one") == 0
    command = [sys.executable, short_search.__file__, "fit", "--config", "settings.yaml", *STATISTICS, "--run", "two"]
    done = subprocess.run([*command, "--trainer.devices", "2", "--trainer.strategy", "ddp"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    one, two = (last(run)["state_dict"]["detector._extra_state"] for run in ("one", "two"))
    assert torch.equal(one, two)
    assert rows("runs/detect/one/metrics.csv") == rows("runs/detect/two/metrics.csv")


@pytest.mark.parametrize("name", ["WeightAveraging", "EMAWeightAveraging"])
def test_what_is_fitted_has_no_weights_to_average(name, capsys):
    assert fit(*STATISTICS, f"--trainer.callbacks+=lightning.pytorch.callbacks.{name}", run="averaged") == 2
    error = capsys.readouterr().err
    assert f"`trainer.callbacks` has {name}, but this model is fitted" in error and not Path("runs").exists()


@pytest.mark.parametrize("option", ["max_steps", "limit_train_batches", "fast_dev_run"])
def test_an_epoch_that_an_option_cuts_is_refused_with_its_name(option, capsys):
    assert fit(*STATISTICS, f"--trainer.{option}", "1", run="cut") == 2
    assert re.search(rf"is fitted after one epoch, .* leave out .*trainer\.{option}\b", capsys.readouterr().err)


def test_gathering_goes_on_where_it_was_stopped():
    assert fit(*STATISTICS, run="whole") == 0
    assert fit(*STATISTICS, "--trainer.max_steps", "4", run="part") == 2  # ended before anything was fitted
    assert last("part")["gathered"].shape[0] == 40
    resume = ["fit", "--ckpt_path", "runs/detect/part/checkpoints/last.ckpt", "--trainer.max_steps", "-1"]
    assert main(resume) == 0
    whole, part = (last(run) for run in ("whole", "part"))
    assert "gathered" not in part
    assert torch.equal(whole["state_dict"]["detector._extra_state"], part["state_dict"]["detector._extra_state"])


def test_a_zero_shot_detector_is_calibrated(capsys):
    assert fit("--model.init_args.detector", "test_detector_task.LowerStarts", run="zero") == 0
    closing = capsys.readouterr().out
    assert "Test it" in closing and "Resume it" not in closing  # it has nothing to continue
    judge = load_checkpoint("runs/detect/zero/checkpoints/last.ckpt")
    from sklearn.linear_model import LogisticRegression

    train = training_set()
    scores = judge.detector.score([record.text for record in train])
    n = len(train) // 2
    # Platt's targets are what a class's own label with weight (n + 1) / (n + 2) and the other's with 1 / (n + 2) gives
    labels = [record.label for record in train]
    twice = [*labels, *(1 - label for label in labels)]
    weights = [(n + 1) / (n + 2)] * len(train) + [1 / (n + 2)] * len(train)
    model = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000).fit(scores.repeat(2)[:, None], twice, weights)
    assert judge.platt(scores).tolist() == pytest.approx(model.predict_proba(scores[:, None])[:, 1].tolist(), abs=1e-3)
    assert float(judge.platt(torch.tensor(judge.threshold))) == pytest.approx(0.5)


class UpperStarts(LowerStarts):
    """Scores the other way round."""

    def score(self, texts):
        return -super().score(texts)


def test_a_zero_shot_detector_that_scores_machines_lower_is_refused(capsys):
    assert fit("--model.init_args.detector", "test_detector_task.UpperStarts", run="turned") == 2
    said = capsys.readouterr().err
    assert "gives the machine texts no higher scores than the human ones" in said and "train another detector" in said


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_precision_of_the_weights_leaves_the_threshold_as_it_is(dtype):
    task = DetectorTask(LowerStarts())
    task.set_platt(Platt(1 / 3, -5 / 7))
    before = task.judge().threshold, task.judge().platt
    task = task.to(dtype)
    assert task.placeholder.dtype == dtype
    assert (task.judge().threshold, task.judge().platt) == before


def test_groups_without_human_texts_abstain_and_are_refused_where_none_has_any(capsys):
    assert fit("--model.init_args.detector", "test_detector_task.LowerStarts", run="zero") == 0
    name = "test_detector_task.LowerStarts"
    human = Group((Length(1, (0.0,) * 300),), Length(50, (0.0,) * 300))
    digest = file_sha256(Path("runs/detect/zero/checkpoints/last.ckpt"))
    Calibration(0.01, "LowerStarts", digest, {"letters": human}, "domain").save("calibration.json")
    Path("asked.csv").write_text("text,domain\nA text.,letters\n")
    predict = [
        "predict",
        "--ckpt_path",
        "runs/detect/zero/checkpoints/last.ckpt",
        "--data.init_args.predict",
        "asked.csv",
    ]
    predict += ["--model.init_args.calibration", "calibration.json", "--model.init_args.detector", name]
    predict += ["--model.init_args.min_tokens", "1"]
    assert main(predict) == 2  # no column is named
    assert "name the column by `data.group_column`" in capsys.readouterr().err
    grouped = [*predict, "--data.init_args.group_column", "domain"]
    Path("asked.csv").write_text("text,domain\nAnother one.,recipes\n")
    assert main(grouped) == 2
    assert "domain is 'recipes', but there are human texts of letters only" in capsys.readouterr().err
    Path("asked.csv").write_text("text,domain\nA text.,letters\na text.,letters\nAnother one.,recipes\n")
    with pytest.warns(UserWarning, match="No human texts were measured with domain 'recipes'"):
        assert main(grouped) == 0
    found = [(row["decision"], row["reason"]) for row in rows("runs/detect/zero/predictions.csv")]
    reason = "no human texts with domain 'recipes' were measured"
    assert found == [("human", ""), ("machine", ""), ("abstain", reason)]


def test_what_cannot_be_is_said_in_a_sentence(capsys):
    assert fit(*STATISTICS, "--model.init_args.min_tokens", "-1", run="bad") == 2
    assert "min_tokens is -1" in capsys.readouterr().err
    assert fit("--model.init_args.detector", "EntityStatistic", run="bad") == 2
    Path("other.ckpt").write_bytes(b"")
    torch.save({"state_dict": {}, "global_step": 0}, "other.ckpt")
    with pytest.raises(UserError, match="holds no detector"):
        load_checkpoint("other.ckpt")
