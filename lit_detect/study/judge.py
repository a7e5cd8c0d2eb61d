"""A fitted detector of the detection study as its cells use it: to score texts, and to be attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lit_core.screen import say
from lit_core.study.parts import Part
from lit_detect.attacks import Attack, Attacked
from lit_detect.callbacks import AdversarialTraining
from lit_detect.detectors import Detector
from lit_detect.language.normalize import normalize_text
from lit_detect.module import DetectorTask
from lit_detect.study.attacked import AttackOnDisk
from lit_detect.study.options import DetectorRecipe
from lit_detect.study.training import Samples, fitted, language_models, scores_of_texts


class Judge:
    """Scores the beginning of each text once, as much as the detector reads, and stores attacks that query it.

    Args:
        task: The detector with its calibration.
        change: What is done to each text before it is scored; None for nothing.
        precision: Number format of scoring, as Lightning names it.
    """

    def __init__(self, task: DetectorTask, change: Callable[[str], str] | None, precision: str) -> None:
        self.task, self.change, self.precision = task, change, precision
        self.threshold = float(task.threshold)
        self.misled: dict[tuple[Part[Attack], str], Attacked] = {}
        self._known: dict[str, float] = {}
        self._is_told = False

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Return the scores of texts, float64 of shape ``(n,)``."""
        asked = [text if self.change is None else self.change(text) for text in texts]
        new = [text for text in dict.fromkeys(asked) if text not in self._known]
        with self.autocast():
            for start in range(0, len(new), 64):
                part = new[start : start + 64]
                self._known |= dict(zip(part, scores_of_texts(self.task.detector, part).tolist(), strict=True))
        return torch.tensor([self._known[text] for text in asked], dtype=torch.float64)

    def tell_read_in_part(self) -> None:
        """Say once of how many texts the beginning alone was scored, if of any."""
        part = 0 if self._is_told else sum(share > 1 for share in self.task.detector.fill(list(self._known)))
        if part:
            say(f"{self.task.detector.name} has read the beginning alone of {part:,} of {len(self._known):,} texts.")
            self._is_told = True

    def autocast(self) -> torch.autocast:
        """Return the context in which a trained detector scores as it was trained."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16-mixed")


class _Beginnings(Detector):
    """A detector that reads no windows, so that an attack asks for the scores that a study measures."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.name, self.max_tokens = detector, detector.name, None

    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the score of the beginning of each text; see `Detector.score`."""
        return self.detector.score(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text."""
        return self.detector.count_tokens(texts)


@lru_cache(maxsize=8)  # the other grids of a seed use the same detector
def judge_of(
    described: Part[Detector],
    samples: Samples,
    recipe: DetectorRecipe,
    seed: int,
    adversarial: Part[AdversarialTraining] | None,
    normalized: bool,
) -> Judge:
    """Return a fitted detector that scores texts.

    Args:
        described: The detector.
        samples: Training texts and their labels.
        recipe: How a trained detector is trained.
        seed: Seed of the detector and of the order of the texts.
        adversarial: Training with attacks; None for none.
        normalized: Whether the Unicode of all texts is normalised.
    """
    change = normalize_text if normalized else None
    if change is not None:
        samples = tuple((change(text), label) for text, label in samples)
    return Judge(fitted(described, samples, recipe, seed, adversarial), change, recipe.precision)


def attack_all(described: Part[Attack], texts: Sequence[str], judge: Judge) -> list[Attacked]:
    """Return what an attack makes of texts; one that queries a detector queries the judge's."""
    if not described.accepts("detector"):
        return AttackOnDisk(described, language_models).attack_many(texts, 0)
    if new := [text for text in texts if (described, text) not in judge.misled]:
        own = {"detector": _Beginnings(judge.task.detector), "threshold": judge.threshold}
        attack = described.build(language_models, **own)
        with judge.autocast():
            judge.misled |= {(described, text): attack(text, 0) for text in new}
    return [judge.misled[described, text] for text in texts]
