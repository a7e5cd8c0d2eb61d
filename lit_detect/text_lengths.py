"""Counts the texts of an evaluation that are too short to be judged, or too long to be read at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_core.lightning.step_logging import sum_over_ranks
from lit_core.screen import say
from lit_detect.judging import Judge


class TextLengths:
    """Counts texts batch by batch, and tells the counts of all ranks once."""

    def __init__(self) -> None:
        self._counts = torch.zeros(3, dtype=torch.int64)  # all, too short, too long to be read at once
        self.are_told = False

    def add(self, judge: Judge, texts: Sequence[str], index: Tensor) -> Tensor:
        """Count the texts of a batch, but for rows that only fill it up, and return which are too short."""
        real, short = index.cpu() >= 0, ~torch.tensor(judge.long_enough(texts))
        self._counts += torch.stack([real, real & short, real & torch.tensor(judge.need_windows(texts))]).sum(1)
        return short

    def tell_test(self, trainer: Trainer, judge: Judge) -> None:
        """Say which texts a test leaves out, and which it reads in windows."""
        texts, short, long = self._all(trainer)
        if short:
            rank_zero_only(say)(
                f"{short:,} of {texts:,} texts have fewer than {judge.least_tokens} tokens and are left out; predict "
                "abstains from such texts."
            )
        if long:
            rank_zero_only(say)(
                f"{long:,} of {texts:,} texts are longer than what {judge.name} reads at once; their score is the "
                f"largest of their windows. Without a calibration, predict abstains from such texts."
            )

    def tell_validation(self, trainer: Trainer, judge: Judge) -> None:
        """Say of how many texts a training and its validations read the beginning alone."""
        texts, _, long = self._all(trainer)
        if long:
            rank_zero_only(say)(
                f"{long:,} of {texts:,} validation texts are longer than what {judge.name} reads at once: training and "
                "validation read the beginning of such texts alone; test and predict read them in windows."
            )

    def _all(self, trainer: Trainer) -> list[int]:
        counts = [0, 0, 0] if self.are_told else [int(count) for count in sum_over_ranks(trainer, self._counts)]
        self.are_told = self.are_told or counts[0] > 0
        return counts
