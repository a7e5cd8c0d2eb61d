"""A detector that was trained on normalised Unicode scores normalised text, whoever asks it."""

import ast
import json
from pathlib import Path

import pytest
import torch
from austen_pairs import pairs, passages, shuffled

import lit_detect
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_detect.attacks import TextFooler
from lit_detect.calibration import Calibration
from lit_detect.cli import main
from lit_detect.commands.attack import plain
from lit_detect.commands.calibrate import calibrate
from lit_detect.commands.report import evaluate
from lit_detect.data.prepare import prepare
from lit_detect.detectors import Ensemble, TrainedDetector
from lit_detect.formats import LitShiftJSONL
from lit_detect.loading import LoadedDetector, load_detector, score_many, trained
from lit_detect.module import DetectorTask
from lit_detect.records import HUMAN, MACHINE, Record

HOMOGLYPHS = str.maketrans("aeopc", "\u0430\u0435\u043e\u0440\u0441")  # Cyrillic


def disguised(text):
    """A text with Cyrillic letters and zero-width spaces, which normalisation undoes."""
    return "\u200b".join(text.translate(HOMOGLYPHS).split("i"))


def undisguised(text):
    return "".join(text.split("i"))


CLEAN = [undisguised(text) for text in passages(24)]
DISGUISED = [disguised(text) for text in passages(24)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Checkpoints: a network and statistics that were trained on normalised Unicode, and ensembles of the two."""
    folder = tmp_path_factory.mktemp("runs")
    lines = [json.dumps(record.to_dict()) + "\n" for record in pairs(24)]
    (folder / "pairs.jsonl").write_text("".join(lines))
    prepare(str(folder / "texts"), [LitShiftJSONL(str(folder / "pairs.jsonl"), "pairs")])
    network = {"class_path": "EncoderDetector", "init_args": {"model": "scratch-1x32", "max_tokens": 64}}
    fit(folder, "network", network, normalize=True)
    fit(folder, "statistics", {"class_path": "EntityStatistics"}, normalize=True)
    members = [
        {"class_path": f"lit_detect.loading.{name}", "init_args": {argument: checkpoint(folder, run)}}
        for run, name, argument in (("network", "trained", "checkpoint"), ("statistics", "load_detector", "ckpt_path"))
    ]
    fit(folder, "ensemble", {"class_path": "Ensemble", "init_args": {"members": members}}, normalize=False)
    fit(folder, "further", members[0], normalize=False)
    old = torch.load(checkpoint(folder, "ensemble"), weights_only=True)  # as it was before members normalised
    old["state_dict"] = {unwrapped(key): value for key, value in old["state_dict"].items()}
    torch.save(old, folder / "old.ckpt")
    return folder


def unwrapped(key):
    for member in ("detector.members.0.", "detector.members.1."):
        key = key.replace(f"{member}detector.", member)
    return key


def fit(folder, run, detector, normalize):
    arguments = ["fit", "--model", "DetectorTask", "--model.detector", json.dumps(detector)]
    arguments += ["--data", "TextDataModule", "--data.root", str(folder / "texts"), "--data.train", "[pairs]"]
    arguments += ["--data.normalize", str(normalize).lower(), "--trainer.max_epochs", "1"]
    arguments += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run", run]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(arguments) == 0


def checkpoint(folder, run):
    return str(folder / "old.ckpt" if run == "old" else folder / "runs/detect" / run / "checkpoints/last.ckpt")


def loaded(path, texts, folder):
    return LoadedDetector.load(path).detector.score(texts)


def by_name(path, texts, folder):
    assert torch.equal(trained(path).score(texts), load_detector(path).score(texts))
    return trained(path).score(texts)


def scored(path, texts, folder):
    return score_many(LoadedDetector.load(path), texts).scores


def as_member(path, texts, folder):
    return Ensemble([trained(path), trained(path)]).features(texts)[:, 0]


def attacked(path, texts, folder):
    attack = TextFooler(trained(path), threshold=1e9, max_queries=1)  # the first query is the text as it is
    return torch.tensor([attack(text, 0).meta["score_before"] for text in texts])


def calibrated(path, texts, folder):
    thresholds = []
    for text in texts[:2]:
        (folder / "human.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in (text, *texts[2:])))
        calibrate(path, str(folder / "human.jsonl"), fpr=0.2, output=str(folder / "calibration.json"))
        group = Calibration.load(folder / "calibration.json").groups[""]
        thresholds.append(group.threshold)
    return torch.tensor(thresholds)


def reported(path, texts, folder):
    records = [Record(str(n), text, HUMAN) for n, text in enumerate(texts)]
    records += [Record(f"m{n}", text, MACHINE) for n, text in enumerate(map(shuffled, texts))]
    return evaluate("d", LoadedDetector.load(path), records, folder / f"scores-{hash(texts[0])}", resamples=2).scores


def predicted(path, texts, folder):
    (folder / "asked.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = f"predicted-{abs(hash((path, texts[0])))}"
    arguments = ["predict", "--ckpt_path", path, "--run", run, "--trainer.accelerator", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*arguments, "--data.init_args.predict", str(folder / "asked.jsonl")]) == 0
    rows = (folder / "runs/detect" / run / "predictions.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(row)["score"] for row in rows])


WAYS = [loaded, by_name, scored, as_member, attacked, calibrated, reported, predicted]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("run", ["network", "statistics", "ensemble", "old"])
def test_disguised_letters_change_no_score(runs, run, way, capsys):
    path = checkpoint(runs, run)
    assert DISGUISED != CLEAN
    scores = way(path, DISGUISED, runs)
    assert torch.allclose(scores, way(path, CLEAN, runs), atol=1e-6)
    if way not in (calibrated, reported):
        assert torch.allclose(scores, loaded(path, CLEAN, runs).to(scores), atol=1e-4)


def test_the_detector_itself_tells_them_apart(runs):
    bare = LoadedDetector.load(checkpoint(runs, "network")).task.detector
    assert not torch.allclose(bare.score(DISGUISED), bare.score(CLEAN), atol=1e-2)


def test_a_normalising_network_can_be_trained_further(runs):
    task = LoadedDetector.load(checkpoint(runs, "further")).task
    assert isinstance(task.detector, TrainedDetector) and task.is_trained
    before = trained(checkpoint(runs, "network"))
    assert not torch.equal(task.detector.score(CLEAN), before.score(CLEAN))
    assert torch.allclose(task.detector(DISGUISED), task.detector(CLEAN), atol=1e-6)


def test_it_has_the_name_and_the_language_models_of_what_it_wraps(runs):
    one = LoadedDetector.load(checkpoint(runs, "network"))
    assert one.detector.name == one.task.detector.name and one.detector.max_tokens == 64
    assert one.long_enough(["", "\u200b", "Two words"]) == [False, False, True]
    assert plain(one.detector)["language_models"] == []
    assert not one.detector.training and not one.task.training


def test_nothing_else_loads_a_detector_or_asks_the_one_that_does_not_normalise():
    for path in Path(lit_detect.__file__).parent.rglob("*.py"):
        names = [node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        if path.name != "loading.py":
            assert "load_from_checkpoint" not in names and ".task.detector" not in path.read_text(), path
    assert not hasattr(DetectorTask, "load")


def test_another_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"checkpoint is .*other\.ckpt, which holds no detector"):
        trained(str(tmp_path / "other.ckpt"))


def test_a_checkpoint_of_a_normalising_member_names_it(runs):
    arguments = load_checkpoint_file(checkpoint(runs, "ensemble"))["hyper_parameters"]["detector"]["init_args"]
    names = [member["class_path"].rpartition(".") for member in arguments["members"]]
    assert names == [("lit_detect.loading", ".", "trained"), ("lit_detect.loading", ".", "load_detector")]
