"""Which samples of an added set are trained on: those that no evaluation set holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.screen import rank_zero_warn
from lit_valuation.data.labelled_sets import LabelledSet

_AT_ONCE = 1024


def kept_rows(extra: LabelledSet, evaluation: Sequence[LabelledSet]) -> Tensor:
    """Return the indices of a set's samples whose inputs no evaluation set holds, int64, and warn of the others.

    A model that was trained on samples of its validation or test set would have better scores there than it deserves.

    Args:
        extra: The set that is added to the training set, such as an owner's answer.
        evaluation: The sets that score the model.

    Raises:
        UserError: If no sample is left.
    """
    own = list(_contents(extra))
    missing = set(own)
    for each in evaluation:
        missing.difference_update(_contents(each))
    kept = [index for index, content in enumerate(own) if content in missing]
    if not kept:
        raise UserError(
            f"`extra` names {extra.folder}, but your val and test hold all {len(own)} of its samples; leave it out."
        )
    if len(kept) < len(own):
        rank_zero_warn(
            f"{len(own) - len(kept)} of the {len(own)} samples of {extra.folder} equal samples of your val or test. "
            "They are left out of the training, so that scores there stay true."
        )
    return torch.tensor(kept)


def _contents(samples: LabelledSet) -> Iterator[bytes]:
    """Yield the values of each input."""
    for rows in torch.arange(len(samples)).split(_AT_ONCE):
        for x in samples.load(rows).inputs():
            yield x.numpy().tobytes()
