"""A small program of a user, which `make check` checks with `mypy --strict`: our annotations reach it."""

from collections.abc import Iterator

import lightning
import torch

import lit_core
from lit_core.corpora import TextFolder
from lit_core.corpora.base import Document
from lit_detect import DetectorTask, TextDataModule
from lit_detect.detectors import EncoderDetector
from lit_detect.formats import EmbeddedPairs
from lit_moe import MoELanguageModel, RouterBalance, TokenDataModule
from lit_moe.nn import DecoderConfig, PenaltyRouter
from lit_valuation import ClassifierTask, GradientMatching, OwnersDataModule
from lit_valuation.nn import MLP
from lit_valuation.selectors import GradientMatchingSelector


def train(version: str = lit_core.__version__) -> float:
    model = MoELanguageModel(decoder=DecoderConfig(vocab_size=300), router=PenaltyRouter)
    data = TokenDataModule(root="own", sources={"own": 1.0}, sequence_length=64, global_batch_size=8)
    trainer = lightning.Trainer(max_steps=2, callbacks=[RouterBalance()])
    trainer.fit(model, data)
    logits: torch.Tensor = model(torch.zeros(1, 8, dtype=torch.long))
    return float(logits.mean())


def detect() -> None:
    data = TextDataModule(root="texts", sources=[EmbeddedPairs()], train=["embedded"], test=["embedded"], batch_size=4)
    task = DetectorTask(detector=EncoderDetector("path"))
    lightning.Trainer(max_epochs=1).fit(task, data)


def value() -> GradientMatchingSelector:
    data = OwnersDataModule(root="digits", batch_size=8)
    task = ClassifierTask(network=MLP, classes=data.classes, input_shape=data.input_shape)
    lightning.Trainer(callbacks=[GradientMatching(budget=0.2)]).fit(task, data)
    return GradientMatchingSelector()


def read(folder: str) -> Iterator[Document]:
    return TextFolder(folder, "own").documents()
