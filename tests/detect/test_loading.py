"""A detector that was trained on normalised Unicode scores normalised text, whoever asks it."""

import json
from dataclasses import replace
from functools import cache
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
from lit_detect.loading import load_checkpoint, load_detector, score_many, trained
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
        {"class_path": former, "init_args": {argument: checkpoint(folder, run)}}
        for run, former, argument in (
            ("network", "lit_detect.detectors.trained", "checkpoint"),
            ("statistics", "lit_detect.attack.load_detector", "ckpt_path"),
        )
    ]
    fit(folder, "ensemble", {"class_path": "Ensemble", "init_args": {"members": members}}, normalize=False)
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
    arguments += ["--data.normalize", str(normalize).lower(), "--data.batch_size", "4", "--trainer.max_epochs", "1"]
    arguments += ["--model.optimizer", json.dumps({"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}})]
    arguments += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run", run]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(arguments) == 0


def checkpoint(folder, run):
    return str(folder / "old.ckpt" if run == "old" else folder / "runs/detect" / run / "checkpoints/last.ckpt")


#: What a file gives does not change.
load = cache(load_checkpoint)


def loaded(path, texts, folder):
    return load(path).detector.score(texts)


def by_name(path, texts, folder):
    scores = trained(path).score(texts)
    assert torch.equal(scores, load_detector(path).score(texts))
    return scores


def scored(path, texts, folder):
    return score_many(load(path), texts).scores


def as_member(path, texts, folder):
    return Ensemble([load(path).detector, load(path).detector]).features(texts)[:, 0]


def attacked(path, texts, folder):
    attack = TextFooler(load(path).detector, threshold=1e9, max_queries=1)  # the first query is the text as it is
    return torch.tensor([attack(text, 0).meta["score_before"] for text in texts])


def calibrated(path, texts, folder):
    thresholds = []
    for text in texts[:2]:
        (folder / "human.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in (text, *texts[2:])))
        (folder / "calibration.json").unlink(missing_ok=True)
        calibrate(str(folder / "human.jsonl"), path, fpr=0.2, output=str(folder / "calibration.json"))
        found = Calibration.load(folder / "calibration.json")
        thresholds.append(found.threshold(found.groups[""].whole))
    return torch.tensor(thresholds)


def reported(path, texts, folder):
    records = [Record(str(n), text, HUMAN) for n, text in enumerate(texts)]
    records += [Record(f"m{n}", text, MACHINE) for n, text in enumerate(map(shuffled, texts))]
    evaluated = evaluate("d", load(path), records, folder / f"scores-{hash(texts[0])}")
    assert 0 < evaluated.in_windows <= len(evaluated.records)
    return evaluated.scores


def predicted(path, texts, folder):
    (folder / "asked.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = f"predicted-{abs(hash((path, texts[0])))}"
    arguments = ["predict", "--ckpt_path", path, "--run", run, "--trainer.accelerator", "cpu", "--overwrite"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*arguments, "--data.init_args.predict", str(folder / "asked.jsonl")]) == 0
    rows = (folder / "runs/detect" / run / "predictions.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(row)["score"] for row in rows])


WAYS = [loaded, by_name, scored, as_member, attacked, calibrated, reported, predicted]
CASES = [*((run, way) for run in ("network", "ensemble") for way in WAYS), ("statistics", by_name), ("old", loaded)]


@pytest.mark.parametrize(("run", "way"), CASES)
def test_disguised_letters_change_no_score(runs, run, way):
    path = checkpoint(runs, run)
    assert DISGUISED != CLEAN
    scores, alone = way(path, DISGUISED, runs), loaded(path, CLEAN, runs)
    tolerance = 1e-3 * float(alone.std())  # batches of other sizes are rounded otherwise
    assert torch.allclose(scores, way(path, CLEAN, runs), atol=tolerance)
    if way in (scored, predicted, attacked):  # in windows
        alone = load(path).scores(CLEAN)
    if way not in (calibrated, reported):
        assert torch.allclose(scores.double(), alone, atol=tolerance)


def test_the_detector_itself_tells_them_apart(runs):
    for run in ("network", "statistics"):
        bare = load(checkpoint(runs, run)).detector.detector
        clean = bare.score(CLEAN)
        assert not torch.allclose(bare.score(DISGUISED), clean, atol=0.1 * float(clean.std()))


def test_a_normalising_network_can_be_trained_further(runs):
    detector = trained(checkpoint(runs, "network"))
    assert isinstance(detector, TrainedDetector) and DetectorTask(detector).is_trained
    logits = detector(DISGUISED)
    assert torch.allclose(logits, detector(CLEAN), atol=1e-6)
    logits.sum().backward()
    assert any(parameter.grad is not None for parameter in detector.parameters())


def test_it_has_the_name_and_the_language_models_of_what_it_wraps(runs):
    one = load(checkpoint(runs, "network"))
    assert one.detector.name == one.detector.detector.name and one.detector.max_tokens == 64
    assert replace(one, min_tokens=0).long_enough(["", "\u200b", "Two words"]) == [False, False, True]
    assert plain(one.detector)["language_models"] == []
    assert not one.detector.training


def test_nothing_else_loads_a_detector():
    for path in Path(lit_detect.__file__).parent.rglob("*.py"):
        source = path.read_text()
        if path.name != "loading.py":
            assert "load_from_checkpoint" not in source, path
    assert not hasattr(DetectorTask, "load")


def test_another_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {}, "global_step": 0}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"checkpoint is .*other\.ckpt, which holds no detector"):
        trained(str(tmp_path / "other.ckpt"))


@pytest.mark.parametrize("verb", ["test", "predict", "calibrate", "report", "attack"])
def test_a_checkpoint_before_the_first_step_judges_nothing(runs, verb, tmp_path, monkeypatch, capsys):
    content = torch.load(checkpoint(runs, "network"), weights_only=True) | {"global_step": 0}
    torch.save(content, runs / "new.ckpt")
    path, texts = str(runs / "new.ckpt"), str(runs / "pairs.jsonl")
    attack = {"class_path": "TextFooler", "init_args": {"detector": {"class_path": "lit_detect.loading.trained"}}}
    attack["init_args"]["detector"]["init_args"] = {"checkpoint": path}
    arguments = {
        "test": ["--ckpt_path", path, "--data.init_args.test", "[pairs]"],
        "predict": ["--ckpt_path", path, "--data.init_args.predict", texts],
        "calibrate": ["--ckpt_path", path, "--human", texts, "--fpr", "0.2"],
        "report": ["--detectors", json.dumps({"one": path}), "--texts", json.dumps([texts])],
        "attack": ["--attack", json.dumps(attack), "--input", texts, "--output", "attacked.jsonl"],
    }
    monkeypatch.chdir(tmp_path)
    assert main([verb, *arguments[verb]]) == 2
    assert "EncoderDetector[scratch-1x32] is not fitted yet" in capsys.readouterr().err
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_a_checkpoint_of_a_normalising_member_names_it(runs):
    arguments = load_checkpoint_file(checkpoint(runs, "ensemble"))["hyper_parameters"]["detector"]["init_args"]
    names = [member["class_path"].rpartition(".") for member in arguments["members"]]
    assert names == [("lit_detect.loading", ".", "trained"), ("lit_detect.loading", ".", "load_detector")]
