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
from lit_detect.calibration import Calibration, Group
from lit_detect.detectors import EncoderDetector, LogLikelihood

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


def test_a_calibration_decides(published, tmp_path):
    folder = published("Fake", "Real")
    name = EncoderDetector(folder, 40).name
    for path, of, threshold in (("calibration.json", name, -100.0), ("other.json", "Other", 0.0)):
        Calibration(0.05, of, "", {"": Group(threshold, 0.0, 0.0, 0.1, 60)}).save(tmp_path / path)
    (found,) = lit_detect.load(folder, calibration=tmp_path / "calibration.json").judge([LONG])
    assert found.decision == "machine" and all(window.is_flagged for window in found.windows)
    with pytest.raises(UserError, match="has thresholds of Other"):
        lit_detect.load(folder, calibration=tmp_path / "other.json")
