"""Attacks on the texts of batches, none done twice."""

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
    """Attacks that remember what they made of a text, unless they ask the detector, which changes in training.

    Args:
        attacks: The attacks.
        seed: Seed of what they draw, 0 or more.

    Attributes:
        names: Names of the attacks.

    Raises:
        UserError: If there is none, two have one name, or the seed is negative.
    """

    def __init__(self, attacks: Sequence[Attack], seed: int) -> None:
        if not attacks:
            raise UserError("`attacks` is empty, so there is nothing to do; name one or leave the callback out.")
        self.names = [attack.name for attack in attacks]
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise UserError(f"`attacks` has {twice.pop()} twice; their results share one name, so leave one out.")
        if seed < 0:
            raise UserError(f"`seed` is {seed}, but must be 0 or more.")
        self.attacks, self.seed = list(attacks), seed
        self._known: dict[tuple[int, bytes], Attacked] = {}

    def attack(self, number: int, texts: Sequence[str]) -> list[Attacked]:
        """Return what the attack of a number makes of texts."""
        keys = [(number, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        made = dict(zip(missing, self.attacks[number].attack_many(list(missing.values()), self.seed), strict=True))
        found = [made.get(key) or self._known[key] for key in keys]
        self._known |= {key: attacked for key, attacked in made.items() if not attacked.queries}
        return found


def scorer(pl_module: LightningModule) -> Callable[[Sequence[str]], Tensor]:
    """Return what scores texts in a module: its ``detector.score``, or its own ``score``.

    Raises:
        UserError: If it has neither.
    """
    for owner in (getattr(pl_module, "detector", None), pl_module):
        score: Any = getattr(owner, "score", None)
        if score is not None:
            return score
    raise UserError(
        f"{type(pl_module).__name__} cannot score texts; give it a `detector`, or a method `score` of a list of texts."
    )
