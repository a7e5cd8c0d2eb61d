"""Detectors of the detection study: built, trained or fitted once for all cells that share them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import lru_cache, partial
from inspect import isclass

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import AdamW

from lit_core.data import ResumeStream, ShardStream, StreamLoader
from lit_core.lightning.schedules import WarmupCosine
from lit_core.lm.language_model import LanguageModel
from lit_core.study.parts import Part, Shared
from lit_detect.attacks import Attack
from lit_detect.callbacks import AdversarialTraining
from lit_detect.detectors import Detector, Ensemble, FeatureDetector, TrainedDetector
from lit_detect.functional.calibration import fit_platt
from lit_detect.module import DetectorTask
from lit_detect.scoring.causal import TokenMemory, remembering
from lit_detect.study.attacked import AttackOnDisk
from lit_detect.study.options import DETECTOR_GIVEN, DetectorRecipe
from lit_detect.study.texts import LabelledTexts

#: Texts and their labels.
Samples = tuple[tuple[str, int], ...]
#: Language models that only score texts. A trained detector changes the weights of its own, so it never takes one.
language_models: Shared[LanguageModel] = Shared(LanguageModel)
_memory: TokenMemory = {}


@lru_cache(maxsize=8)
def fitted(
    described: Part[Detector],
    samples: Samples,
    recipe: DetectorRecipe,
    seed: int,
    adversarial: Part[AdversarialTraining] | None,
) -> DetectorTask:
    """Return a task whose detector is trained, fitted or calibrated.

    Args:
        described: The detector.
        samples: Training texts and their labels.
        recipe: How a trained detector is trained.
        seed: Seed of the detector and of the order of the texts.
        adversarial: Training with attacks; None for none.
    """
    detector, texts = _built(described, samples, recipe, seed), LabelledTexts(samples)
    labels = torch.tensor(texts.labels)
    if isinstance(detector, FeatureDetector):
        detector.fit_features(values_of(detector, texts.texts), labels)
        return DetectorTask(detector).eval()
    if not isinstance(detector, TrainedDetector):
        task = DetectorTask(detector)
        task.set_platt(fit_platt(values_of(detector, texts.texts)[:, 0], labels))
        return task.eval()
    steps = recipe.epochs * -(-len(texts) // recipe.batch_size)
    optimizer = partial(AdamW, lr=recipe.learning_rate, weight_decay=1e-2)
    task = DetectorTask(detector, optimizer, partial(WarmupCosine, total_steps=steps, warmup=0.1))
    batch = {"global_batch_size": recipe.batch_size, "micro_batch_size": recipe.batch_size}
    stream = ShardStream(texts, "train", **batch, seed=seed)
    stream.tells_epochs = False
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # a study trains many
    warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
    callbacks = [] if adversarial is None else [_adversarial_training(adversarial)]
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        precision=recipe.precision,
        callbacks=[ResumeStream(), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )
    trainer.fit(task, StreamLoader(stream))
    return task.eval()


def values_of(detector: Detector, texts: Sequence[str]) -> Tensor:
    """Return features, or scores as one column, ``(n, f)``."""
    with remembering(_memory):
        return detector.features(texts) if isinstance(detector, FeatureDetector) else detector.score(texts)[:, None]


def scores_of_texts(detector: Detector, texts: Sequence[str]) -> Tensor:
    """Return the detector's scores, ``(n,)``."""
    if isinstance(detector, TrainedDetector):
        return detector.score(texts)
    values = values_of(detector, texts)
    return detector.score_features(values) if isinstance(detector, FeatureDetector) else values[:, 0]


def _built(described: Part[Detector], samples: Samples, recipe: DetectorRecipe, seed: int) -> Detector:
    """Return a detector as it is before it is fitted; the members of an ensemble that are trained are trained here."""
    if described.component is not Ensemble:
        return described.build(None if _is_trained(described) else language_models, seed=seed)
    members = described.members("members", Detector, DETECTOR_GIVEN)
    return Ensemble(
        [
            fitted(member, samples, recipe, seed, None).detector
            if _is_trained(member)
            else member.build(language_models, seed=seed)
            for member in members
        ]
    )


def _is_trained(described: Part[Detector]) -> bool:
    return isclass(described.component) and issubclass(described.component, TrainedDetector)


def _adversarial_training(described: Part[AdversarialTraining]) -> AdversarialTraining:
    attacks: list[Attack] = [AttackOnDisk(attack, language_models) for attack in described.members("attacks", Attack)]
    return AdversarialTraining(**described.arguments | {"attacks": attacks})
