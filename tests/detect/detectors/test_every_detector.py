"""What `Detector` promises, checked of every detector that has a config, whatever it is called."""

import io
import json
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from stand_ins import LEARNED, cases

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_detect import DetectorTask, TextDataModule
from lit_detect.attacks import TextFooler
from lit_detect.detectors import Detector, Ensemble, TrainedDetector, ZeroShotDetector
from lit_detect.detectors.normalization import with_normalization
from lit_detect.formats import EmbeddedPairs, LitShiftJSONL
from lit_detect.records import HUMAN, MACHINE
from lit_detect.windows import cut

KIND, CONFIGS = cases(Detector)
PAIRS = 5
LONG = "It was late, and Emma went home. " * 600
TEXTS = [
    "Emma met Mr. Knightley near Highbury. It rained.",
    "house",
    "😀 👩‍👩‍👧",
    "  naïve\n\n\u0130 \u200b ",
    LONG[:900],
    "",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared set: the human texts of some embedded pairs, and machine texts that nobody can mistake for them."""
    root = tmp_path_factory.mktemp("texts")
    humans = [record for record in EmbeddedPairs().records() if record.label == HUMAN][:PAIRS]
    with (root / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for number, record in enumerate(humans):
            same = {"pair_id": f"p{number}", "split": "train" if number < PAIRS - 1 else "val"}
            human = record.to_dict() | same | {"id": f"h{number}", "text": record.text[:400]}
            text = LEARNED[number % len(LEARNED)]
            machine = human | {
                "id": f"m{number}",
                "text": f"{text} {number} {text}",
                "label": MACHINE,
                "source": "test",
            }
            file.writelines(json.dumps(row) + "\n" for row in (human, machine))
    return root


@pytest.fixture(scope="module", params=CONFIGS)
def built(request, stand_ins, data, tmp_path_factory):
    """A detector of a config that was trained, fitted or calibrated, and a function that builds a new one."""
    build = partial(stand_ins.build, KIND, request.param, lambda detector: detector.count_tokens(["It rained."]))
    task = DetectorTask(build(), optimizer=partial(torch.optim.AdamW, lr=2e-3), min_tokens=2)
    source = LitShiftJSONL(str(data / "pairs.jsonl"), name="pairs")
    module = TextDataModule(str(data / "root"), ["pairs"], sources=[source], batch_size=2 * PAIRS - 2)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=12 if task.is_trained else 1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path_factory.mktemp("run"),
        callbacks=[ResumeStream()],
    )
    trainer.fit(task, module)
    texts = [record.text for record in source.records()]
    return SimpleNamespace(task=task.eval(), detector=task.detector, build=build, texts=texts)


def test_machine_texts_score_higher_once_it_is_fitted(built):
    scores = built.detector.score(built.texts)
    assert scores[1::2].mean() > scores[::2].mean()


def test_nothing_judges_before_it_is_fitted(built, data, tmp_path):
    (tmp_path / "asked.txt").write_text("It rained.\n")
    source = LitShiftJSONL(str(data / "pairs.jsonl"), name="pairs")
    module = TextDataModule(str(data / "root"), ["pairs"], test=["pairs"], predict=str(tmp_path / "asked.txt"))
    module.names |= {"val": ["pairs"], "test": ["pairs"]}
    module._folder = lambda *_: data / "root" / source.name / "train"
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **quiet)
    new = built.build()
    assert built.detector.is_fitted and new.is_fitted == isinstance(new, ZeroShotDetector)
    assert with_normalization(new).is_fitted == new.is_fitted
    for ask in (trainer.validate, trainer.test, trainer.predict):
        ask(built.task, datamodule=module, **({} if ask == trainer.predict else {"verbose": False}))
        if not new.is_fitted:
            with pytest.raises(UserError, match=r"is not fitted yet.* run `lit-detect fit` first, or give --ckpt_path"):
                ask(DetectorTask(new), datamodule=module)
        else:
            with pytest.warns(UserWarning, match="has no threshold yet: .* before `lit-detect fit` or a calibration"):
                ask(DetectorTask(new), datamodule=module)
    if not new.is_fitted:
        with pytest.raises(UserError, match="is not fitted yet"):
            TextFooler(new)
    if isinstance(new, TrainedDetector):
        with pytest.raises(UserError, match="is not fitted yet"):
            Ensemble([new, built.detector]).features(TEXTS)


def test_scores_are_finite_numbers_on_the_cpu(built):
    scores = built.detector.score(TEXTS)
    assert scores.shape == (len(TEXTS),) and scores.dtype == torch.float64 and scores.device.type == "cpu"
    assert scores.isfinite().all() and not scores.requires_grad
    assert built.detector.score([]).shape == (0,)
    assert built.detector.count_tokens([]) == []


def test_the_batch_does_not_matter(built):
    scores = built.detector.train().score(TEXTS)
    assert built.detector.training, "score must leave the mode as it is"
    assert torch.equal(scores, built.detector.eval().score(TEXTS)), "score must be in evaluation mode"
    alone = torch.cat([built.detector.score([text]) for text in TEXTS])
    torch.testing.assert_close(scores, alone, atol=1e-4, rtol=1e-4)
    counts = built.detector.count_tokens(TEXTS)
    assert counts == [built.detector.count_tokens([text])[0] for text in TEXTS]


def test_tokens_are_counted_uncut_and_only_the_first_ones_are_read(built):
    cap, (empty, short, long) = built.detector.max_tokens, built.detector.count_tokens(["", "house", LONG])
    assert empty == 0 < short < long and type(short) is int
    if cap is not None:
        assert 1 <= cap < long
        torch.testing.assert_close(*built.detector.score([LONG, f"{LONG} However, Anna met Bob."]).split(1))


def test_an_empty_text_has_no_decision(built):
    predictions = built.task.predict_step({"text": TEXTS, "index": torch.arange(len(TEXTS))}, 0)
    assert predictions["decision"][TEXTS.index("")] == "abstain"
    assert predictions["decision"][0] in ("human", "machine")
    decided = torch.tensor([decision != "abstain" for decision in predictions["decision"]])
    probability = predictions["probability"]
    assert torch.equal(~probability.isnan(), decided) and ((probability >= 0) & (probability <= 1))[decided].all()


def test_a_long_text_is_read_in_windows(built):
    windows = cut(built.detector, LONG)
    assert max(built.detector.fill([LONG[start:end] for start, end in windows])) <= 1
    assert (len(windows) > 1) == (built.detector.max_tokens is not None)


def test_what_is_fitted_comes_back_from_a_state(built):
    file = io.BytesIO()
    torch.save(built.detector.state_dict(), file)
    file.seek(0)
    other = built.build()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.name == built.detector.name and other.name.startswith(type(other).__name__)
    assert torch.equal(other.score(TEXTS), built.detector.score(TEXTS))
