"""Each exported callback in somebody else's project works, or says in one sentence what it needs.

That is with a plain Trainer, in each precision, with batches of each form, and in a LightningCLI of the project's own.
"""

import csv
import json

import lightning.pytorch as pl
import pytest
import torch
import yaml
from kinds import CONFIGS, exports
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from test_foreign_projects import CALLBACKS, PRECISIONS, Mine, Rows, parts, trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import lit_core.callbacks as core
from lit_core.data import EvalStream, StreamLoader
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.attacks import Homoglyph
from lit_detect.callbacks import AdversarialTraining, PredictionWriter, RobustnessMonitor
from lit_moe.callbacks import RouterDrift, RoutingFingerprint, SampleText
from lit_moe.fingerprint import Fingerprint
from lit_moe.nn import Decoder, DecoderConfig


class Bare(pl.LightningModule):
    """A user's module with nothing that a callback could look for."""

    def __init__(self):
        super().__init__()
        self.net, self.trained, self.predicted = nn.Linear(4, 3), 0, 0

    def loss(self, batch):
        x, y = parts(batch)[:2]
        return F.cross_entropy(self.net(x).float(), y)

    def training_step(self, batch, batch_idx):
        self.trained += 1
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        self.predicted += 1
        return self.net(parts(batch)[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Texts(Mine):
    """A user's module and batches that have what each callback asks for."""

    def __init__(self):
        super().__init__()
        self.tokenizer = Tokenizer.bytes()
        self.decoder = Decoder(DecoderConfig(self.tokenizer.vocab_size, n_layers=1, d_model=8, n_heads=1, d_ff=8))

    def score(self, texts):
        return [float(len(text.encode())) - 5 for text in texts]

    def routing_step(self, batch):
        if "input_ids" in batch:  # a probe's; here tokens are rows of four numbers
            self(F.one_hot(batch["input_ids"].flatten() % 4, 4).to(self.head.weight.dtype))
        else:
            self(parts(batch)[0])

    test_step = None

    def predict_step(self, batch, batch_idx):
        scores, size = self.score(batch["text"]), len(batch["y"])
        found = {"score": scores, "probability": scores, "decision": ["human"] * size, "tokens": [1] * size}
        return found | {"index": batch["index"], "probabilities": self(batch["x"]).float().softmax(1)}


class Documents(Rows):
    """Rows with a text each; every third one is a machine's."""

    def __init__(self, size=8, seed=0):
        super().__init__("dict", size, seed)

    def __getitem__(self, index):
        return super().__getitem__(index) | {"text": "a word", "index": index}


def saved(folder, model):
    """A checkpoint of the project's own, of before."""
    path = folder / "before.ckpt"
    state = {"state_dict": model.state_dict(), "global_step": 0, "pytorch-lightning_version": pl.__version__}
    torch.save(state, path)
    return str(path)


#: How each callback is made; those of `CALLBACKS` as there.
MADE = {kind: lambda folder, model, make=make: make(folder) for kind, make in CALLBACKS.items()} | {
    AdversarialTraining: lambda folder, model: AdversarialTraining([Homoglyph()], share=1.0),
    RobustnessMonitor: lambda folder, model: RobustnessMonitor([Homoglyph()], documents=2),
    PredictionWriter: lambda folder, model: PredictionWriter(folder),
    RoutingFingerprint: lambda folder, model: RoutingFingerprint(tokens=8),
    SampleText: lambda folder, model: SampleText(["ab"], max_new_tokens=2),
    RouterDrift: lambda folder, model: RouterDrift(saved(folder, model), min_occurrences=1),
    core.BranchFrom: lambda folder, model: core.BranchFrom(saved(folder, model)),
    core.MonitoredKeys: lambda folder, model: core.MonitoredKeys(),
    core.RunAnswer: lambda folder, model: core.RunAnswer(lambda: ["It answers."]),
    core.CompileParts: lambda folder, model: core.CompileParts(["net" if isinstance(model, Bare) else "mix"], "eager"),
}


def test_each_exported_callback_is_here():
    shown = (pl.callbacks.ProgressBar, pl.callbacks.ModelSummary)  # the trainer's own, one of each
    assert {part for part in exports() if issubclass(part, pl.Callback) and not issubclass(part, shown)} == set(MADE)


@pytest.mark.parametrize("form", ["tuple", "dataclass"])
@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_a_callback_works_or_says_what_it_lacks(kind, form, tmp_path):
    """By the first batch at the latest, in a module that has nothing of what a callback could ask for."""
    data = Rows(form, 8)

    def batches():  # torch's own loader stacks no dataclasses
        return StreamLoader(EvalStream(data, 4)) if form == "dataclass" else DataLoader(data, batch_size=4)

    stages = {
        "fit": lambda run, model: run.fit(model, batches(), batches()),
        "test": lambda run, model: run.test(model, batches(), verbose=False),
        "predict": lambda run, model: run.predict(model, batches()),
    }
    with torch.random.fork_rng():
        for stage in stages.values():
            model = Bare()
            run = trainer(tmp_path, MADE[kind](tmp_path, model), limit_val_batches=1)
            try:
                stage(run, model)
            except UserError as error:
                assert model.trained <= 1 and model.predicted <= 1
                assert kind.__name__ in str(error) or "Bare" in str(error)


#: Callbacks that the module above does not have what to do for, beside those that are tried in every precision already.
#: To compile takes long, and has tests of its own.
ASKING = [kind for kind in MADE if kind not in CALLBACKS and kind is not core.CompileParts]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ASKING, ids=lambda kind: kind.__name__)
def test_a_callback_works_in_each_precision_where_it_has_what_it_asks_for(kind, precision, tmp_path):
    pytest.importorskip("tensorboard")
    model = Texts()
    callback = MADE[kind](tmp_path, model)
    if kind is core.BranchFrom:
        with torch.no_grad():
            model.head.weight.zero_()
    logger = TensorBoardLogger(tmp_path / "tb", name="", version="")
    run = trainer(tmp_path, callback, precision=precision, logger=logger)
    validation = {name: DataLoader(Documents(seed=seed), batch_size=4) for seed, name in enumerate(("prose", "code"))}
    with torch.random.fork_rng():
        run.fit(model, DataLoader(Documents(), batch_size=4), validation)
        logged = {key: float(value) for key, value in run.callback_metrics.items()}
        run.predict(model, DataLoader(Documents(), batch_size=4))
    assert run.global_step == 2
    if kind is AdversarialTraining:
        assert logged["train/adversarial/share"] == 1 and logged["train/adversarial/edits"] > 0
    elif kind is RobustnessMonitor:
        assert logged["val/code/attack/Homoglyph/recall_before"] == 1
    elif kind is RouterDrift:
        assert 0.9 <= logged["val/prose/router/crs/mean"] <= 1
    elif kind is RoutingFingerprint:
        assert Fingerprint.load(tmp_path / "fingerprint.npz", "it").sizes == [(3, 2)]
    elif kind is core.BranchFrom:
        assert model.head.weight.abs().min() > 0
    elif kind is PredictionWriter:
        with open(tmp_path / "predictions.csv", newline="") as file:
            assert [row["score"] for row in csv.DictReader(file)] == ["1"] * 8
    else:
        assert kind in (SampleText, core.MonitoredKeys, core.RunAnswer)


@pytest.mark.parametrize("optimizers", [1, 2])
def test_what_is_logged_of_a_step_is_of_the_whole_step(optimizers, tmp_path):
    """Also where several optimizers step in it."""

    class Several(Texts):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = optimizers == 1

    callback = MADE[AdversarialTraining](tmp_path, None)
    run = trainer(tmp_path, callback, max_steps=2 * optimizers, limit_val_batches=0)
    run.fit(Several(), DataLoader(Documents(), batch_size=4))
    assert float(run.callback_metrics["train/adversarial/share"]) == 1


def configured():
    """The packaged configs of callbacks, by the class that each names."""
    for path in sorted(CONFIGS.glob("*/callbacks/*.yaml")):
        for entry in yaml.safe_load(path.read_text())["trainer"]["callbacks+"]:
            yield entry["class_path"].rpartition(".")[2], entry


@pytest.mark.parametrize(("name", "entry"), [*configured()], ids=[name for name, _ in configured()])
def test_a_callback_is_taken_by_a_command_line_of_the_projects_own(name, entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet = {"accelerator": "cpu", "logger": False, "callbacks": [entry]}
    cli = LightningCLI(Bare, run=False, args=[f"--trainer={json.dumps(quiet)}"])
    assert name in {type(callback).__name__ for callback in cli.trainer.callbacks}
