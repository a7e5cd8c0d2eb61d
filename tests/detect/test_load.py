"""`lit_detect.load` by each kind of name: three lines of Python judge as `lit-detect predict` does."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import lit_core.lm
import lit_detect
from lit_core.errors import UserError
from lit_core.lm import HuggingFaceLM, LanguageModel
from lit_detect.calibration import Calibration
from lit_detect.commands.calibrate import calibrate
from lit_detect.detectors import LogLikelihood
from lit_detect.golden import golden_texts

LONG = "It was late, and Emma went home with Anna. " * 40


@pytest.fixture
def published(tiny_bert, tmp_path):
    """A folder with a published classifier, whose labels have names."""

    def save(*names, **more):
        folder = tmp_path / "published"
        shutil.copytree(tiny_bert, folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        config |= {"id2label": {str(index): name for index, name in enumerate(names)}, **more}
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return save


def test_a_published_classifier_judges_by_the_names_of_its_labels(published):
    scores = []
    for names in (("Fake", "Real"), ("human", "machine")):
        judge = replace(lit_detect.load(published(*names)), min_tokens=1)
        (found,) = judge.judge(["Emma met Anna."])
        assert found.decision == ("machine" if found.score >= 0 else "human")
        assert found.probability == pytest.approx(float(torch.sigmoid(torch.tensor(found.score))))
        scores.append(found.score)
    assert scores[0] == -scores[1]
    assert judge.detector.max_tokens == 48, "as many as it takes"
    (found,) = judge.judge([LONG])
    assert found.decision == "abstain" and len(found.windows) > 5


def test_a_classifier_that_contradicts_itself_is_refused(published):
    with pytest.raises(UserError, match=r"labels 0 'LABEL_0' and 1 'LABEL_1', which do not say"):
        lit_detect.load(published("LABEL_0", "LABEL_1"))
    with pytest.raises(UserError, match=r"labels 0 'Fake' and 1 'Real', but in label2id .*, which do not say"):
        lit_detect.load(published("Fake", "Real", label2id={"Real": 0, "Fake": 1}))


def test_a_shipped_detector_is_found_by_name_and_decides_nothing_yet(tiny_gpt2, monkeypatch):
    def small(dtype: str = "float32", layers: int | None = None) -> LanguageModel:
        return HuggingFaceLM.from_pretrained(tiny_gpt2)

    monkeypatch.setattr(lit_core.lm, "smollm2", small)
    monkeypatch.setattr(LogLikelihood.__init__, "__defaults__", (60, 1024))
    judge = lit_detect.load("log_likelihood")
    (found,) = judge.judge([LONG])
    assert found.decision == "abstain" and found.reason.startswith("no threshold") and found.probability is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("log_likelyhood", 'There is no detector log_likelyhood. Did you mean "log_likelihood"?'),
        ("scratch-1x32", "is not fitted yet"),
        ("none.ckpt", "The detector's checkpoint is none.ckpt, but there is no such file"),
    ],
)
def test_what_is_no_detector_is_refused(name, sentence):
    with pytest.raises(UserError) as refused:
        lit_detect.load(name)
    assert sentence in str(refused.value)


def test_a_calibration_decides(published, tmp_path, monkeypatch, capsys):
    folder, texts = published("Fake", "Real"), golden_texts()
    human = tmp_path / "human.jsonl"
    human.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    calibrate(str(human), detector=folder, fpr=0.1, output=str(tmp_path / "c.json"))
    assert f"lit_detect.load({folder!r}, calibration=" in capsys.readouterr().out
    found = lit_detect.load(folder, calibration=tmp_path / "c.json").judge(texts)
    judged = [(one.decision, one.p_value <= 0.1) for one in found]
    assert judged == [("machine", True) if is_low else ("human", False) for _, is_low in judged]
    kept = Calibration.load(tmp_path / "c.json")
    assert kept.checkpoint_sha256 is None and len(kept.golden) == 32
    for change, sentence in (
        ({"detector": "Other"}, "has scores of Other"),
        ({"checkpoint_sha256": "ab"}, "is of another checkpoint, but this is no checkpoint"),
        ({"golden": tuple(score - 1 for score in kept.golden)}, "no longer scores as it did"),
    ):
        replace(kept, **change).save(tmp_path / "other.json")
        with pytest.raises(UserError, match=sentence):
            lit_detect.load(folder, calibration=tmp_path / "other.json")
    for arguments in ({}, {"detector": folder, "ckpt_path": "a.ckpt"}):
        with pytest.raises(UserError, match="Give one of `ckpt_path`"):
            calibrate(str(human), **arguments, output=str(tmp_path / "new.json"))
