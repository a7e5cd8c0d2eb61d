"""Cached attacks on the texts of batches, what such batches hold, and the scoring function of a module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.attacks import Attack
from lit_detect.attacks.base import Attacked
from lit_detect.module import DetectorTask


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


def columns(batch: Any, callback: str) -> tuple[list[str], list[int], list[int]]:
    """Return the texts of a batch, their labels and their indices.

    Args:
        batch: A batch of any form.
        callback: Name of the callback that reads it, for the message.

    Raises:
        UserError: If it is not a mapping with ``text``, ``y`` and ``index``.
    """
    if not isinstance(batch, Mapping) or not {"text", "y", "index"} <= batch.keys():
        kind = f"a mapping with {', '.join(batch)}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise UserError(
            f"{callback} needs batches that are mappings with text, y and index, but got {kind}. Change the collation "
            "of the loader."
        )
    return list(batch["text"]), torch.as_tensor(batch["y"]).tolist(), torch.as_tensor(batch["index"]).tolist()


def scorer(pl_module: LightningModule) -> Callable[[Sequence[str]], Tensor]:
    """Return a function that scores texts by a module's ``detector.score``, or by its own ``score``.

    A `DetectorTask` scores long texts in windows, as it judges them.

    It returns a score per text, in float64 on the CPU.

    Raises:
        UserError: If the module has neither; the function, if it does not get a score per text.
    """
    owners: tuple[Any, ...] = getattr(pl_module, "detector", None), pl_module
    score = next((owner.score for owner in owners if hasattr(owner, "score")), None)
    if isinstance(pl_module, DetectorTask):
        score = pl_module.judge().scores
    name = type(pl_module).__name__
    if score is None:
        raise UserError(f"{name} cannot score texts. Give it a `detector`, or a method `score` of a list of texts.")

    def scored(texts: Sequence[str]) -> Tensor:
        scores = torch.as_tensor(score(texts)).cpu().double()
        if scores.shape != (len(texts),):
            raise UserError(
                f"`score` of {name} returned numbers of shape {tuple(scores.shape)} for {len(texts)} texts. Return one "
                "number per text."
            )
        return scores

    return scored
