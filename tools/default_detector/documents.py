"""Whole documents, longer than a window, cut to lengths as `lit-detect calibrate` cuts them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from default_detector.measure import MAX_TOKENS, measure
from default_detector.model import Linear, features
from default_detector.texts import Text
from lit_core.lm.pretrained import smollm2
from lit_detect.detectors import TokenStatistics
from lit_detect.human_scores import Group, Length
from lit_detect.prefixes import cut_to_lengths, length_grid
from lit_detect.windows import cut

#: Lengths in tokens between which documents are cut.
SHORTEST, LONGEST = 400, 1600


class Documents:
    """The windows of documents and of their beginnings, by length.

    Args:
        rows: The documents, each of `LONGEST` tokens or more.
        folder: Folder of what was measured; see `measure`.
    """

    def __init__(self, rows: list[Text], folder: Path) -> None:
        detector = TokenStatistics(smollm2(), MAX_TOKENS)
        texts = [row.text for row in rows]
        tokens = detector.count_tokens(texts)
        lengths = length_grid(SHORTEST, LONGEST)
        beginnings = cut_to_lengths(texts, tokens, lengths, detector.count_tokens)
        self.longest = max(tokens)
        by_length = {length: [own[length] for own in beginnings if length in own] for length in lengths}
        by_length[self.longest] = texts
        windows = {
            length: [[text[start:end] for start, end in cut(detector, text)] for text in some]
            for length, some in by_length.items()
        }
        quantities = measure([part for some in windows.values() for parts in some for part in parts], folder)
        #: Features of the windows of each document, by length.
        self.values: dict[int, list[Tensor]] = {
            length: [torch.stack([features(quantities[part]) for part in parts]) for parts in some]
            for length, some in windows.items()
        }

    def scores(self, model: Linear, tokens: int) -> list[float]:
        """Return the largest window score of each document of a length, rising."""
        return sorted(float(model(values).max()) for values in self.values[tokens])

    def group(self, model: Linear) -> Group:
        """Return what the documents score, by length."""
        *cuts, whole = sorted(self.values)
        lengths = tuple(Length(tokens, tuple(self.scores(model, tokens))) for tokens in cuts)
        return Group(lengths, Length(whole, tuple(self.scores(model, whole))))
