"""Which samples of an added set are trained on: those that no evaluation set holds, nor nearly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.screen import rank_zero_warn
from lit_valuation.data.copies import CopyFinder
from lit_valuation.data.labelled_sets import LabelledSet


def kept_rows(extra: LabelledSet, evaluation: Sequence[LabelledSet], finder: CopyFinder) -> Tensor:
    """Return the indices of a set's samples of which no evaluation set holds a copy, int64, and warn of the others.

    A model that was trained on samples of its validation or test set would have better scores there than it deserves.

    Args:
        extra: The set that is added to the training set, such as an owner's answer.
        evaluation: The sets that score the model.
        finder: Finds equal and nearly equal samples.

    Raises:
        UserError: If no sample is left.
    """
    added = finder.prepare(extra)
    is_equal, is_copy = torch.zeros(2, len(added), dtype=torch.bool)
    for known in map(finder.prepare, evaluation):
        is_equal |= finder.exact(added, known)
        is_copy |= finder.all(added, known)
    equal, near = int(is_equal.sum()), int((is_copy & ~is_equal).sum())
    lower = "; lower data.near if nearly equal ones are different samples" if near else ""
    if is_copy.all():
        raise UserError(
            f"`extra` names {extra.folder}, but your val and test hold all {len(added)} of its samples ({equal} equal, "
            f"{near} nearly); leave it out{lower}."
        )
    if equal + near:
        rank_zero_warn(
            f"{equal + near} of the {len(added)} samples of {extra.folder} are in your val or test ({equal} equal, "
            f"{near} nearly). They are left out of the training, so that scores there stay true{lower}."
        )
    return (~is_copy).nonzero().squeeze(1)
