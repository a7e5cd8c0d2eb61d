"""Mixture of new and replayed sources, with exact quotas per global batch."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from numbers import Rational
from typing import Any

from lit_core.data.stream import SampleSource, Stream
from lit_core.errors import UserError

SCALE = 10**18  # fractions are summed as integers, exact for up to 18 decimals, so that no sum drifts
_BLOCK = 1024


class MixtureStream(Stream):
    """Endless micro-batches from new sources and replayed ones, in exact proportions.

    `Stream` lists the steps by which a micro-batch is read. This class defines step 2, the quotas. For B samples per
    optimizer step and the replay fraction q(s) of step s:

    1. The steps before t replay R(t) = round(B (q(0) + ... + q(t - 1))) samples in total, so step t replays
       R(t + 1) - R(t). Halves are rounded up, so that no step replays more than B.
    2. The other B t - R(t) samples of the steps before t are new.
    3. Both totals are divided among their sources by weight. The first source gets its rounded share, the second its
       rounded share of the remainder, and so on. After any step, the k-th source is within k / 2 samples of its exact
       share.

    Fractions and weights are taken as exact decimals and summed without rounding.

    An epoch has as many steps as are needed to read the number of samples of all new sources.

    Args:
        new: The new sources by name.
        weights: Weights of the new sources among the new samples, in any unit; None takes their sizes.
        replay: The replayed sources by name; they need `set_replay`.
        replay_weights: Weights of the replayed sources among the replayed samples; None takes their sizes.
        global_batch_size: Samples per optimizer step over all devices.
        micro_batch_size: Samples per device and forward pass.
        rank: Rank of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes that train.
        seed: Seed of the order; None takes that of the run.

    Raises:
        UserError: If a name is both new and replayed, or a weight is missing, superfluous or not positive.
    """

    def __init__(
        self,
        new: Mapping[str, SampleSource],
        weights: Mapping[str, float] | None = None,
        replay: Mapping[str, SampleSource] | None = None,
        replay_weights: Mapping[str, float] | None = None,
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int | None = None,
    ) -> None:
        replay = replay or {}
        if not new:
            raise UserError("sources is empty; name at least one new source.")
        for name in new.keys() & replay.keys():
            raise UserError(f"source {name!r} is both new and replayed; name it once.")
        super().__init__(
            {**new, **replay},
            global_batch_size=global_batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
        )
        self.new, self.replay = tuple(new), tuple(replay)
        self._new_shares = _shares("weights", new, weights)
        self._replay_shares = _shares("replay_weights", replay, replay_weights)
        self._fraction: _Cumulative | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that are needed to read the number of samples of all new sources."""
        return -(-sum(len(self.sources[name]) for name in self.new) // self.global_batch_size)

    def set_replay(self, fraction: float | Callable[[int], float]) -> None:
        """Set the fraction of replayed samples.

        Args:
            fraction: From 0 to 1, or a function of the optimizer step that returns it. Data-loading processes need
                it too, so a function must be picklable and depend on the step only. Each process calls it t times when
                a run is resumed at step t.

        Raises:
            UserError: If there are no sources to replay.
        """
        if not self.replay:
            raise UserError("A replay fraction was given, but there are no replay sources; name some or leave it out.")
        self._fraction = _Cumulative(fraction)
        self._clear_cache()

    def quotas(self, step: int) -> dict[str, int]:
        """Return the number of samples of each source in the steps before ``step``.

        Raises:
            UserError: If a replay source has no fraction, or the fraction is not from 0 to 1.
        """
        step, replayed = operator.index(step), 0
        if self.replay:
            if self._fraction is None:
                raise UserError(
                    f"There are replay sources ({', '.join(self.replay)}) but no replay fraction; "
                    "add the callback ReplayMixing or leave the sources out."
                )
            replayed = _round(self.global_batch_size * self._fraction.before(step), SCALE)
        total = step * self.global_batch_size
        return {
            **_part(self.new, self._new_shares, total - replayed),
            **_part(self.replay, self._replay_shares, replayed),
        }


class _Cumulative:
    """Sums of a fraction over steps, as integers of unit 1 / SCALE."""

    def __init__(self, fraction: float | Callable[[int], float]) -> None:
        self._fraction = fraction
        self._constant = None if callable(fraction) else _scaled(fraction, None)
        self._marks = [0]  # the sum at the start of each block of steps; the sums of all steps would take more memory
        self._block, self._sums = 0, [0]  # the sums within one block

    def before(self, step: int) -> int:
        """Return the sum over the steps before ``step``."""
        if self._constant is not None:
            return step * self._constant
        if not 0 <= step - self._block * _BLOCK <= _BLOCK:
            self._block = min(step // _BLOCK, len(self._marks) - 1)
            self._sums = [self._marks[self._block]]
        while len(self._sums) <= step - self._block * _BLOCK:
            if len(self._sums) > _BLOCK:
                self._block, self._sums = self._block + 1, [self._sums[-1]]
                if self._block == len(self._marks):
                    self._marks.append(self._sums[0])
                continue
            self._sums.append(self._sums[-1] + self._at(self._block * _BLOCK + len(self._sums) - 1))
        return self._sums[step - self._block * _BLOCK]

    def _at(self, step: int) -> int:
        assert callable(self._fraction)
        return _scaled(self._fraction(step), step)


def _scaled(fraction: float, step: int | None) -> int:
    if not 0 <= fraction <= 1:  # NaN included
        when = "" if step is None else f" at step {step}"
        raise UserError(f"The replay fraction is {fraction}{when}, but must be from 0 to 1; correct it.")
    return _decimal(float(fraction))


@lru_cache(maxsize=4096)
def _decimal(fraction: float) -> int:
    return round(Decimal(repr(fraction)) * SCALE)


def _round(numerator: int, denominator: int) -> int:
    """Round a quotient, halves up: to even, a step could need more than B samples (0.5 to 0, but 5.5 to 6)."""
    return (2 * numerator + denominator) // (2 * denominator)


def _shares(argument: str, sources: Mapping[str, SampleSource], weights: Mapping[str, float] | None) -> list[Fraction]:
    """Return for each source its share of the remainder that the sources before it leave."""
    if weights is None:
        weights = {name: len(source) for name, source in sources.items()}
    for name in weights.keys() ^ sources.keys():
        raise UserError(f"{argument} and the sources do not have the same names: {name!r} is in one only; correct it.")
    for name, weight in weights.items():
        if not (weight > 0 and math.isfinite(weight)):
            raise UserError(f"{argument} of {name!r} is {weight}, but must be positive; leave the source out instead.")
    exact = [_exact(weights[name]) for name in sources]
    return [weight / sum(exact[i:]) for i, weight in enumerate(exact)]


def _exact(weight: Any) -> Fraction:
    """Return a weight as the decimal number that is printed for it; of Python, NumPy or torch."""
    return Fraction(weight) if isinstance(weight, Rational) else Fraction(repr(float(weight)))


def _part(names: tuple[str, ...], shares: list[Fraction], total: int) -> dict[str, int]:
    parts = {}
    for name, share in zip(names, shares, strict=True):
        parts[name] = _round(share.numerator * total, share.denominator)
        total -= parts[name]
    return parts
