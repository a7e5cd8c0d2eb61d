"""Division of a source's samples among a trainer and owners."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_above, check_at_least, check_shares, did_you_mean
from lit_core.seeds import part_seed
from lit_valuation.data.planting import HARD
from lit_valuation.samples import Samples

#: Useful shares of the six default owners.
SHARES = (0.5, 0.3, 0.2, 0.1, 0.03, 0.0)

#: Index of a class and name of a group.
Kind = tuple[int, str]
#: Number of samples of each kind in the source, and the indices of those that no party has yet.
Sizes = Mapping[Kind, int]
Cells = dict[Kind, list[int]]


@dataclass(frozen=True)
class Owner:
    """Size and composition of one owner's data.

    Args:
        useful: Share of hard samples, from 0 to 1: within each class that has both hard and other samples, or among all
            samples of the owner if whole classes are hard.
        samples: Number of samples; None takes the division's `owner_samples`.
        classes: Names of the classes that the owner has; None takes all.
        groups: Names of the groups that the owner has; None takes all.
    """

    useful: float = 0.0
    samples: int | None = None
    classes: list[str] | None = None
    groups: list[str] | None = None


def _six_owners() -> dict[str, Owner]:
    return {f"owner_{number}": Owner(share) for number, share in enumerate(SHARES, 1)}


@dataclass(frozen=True)
class Division:
    """Number and kind of the samples that each party gets. No sample goes to two parties.

    Samples are drawn without replacement; classes in proportion to their size in the source.

    Args:
        train: Samples that the trainer trains on.
        val: Samples that the trainer validates on; the hard cases are among them.
        test: Samples that the trainer tests on.
        train_useful: Share of hard samples in the trainer's training set, from 0 to 1, defined as for an owner.
        evaluation_useful: Share of hard samples in the trainer's validation and test sets, from 0 to 1.
        owners: The owners by name; by default six, whose useful shares are 0.5, 0.3, 0.2, 0.1, 0.03 and 0.
        owner_samples: Samples of each owner that does not set `samples`.
        owner_val_fraction: Share of each owner's samples that the owner validates on, above 0 and below 1.
        hard: Names of the groups that are hard; by default the group that a planting creates.
        dirichlet: Concentration of a Dirichlet distribution that skews each owner's classes, above 0; smaller values
            skew more. None does not skew.

    Raises:
        UserError: If a number is out of its range, or an owner's name is not a folder's name.
    """

    train: int = 2000
    val: int = 1000
    test: int = 1000
    train_useful: float = 0.0
    evaluation_useful: float = 0.5
    owners: dict[str, Owner] = field(default_factory=_six_owners)
    owner_samples: int = 1000
    owner_val_fraction: float = 0.1
    hard: list[str] = field(default_factory=lambda: [HARD])
    dirichlet: float | None = None

    def __post_init__(self) -> None:
        counts = {"train": self.train, "val": self.val, "test": self.test, "owner_samples": self.owner_samples}
        counts |= {f"owners.{name}.samples": o.samples for name, o in self.owners.items() if o.samples is not None}
        check_at_least(2, **counts)
        shares = {"train_useful": self.train_useful, "evaluation_useful": self.evaluation_useful}
        shares |= {f"owners.{name}.useful": owner.useful for name, owner in self.owners.items()}
        check_shares(**shares)
        if not 0 < self.owner_val_fraction < 1:
            raise UserError(
                f"owner_val_fraction of the division is {self.owner_val_fraction}, but must be above 0 and below 1."
            )
        check_above(0, dirichlet=self.dirichlet)
        if not self.owners:
            raise UserError("owners of the division is empty; name at least one.")
        for name in self.owners:
            if not name or PurePath(name).name != name or name.startswith("."):
                raise UserError(f"An owner is named {name!r}, but the name becomes a folder; use letters, digits, _.")

    def divide(self, samples: Samples, seed: int | None = None) -> dict[tuple[str, str], Samples]:
        """Divide samples among the parties.

        Args:
            samples: The samples, without duplicates.
            seed: Seed of the draw, 0 or more; None takes that of the run.

        Returns:
            Samples by party, ``trainer`` or ``owners/<name>``, and split, ``train``, ``val`` or ``test``.

        Raises:
            UserError: If there are too few samples of a kind.
        """
        seed = part_seed(seed)
        cells = _shuffled_cells(samples, seed)
        sizes = {kind: len(of_kind) for kind, of_kind in cells.items()}
        names: dict[str, tuple[str, ...]] = {"trainer": ("train", "val", "test")}
        indices: dict[tuple[str, str], list[int]] = {}
        # Draw test and val first: they are needed to find and to score hard cases.
        for split in ("test", "val", "train"):
            share = self.train_useful if split == "train" else self.evaluation_useful
            indices["trainer", split] = self._draw(
                f"The trainer's {split}", Owner(share, getattr(self, split)), samples, sizes, cells, seed
            )
        for name, owner in self.owners.items():
            drawn = self._draw(name, owner, samples, sizes, cells, seed, self.dirichlet)
            n_val = min(max(1, round(self.owner_val_fraction * len(drawn))), len(drawn) - 1)
            indices[f"owners/{name}", "train"], indices[f"owners/{name}", "val"] = drawn[n_val:], drawn[:n_val]
            names[f"owners/{name}"] = ("train", "val")
        divided = {(party, split): samples.take(indices[party, split]) for party in names for split in names[party]}
        check_disjoint(divided)
        return divided

    def _draw(
        self,
        who: str,
        owner: Owner,
        samples: Samples,
        sizes: Sizes,
        cells: Cells,
        seed: int,
        dirichlet: float | None = None,
    ) -> list[int]:
        """Remove a party's samples from the cells and return their indices in a random order."""
        random = _random(seed, who)
        sizes = _allowed(who, owner, samples, sizes)
        n = owner.samples or self.owner_samples
        weights: dict[int, float] = {}
        for (c, _), size in sizes.items():
            weights[c] = weights.get(c, 0) + size
        if dirichlet is not None:
            skew = random.dirichlet([dirichlet] * len(weights))
            weights = {c: weight * float(s) for (c, weight), s in zip(weights.items(), skew, strict=True)}
        wanted = self._counts(who, n, owner.useful, sizes, weights)
        taken: list[int] = []
        for kind, count in wanted.items():
            if count > len(cells[kind]):
                group = f" in the group {kind[1]}" if kind[1] else ""
                raise UserError(
                    f"{who} needs {count} samples of the class {samples.classes[kind[0]]}{group}, but "
                    f"{len(cells[kind])} are left. The source has {len(samples):,} samples: lower `train`, `val`, "
                    "`test` or the owners' numbers of samples, or change a share."
                )
            taken += cells[kind][:count]
            del cells[kind][:count]
        return random.permutation(np.array(taken, dtype=np.int64)).tolist()

    def _counts(self, who: str, n: int, useful: float, sizes: Sizes, weights: Mapping[int, float]) -> dict[Kind, int]:
        """Return the number of samples of each kind, n in total with the useful share of hard ones."""
        hard = {kind: size for kind, size in sizes.items() if kind[1] in self.hard}
        plain = {kind: size for kind, size in sizes.items() if kind[1] not in self.hard}
        if useful and not hard:
            raise UserError(
                f"{who} is to have a useful share of {useful}, but there are no samples of the hard groups. Name "
                "groups of the source in `hard`. Without hard groups, set `evaluation_useful: 0` and name owners "
                "of useful share 0, such as `owners: {alice: {}, bob: {}}`."
            )
        with_plain = {c for c, _ in plain}
        all_hard = {c: weights[c] for c, _ in hard if c not in with_plain}  # classes without any plain sample
        others = {c: weight for c, weight in weights.items() if c not in all_hard}
        n_all_hard = round(useful * n) if all_hard else 0
        per_class = apportion(n_all_hard, all_hard) | apportion(n - n_all_hard, others)
        mixed = {c: per_class[c] for c, _ in hard if c in others}
        n_hard = apportion(round(useful * sum(mixed.values())), mixed)
        counts: dict[Kind, int] = {}
        for c, count in per_class.items():
            hard_count = count if c in all_hard else n_hard.get(c, 0)
            for kinds, n_kinds in ((hard, hard_count), (plain, count - hard_count)):
                counts |= apportion(n_kinds, {kind: size for kind, size in kinds.items() if kind[0] == c})
        return counts


def apportion(n: int, weights: Mapping[Any, float]) -> dict[Any, int]:
    """Divide n among names in proportion to their weights by the largest-remainder method; ties go to the first."""
    total = sum(weights.values())
    if not n or not total:
        return dict.fromkeys(weights, 0)
    exact = {name: n * weight / total for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: n - sum(counts.values())]:
        counts[name] += 1
    return counts


def remove_duplicates(samples: Samples) -> Samples:
    """Return the samples without those whose input is an exact copy of an earlier one, whatever its label.

    Otherwise a model could train on a copy of a test sample, or an honest owner could seem to send the queries back.
    """
    first = _first_copies(samples)
    is_first = first == torch.arange(len(samples))
    return samples if bool(is_first.all()) else samples.take(is_first.nonzero().squeeze(1))


def n_contradictions(samples: Samples) -> int:
    """Return how many samples have the input of an earlier one, and another target."""
    differs = samples.y != samples.y[_first_copies(samples)]
    return int(differs.reshape(len(samples), -1).any(1).sum()) if len(samples) else 0


def _first_copies(samples: Samples) -> Tensor:
    """Return the index of the first sample that has each sample's input, int64 of shape ``(n,)``."""
    flat = np.ascontiguousarray(samples.x.flatten(1).numpy())
    rows = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
    _, first, of_row = np.unique(rows, return_index=True, return_inverse=True)
    return torch.from_numpy(first[of_row.ravel()])


def check_disjoint(divided: Mapping[tuple[str, str], Samples]) -> None:
    """Assert that no key is in two sets."""
    keys = Counter(key for samples in divided.values() for key in samples.keys)
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        raise AssertionError(f"Sample {twice[0]} is in two sets.")


def _shuffled_cells(samples: Samples, seed: int) -> Cells:
    """Return the indices of the samples by class and group, each in a random order."""
    cells: Cells = {}
    groups = samples.groups or ("",) * len(samples)
    for index, kind in enumerate(zip(samples.y.tolist(), groups, strict=True)):
        cells.setdefault(kind, []).append(index)
    return {kind: _random(seed, f"{kind}").permutation(cells[kind]).tolist() for kind in sorted(cells)}


def _allowed(who: str, owner: Owner, samples: Samples, sizes: Sizes) -> dict[Kind, int]:
    """Return the sizes of the kinds that a party may have."""
    known: Sequence[tuple[str, Iterable[str] | None, Iterable[str]]] = (
        ("classes", owner.classes, samples.classes),
        ("groups", owner.groups, sorted({group for _, group in sizes} - {""})),
    )
    for argument, asked, available in known:
        for name in asked or ():
            if name not in available:
                hint = did_you_mean(name, available) or f" There are {', '.join(available) or 'none'}."
                raise UserError(f"{argument} of {who} names {name}, which the source does not have.{hint}")
    return {
        (c, group): size
        for (c, group), size in sizes.items()
        if (owner.classes is None or samples.classes[c] in owner.classes)
        and (owner.groups is None or group in owner.groups)
    }


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
