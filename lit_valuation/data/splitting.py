"""Splits of one party's own samples: train, val and test, class by class where there are classes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from lit_core.errors import UserError
from lit_core.screen import say
from lit_valuation.samples import Samples

#: Most classes that a note names.
_NAMED = 3


def split(samples: Samples, fractions: Mapping[str, float], seed: int) -> dict[str, Samples]:
    """Split samples at random, class by class, or all together where targets are not classes.

    Each class has its share in each split as exactly as whole samples allow, and at least one sample in ``train``.

    Args:
        samples: The samples.
        fractions: Fraction of the samples by name of the split, from 0; in sum below 1. The rest is ``train``.
        seed: Seed of the draw, 0 or more.

    Returns:
        Samples by split, ``train`` first, in the order of the samples; splits with a fraction of 0 are left out.

    Raises:
        UserError: If a split would have no sample, as when each class has one.
    """
    wanted = {name: fraction for name, fraction in fractions.items() if fraction}
    indices: dict[str, list[int]] = {name: [] for name in ("train", *wanted)}
    missing: dict[str, list[str]] = {name: [] for name in wanted}
    y, names = samples.strata().numpy(), samples.classes if samples.target == "class" else (samples.target,)
    by_class = np.split(np.argsort(y, kind="stable"), np.cumsum(np.bincount(y, minlength=len(names)))[:-1])
    divisible = 0
    for name, own in zip(names, by_class, strict=True):
        if not len(own):
            continue
        drawn = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(own).tolist()
        divisible += len(own) if len(own) > 1 else 0
        for part, fraction in wanted.items():
            share = round(fraction * divisible) - len(indices[part])  # what rounding left over goes to the next class
            n = min(max(share, 0), len(drawn) - 1)
            indices[part] += drawn[:n]
            drawn = drawn[n:]
            if not n:
                missing[part].append(name)
        indices["train"] += drawn
    _check(samples, indices, missing)
    return {part: samples.take(sorted(chosen)) for part, chosen in indices.items()}


def _check(samples: Samples, indices: Mapping[str, list[int]], missing: Mapping[str, list[str]]) -> None:
    """Refuse a split without samples, and tell which classes it does not hold."""
    n_classes, of_class = len(samples.strata().unique()), samples.target == "class"
    for part, names in missing.items():
        if not indices[part]:
            among = f"in {n_classes:,} classes, of which no class can spare" if of_class else "which cannot spare"
            check = "check that the label names a class, " if of_class else ""
            raise UserError(
                f"There are {len(samples):,} samples {among} one for {part}; add samples, {check}or set "
                f"{part}_fraction to 0."
            )
        if names:
            further = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
            say(
                f"Note: {len(names):,} of {n_classes:,} classes have too few samples to be in {part}: "
                f"{', '.join(names[:_NAMED])}{further}.",
                error=True,
            )
