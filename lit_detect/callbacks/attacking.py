"""Cached attacks on the texts of batches, and the scoring function of a module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.attacks import Attack
from lit_detect.attacks.base import Attacked


class CachedAttacks:
    """Attacks whose results are cached, except those that query the detector, which changes in training.

    Args:
        attacks: The attacks.
        seed: Seed of the attacks, 0 or more.

    Attributes:
        names: Names of the attacks.

    Raises:
        UserError: If there are no attacks, or two have the same name.
    """

    def __init__(self, attacks: Sequence[Attack], seed: int) -> None:
        if not attacks:
            raise UserError("`attacks` is empty, but must have one or more. Name an attack, or remove the callback.")
        self.names = [attack.name for attack in attacks]
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise UserError(f"`attacks` has {twice.pop()} twice, but each must have its own name. Remove one of them.")
        self.attacks, self.seed = list(attacks), seed
        self._cache: dict[tuple[int, bytes], Attacked] = {}

    def attack(self, index: int, texts: Sequence[str]) -> list[Attacked]:
        """Return the results of an attack on texts.

        Args:
            index: Index of the attack.
            texts: The texts.
        """
        keys = [(index, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._cache}
        new = dict(zip(missing, self.attacks[index].attack_many(list(missing.values()), self.seed), strict=True))
        results = [new.get(key) or self._cache[key] for key in keys]
        self._cache |= {key: attacked for key, attacked in new.items() if not attacked.queries}
        return results


def scorer(pl_module: LightningModule) -> Callable[[Sequence[str]], Tensor]:
    """Return the function of a module that scores texts: its ``detector.score``, or its own ``score``.

    Raises:
        UserError: If the module has neither.
    """
    for owner in (getattr(pl_module, "detector", None), pl_module):
        score: Any = getattr(owner, "score", None)
        if score is not None:
            return score
    raise UserError(
        f"{type(pl_module).__name__} cannot score texts. Give it a `detector`, or a method `score` of a list of texts."
    )
