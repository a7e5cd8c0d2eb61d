"""Our parts in somebody else's project: a plain Trainer in each precision, other batches, several optimizers."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MetricCollection

import lit_core.callbacks as core
from lit_core.data import EvalStream, MixtureStream, ResumeStream, ShardStream, StreamLoader
from lit_core.errors import UserError
from lit_detect.metrics import DetectionScores
from lit_moe.callbacks import Forgetting, ReplayMixing, RouterBalance
from lit_moe.metrics import (
    BitsPerByte,
    CoactivationOverlap,
    ContinualRouterSaturation,
    ContinualVocabularySpecialization,
    TokenLoss,
)
from lit_moe.nn import MoEConfig, MoEFeedForward, PenaltyRouter, auxiliary_losses
from lit_valuation import GradientMatching
from lit_valuation.callbacks import PredictionTable
from lit_valuation.metrics import ClassifierScores

PRECISIONS = ["32-true", "64-true", "bf16-mixed", "bf16-true"]


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclass
class Record:
    x: torch.Tensor
    y: torch.Tensor


FORMS = {
    "tuple": lambda x, y: (x, y),
    "dict": lambda x, y: {"x": x, "y": y},
    "named tuple": Pair,
    "dataclass": Record,
    "nested": lambda x, y: {"pair": (x, y)},
}


def parts(batch):
    """Inputs and labels of a batch of any form."""
    if isinstance(batch, dict):
        return batch["pair"] if "pair" in batch else (batch["x"], batch["y"])
    return tuple(getattr(batch, field.name) for field in fields(batch)) if isinstance(batch, Record) else tuple(batch)


class Rows(Dataset):
    """A user's data: rows of four numbers with one of three labels."""

    def __init__(self, form, size=24, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.x, self.y = torch.randn(size, 4, generator=generator), torch.arange(size) % 3
        self.form = FORMS[form]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.form(self.x[index], self.y[index])


class Mine(pl.LightningModule):
    """A user's classifier with a mixture layer."""

    def __init__(self, optimizers=1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix = MoEFeedForward(4, MoEConfig(n_experts=3, top_k=2, expert_width=4), PenaltyRouter)
            self.head = nn.Linear(4, 3)
        self.automatic_optimization = optimizers == 1
        self.classes = ("a", "b", "c")

    def forward(self, x):
        return self.head(x + self.mix(x))

    def training_step(self, batch, batch_idx):
        if isinstance(batch, dict) and "mine" in batch:  # of a combined loader
            batch = batch["mine"]
        x, y = parts(batch)[:2]
        loss = F.cross_entropy(self(x).float(), y) + auxiliary_losses(self)
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = parts(batch)[:2]
        source = list(self.trainer.val_dataloaders)[dataloader_idx]
        self.log(f"val/{source}/loss", F.cross_entropy(self(x).float(), y), add_dataloader_idx=False)

    def predict_step(self, batch, batch_idx):
        return {"index": None, "probabilities": self(parts(batch)[0]).float().softmax(1)}

    def configure_optimizers(self):
        groups = [self.parameters()] if self.automatic_optimization else [self.mix.parameters(), self.head.parameters()]
        return [torch.optim.SGD(group, lr=0.1) for group in groups]


def trainer(folder, *callbacks, **options):
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "max_steps": 2}
    quiet |= {"logger": CSVLogger(folder), "log_every_n_steps": 1}
    quiet["enable_checkpointing"] = any(isinstance(callback, core.RunCheckpoint) for callback in callbacks)
    return pl.Trainer(**quiet | options, callbacks=list(callbacks), default_root_dir=folder)


def mixture(form="tuple", **options):
    sources = {"new": {"code": Rows(form)}, "replay": {"prose": Rows(form, seed=1)}}
    sizes = {"global_batch_size": 4, "micro_batch_size": 4}
    return MixtureStream(**sources, **sizes, **options)


def selection(data):
    """A module's own loader of the pool."""
    return DataLoader(data, batch_size=8)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", [*FORMS, "tensor"])
def test_a_stream_reads_samples_of_each_form(form, num_workers):
    data = Rows("tuple").x if form == "tensor" else Rows(form)
    sizes = {"global_batch_size": 4, "micro_batch_size": 2}
    mixed = MixtureStream({"a": data, "b": data}, **sizes)
    batch = next(iter(StreamLoader(mixed, num_workers, multiprocessing_context="fork" if num_workers else None)))
    indices = [mixed.sample_index(name, running) for name, running in mixed.plan(0)[:2]]
    expected = next(iter(DataLoader([data[index] for index in indices], 2))) if form != "dataclass" else None
    if form == "tensor":
        assert torch.equal(batch, expected)
    else:
        x, y = parts(batch)[:2]
        assert torch.equal(x, Rows("tuple").x[indices]) and torch.equal(y, Rows("tuple").y[indices])
        assert type(batch) is type(expected if form != "dataclass" else data[0])
    whole = [*StreamLoader(EvalStream(data, 5))]
    rows = torch.cat([batch if form == "tensor" else parts(batch)[0] for batch in whole])[:24]
    assert torch.equal(rows, Rows("tuple").x)


@pytest.mark.parametrize("form", ["tuple", "tensor"])
def test_an_evaluation_without_keys_sees_each_sample_once_and_each_rank_as_many_batches(form):
    data = Rows("tuple", size=9).x if form == "tensor" else Rows(form, size=9)
    shares = [[*EvalStream(data, 4, rank, 2)] for rank in range(2)]
    sizes = [[len(batch if form == "tensor" else batch[0]) for batch in share] for share in shares]
    assert sizes == [[4, 1], [4, 1]]  # the last one of rank 1 is a sample again


def test_a_sample_that_cannot_be_stacked_is_named():
    stream = ShardStream([(torch.zeros(n + 1),) for n in range(8)], "mine", global_batch_size=2, micro_batch_size=2)
    with pytest.raises(UserError, match=r"The samples of the source 'mine' cannot be stacked"):
        stream.micro_batch(0)
    with pytest.raises(UserError, match="of another form"):
        MixtureStream({"a": Rows("tuple"), "b": Rows("tuple").x}, global_batch_size=8, micro_batch_size=8).micro_batch(
            0
        )


#: Callbacks by how they are used outside; each is tried in every precision. The others are in test_foreign_callbacks.
CALLBACKS = {
    RouterBalance: lambda folder: RouterBalance(),
    Forgetting: lambda folder: Forgetting(old=["prose"], new=["code"]),
    ReplayMixing: lambda folder: ReplayMixing(np.float32(0.25)),
    ResumeStream: lambda folder: ResumeStream(),
    GradientMatching: lambda folder: GradientMatching(
        np.float32(0.25), every_n_epochs=1, pool=selection(Rows("tuple"))
    ),
    core.FiniteLoss: lambda folder: core.FiniteLoss(),
    core.GracefulStop: lambda folder: core.GracefulStop(),
    core.PresentOptimizer: lambda folder: core.PresentOptimizer(),
    core.RunCheckpoint: lambda folder: core.RunCheckpoint(dirpath=str(folder)),
    core.RunRecord: lambda folder: core.RunRecord({}, folder / "config.yaml"),
    core.UnmovedWeights: lambda folder: core.UnmovedWeights(),
    PredictionTable: lambda folder: PredictionTable(folder / "table.csv"),
}


def loaders(kind, form="tuple"):
    if kind in (ReplayMixing, ResumeStream) or form == "dataclass":
        stream = (
            mixture(form)
            if kind is ReplayMixing
            else ShardStream(Rows(form), "a", global_batch_size=4, micro_batch_size=4)
        )
        return StreamLoader(stream)
    return DataLoader(Rows(form), batch_size=4)


@pytest.mark.parametrize(
    ("precision", "optimizers"),
    [*((precision, 1) for precision in PRECISIONS), ("32-true", 2), ("bf16-true", 2)],  # one of each size is enough
)
@pytest.mark.parametrize("kind", CALLBACKS, ids=lambda kind: kind.__name__)
def test_a_callback_works_in_each_precision_and_with_several_optimizers(kind, precision, optimizers, tmp_path):
    callback = CALLBACKS[kind](tmp_path)
    validation = {name: DataLoader(Rows("tuple", 8), batch_size=4) for name in ("prose", "code")}
    with torch.random.fork_rng():
        run = trainer(tmp_path, callback, precision=precision, max_steps=2 * optimizers, num_sanity_val_steps=0)
        model = Mine(optimizers)
        run.fit(model, loaders(kind), validation)
        logged = {key: float(value) for key, value in run.callback_metrics.items()}
        assert run.global_step == 2 * optimizers
        run.predict(model, DataLoader(Rows("tuple", 8), batch_size=4))
    if kind is ReplayMixing:
        assert logged["train/code/samples"] == 6
    if kind is RouterBalance:
        assert logged["train/router/mri/mean"] >= logged["train/router/mri_floor"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [ReplayMixing, ResumeStream, RouterBalance], ids=lambda kind: kind.__name__)
def test_a_callback_works_with_each_form_of_batches(kind, form, tmp_path):
    run = trainer(tmp_path, CALLBACKS[kind](tmp_path), limit_val_batches=0)
    run.fit(Mine(), loaders(kind, form))
    if kind is ReplayMixing:
        assert float(run.callback_metrics["train/replay_fraction"]) == 0.25


def test_a_callback_works_beside_a_combined_loader(tmp_path):
    both = CombinedLoader({"mine": DataLoader(Rows("tuple"), batch_size=4), "other": DataLoader(Rows("dict"), 4)})
    names = [kind for kind in CALLBACKS if kind not in (ReplayMixing, GradientMatching, PredictionTable, Forgetting)]
    run = trainer(tmp_path, *(CALLBACKS[kind](tmp_path) for kind in names), limit_val_batches=0)
    run.fit(Mine(), both)
    for kind, sentence in ((ReplayMixing, "ReplayMixing needs"), (GradientMatching, "GradientMatching keeps")):
        with pytest.raises(UserError, match=sentence):
            trainer(tmp_path, CALLBACKS[kind](tmp_path), limit_val_batches=0).fit(Mine(), both)


def test_weights_are_numbers_of_any_library():
    rows = Rows("tuple")
    sizes = {"global_batch_size": np.int64(4), "micro_batch_size": torch.tensor(4)}
    for number in (float, np.float32, np.float64, torch.tensor, np.int64):
        weights = {"a": number(1), "b": number(3)}
        stream = MixtureStream({"a": rows, "b": rows}, weights, **sizes)
        assert stream.quotas(1) == {"a": 1, "b": 3}


def test_the_accumulation_that_is_needed_is_said(tmp_path):
    stream = ShardStream(Rows("tuple"), "a", global_batch_size=8, micro_batch_size=4)
    with pytest.raises(
        UserError, match=r"needs 2; give this number to the Trainer, or .*self.trainer.accumulate_grad_batches"
    ):
        trainer(tmp_path, ResumeStream()).fit(Mine(), StreamLoader(stream))
    trainer(tmp_path, ResumeStream(), accumulate_grad_batches=2).fit(Mine(), StreamLoader(stream))


def test_forgetting_says_what_was_logged_instead(tmp_path):
    class Other(Mine):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val_loss", 1.0)

    validation = {name: DataLoader(Rows("tuple", 8), batch_size=4) for name in ("prose", "code")}
    run = trainer(tmp_path, CALLBACKS[Forgetting](tmp_path), num_sanity_val_steps=0)
    expected = (
        r"it logged val_loss/dataloader_idx_0, val_loss/dataloader_idx_1\. Log val/prose/loss .*add_dataloader_idx"
    )
    with pytest.raises(UserError, match=expected):
        run.fit(Other(), DataLoader(Rows("tuple"), batch_size=4), validation)


def metrics():
    """Metrics by how a user would log several of them, and a batch of arguments."""
    scores, labels = torch.tensor([0.5, -1.0, 2.0, 0.1]), torch.tensor([1, 0, 1, 0])
    routed = torch.tensor([[0, 1], [1, 2], [0, 2], [1, 0]])
    drift = {"n_experts": 3, "top_k": 2}
    ids = {"ids": torch.tensor([3, 3, 1, 1]), "reference": routed, "indices": routed}
    yield DetectionScores, ["auroc", "recall/machine", "accuracy"], {}, {"scores": scores, "labels": labels}
    nll = {"nll": scores.abs(), "predicted": labels, "y": labels}
    yield ClassifierScores, ["loss", "accuracy", "recall/b"], {"classes": "ab", "hard_classes": "b"}, nll
    vocabulary = drift | {"vocab_size": 5, "min_occurrences": 1}
    yield ContinualVocabularySpecialization, ["per_occurrence", "per_id"], vocabulary, ids
    yield CoactivationOverlap, ["overlap", "chance"], drift, {"reference": routed, "indices": routed}
    yield ContinualRouterSaturation, [None], drift, {"reference": routed, "indices": routed}
    yield TokenLoss, [None], {}, {"nll": scores.abs(), "scored": labels.bool()}
    yield BitsPerByte, [None], {}, {"nll": scores.abs(), "byte_lengths": labels}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("kind", "names", "given", "batch"), [*metrics()], ids=lambda value: getattr(value, "__name__", "")
)
def test_a_metric_is_logged_in_a_collection(kind, names, given, batch, precision, tmp_path):
    class Logs(Mine):
        def __init__(self):
            super().__init__()
            chosen = {str(name): kind(**given) if name is None else kind(**given, value=name) for name in names}
            self.metrics = MetricCollection({name.replace("/", "_"): metric for name, metric in chosen.items()})

        def validation_step(self, ignored, batch_idx):
            self.metrics.update(**batch)
            self.log_dict(self.metrics)

    run = trainer(tmp_path, precision=precision, num_sanity_val_steps=0)
    run.validate(Logs(), DataLoader(Rows("tuple", 8), batch_size=4), verbose=False)
    alone = kind(**given)
    for _ in range(2):
        alone.update(**batch)
    values = alone.compute()
    for name in names:
        value = values if name is None else values[name] if isinstance(values, dict) else getattr(values, name)
        assert float(run.callback_metrics[str(name).replace("/", "_")]) == pytest.approx(float(value), rel=1e-2)
    if names != [None]:
        with pytest.raises(UserError, match="`value` is 'lost', which"):
            kind(**given, value="lost")
