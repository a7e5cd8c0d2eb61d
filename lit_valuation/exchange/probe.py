"""Probes: a linear head on a public encoder's features, and sums of the hard cases' gradients at it, in place of them.

The owner of a probe's answer trains nothing. A sum has several hard cases, so no case is sent by itself; how much a sum
tells about them is said in docs/exchange.md.
"""

from __future__ import annotations

import io
import math
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_above, check_at_least, require
from lit_core.files.arrays import map_npy
from lit_valuation.data.hard_cases import HardCases
from lit_valuation.encoders import Encoder, embed
from lit_valuation.exchange.folder import Received, blamed_on
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Attachment, Probe, Query, TargetSum
from lit_valuation.functional.gaussian import gaussian_deviation
from lit_valuation.functional.gradients import LastLayerGradients, last_layer_gradients
from lit_valuation.functional.linear_head import fit_linear_head, principal_groups
from lit_valuation.samples import Samples
from lit_valuation.selectors import Pool

#: Its name in the folder of a query.
PROBE = "probe.npy"


@dataclass(frozen=True)
class ProbeOptions:
    """How hard cases become a probe.

    Args:
        clusters: Most sums of a class, each over similar hard cases, 1 or more.
        fewest: Fewest hard cases of a sum, 2 or more; classes with fewer are left out.
        clip: Largest norm of a hard case's gradient, above 0; longer ones are scaled to it. None scales none.
        epsilon: ε of the noise, above 0: replacing a hard case by any other of its class changes the probability of
            no set of probes by more than a factor e^ε, and δ. None adds no noise.
        delta: δ of the noise, above 0 and below 1.

    Raises:
        UserError: If a number is out of range, or noise is asked for without ``clip`` or with several sums of a class,
            whose division would depend on each hard case.
    """

    clusters: int = 1
    fewest: int = 4
    clip: float | None = None
    epsilon: float | None = None
    delta: float = 1e-5

    def __post_init__(self) -> None:
        check_at_least(1, clusters=self.clusters)
        check_at_least(2, fewest=self.fewest)
        check_above(0, clip=self.clip, epsilon=self.epsilon, delta=self.delta)
        require(self.delta < 1, "delta", self.delta, "above 0 and below 1")
        if self.epsilon is not None and self.clip is None:
            raise UserError(f"epsilon is {self.epsilon}, but noise can hide gradients of bounded norm only; give clip.")
        if self.epsilon is not None and self.clusters > 1:
            raise UserError(
                f"epsilon is {self.epsilon} and clusters {self.clusters}, but which cluster a hard case is in depends "
                "on all of them, which the noise does not hide; set clusters to 1."
            )

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise; 0 for none."""
        if self.epsilon is None or self.clip is None:
            return 0.0
        return gaussian_deviation(self.epsilon, self.delta, 2 * self.clip)


@dataclass(frozen=True)
class MadeProbe:
    """A probe that is to be sent.

    Args:
        content: Bytes of its file.
        manifest: Its part of the manifest.
        cases: The hard cases that it sums, and the held-out ones of the same classes.
        left_out: Number of hard cases by class that has too few.
        norms: Norm of each sum.
    """

    content: bytes
    manifest: Probe
    cases: HardCases
    left_out: dict[str, int]
    norms: tuple[float, ...]

    @property
    def notes(self) -> dict[str, Any]:
        """What the ledger records of it."""
        probe = self.manifest
        privacy = {"epsilon": probe.epsilon, "delta": probe.delta} if probe.epsilon is not None else {}
        return {"sums": len(probe.targets), "fewest": probe.fewest, "clip": probe.clip, **privacy}


def make_probe(train: Samples, cases: HardCases, encoder: Encoder, options: ProbeOptions) -> MadeProbe:
    """Fit a head on the trainer's training set and sum the gradients of its hard cases at it.

    Args:
        train: The training set, with the classes of the hard cases.
        cases: The hard cases.
        encoder: The public encoder.
        options: How they become a probe.

    Raises:
        UserError: If no class has as many hard cases as a sum needs.
    """
    weight, bias = fit_linear_head(embed(encoder, train.x), train.y, len(train.classes))
    queries, classes = cases.queries, cases.queries.classes
    counts = queries.counts()
    left_out = {name: count for name, count in counts.items() if count < options.fewest}
    kept = [name for name in counts if name not in left_out]
    if not kept:
        raise UserError(
            f"fewest is {options.fewest}, but no class has as many hard cases to send (at most "
            f"{max(counts.values())}); raise per_class, or use a larger validation split."
        )
    queries, held_out = queries.of_classes(kept), cases.held_out.of_classes(kept)
    gradients = _clipped(head_gradients(weight, bias, embed(encoder, queries.x), queries.y), options.clip)
    generator = torch.Generator().manual_seed(secrets.randbits(63))  # whoever could guess it could subtract the noise
    sums, targets, norms = [], [], []
    for c in queries.y.unique().tolist():
        rows = (queries.y == c).nonzero().squeeze(1)
        of_class = gradients.take(rows)
        groups = principal_groups(of_class.gram(of_class), options.clusters, options.fewest)
        for group in groups.unique().tolist():
            part = of_class.take((groups == group).nonzero().squeeze(1))
            total = part.sum().double()
            norms.append(float(total.norm()))
            noise = torch.randn(total.shape, dtype=torch.float64, generator=generator) * options.deviation
            sums.append((total + noise).float())
            targets.append(TargetSum(classes[c], len(part)))
    buffer = io.BytesIO()
    np.save(buffer, torch.stack([torch.cat([weight, bias[:, None]], dim=1), *sums]).numpy())
    content = buffer.getvalue()
    delta = None if options.epsilon is None else options.delta
    about = options.fewest, options.clip, options.epsilon, delta
    manifest = Probe(Attachment.of(PROBE, content), classes, tuple(targets), *about)
    return MadeProbe(content, manifest, HardCases(queries, held_out), left_out, tuple(norms))


@dataclass(frozen=True)
class ReceivedProbe:
    """A probe that passed all checks.

    Args:
        weight: Weight of the head, ``(C, d)``.
        bias: Bias of the head, ``(C,)``.
        sums: Sums of gradients by weight and bias, ``(targets, C, d + 1)``.
        labels: Class of each sum, as an index of the head's outputs, int64 of shape ``(targets,)``.
        counts: Number of hard cases of each sum.
    """

    weight: Tensor
    bias: Tensor
    sums: Tensor
    labels: Tensor
    counts: tuple[int, ...]

    def pools(self, features: Tensor, y: Tensor) -> tuple[Pool, Pool]:
        """Return an owner's samples and the hard cases as a selector that matches gradients takes them.

        Each sum stands there as rows whose gradients add up to it exactly, as many as there are hard cases in
        proportion to other sums, since budgets are divided by their number.

        Args:
            features: The encoder's features of the owner's samples, ``(n, d)``.
            y: Their class indices.
        """
        n_outputs = len(self.weight)
        repeats = math.ceil(n_outputs / min(self.counts))
        delta, hidden = [], []
        for total, count in zip(self.sums, self.counts, strict=True):
            rows = count * repeats - n_outputs
            delta.append(torch.cat([torch.eye(n_outputs), torch.zeros(rows, n_outputs)]))
            hidden.append(torch.cat([total, torch.zeros(rows, total.shape[1])]))
        rows_of = torch.tensor(self.counts) * repeats
        queries = LastLayerGradients(torch.cat(delta), torch.cat(hidden), bias=False)
        own = head_gradients(self.weight, self.bias, features, y)
        sums = torch.arange(len(self.counts)).repeat_interleave(rows_of)
        return Pool(y, gradients=own), Pool(self.labels[sums], gradients=queries, sums=sums)


def load_probe(query: Received[Query]) -> ReceivedProbe:
    """Return the probe of a query.

    Raises:
        UserError: If its file is not what the manifest says, or the manifest contradicts itself.
    """
    manifest = query.manifest
    probe = manifest.probe
    assert probe is not None
    counts: Counter[str] = Counter()
    for target in probe.targets:
        counts[target.label] += target.queries
    noise = (probe.epsilon is None) == (probe.delta is None) and (probe.epsilon is None or probe.clip is not None)
    with blamed_on(query.folder):
        stack = map_npy(Path(query.folder / probe.file.file))
        rules = {
            "has a probe and a model": manifest.model is None,
            "has a probe, but names no encoder": manifest.encoder is not None,
            "names a class of the probe twice": len(set(probe.classes)) == len(probe.classes),
            "sums gradients of a class that its probe does not know": counts.keys() <= set(probe.classes),
            "sums gradients of other hard cases than it names": dict(counts) == manifest.contents.classes,
            "sums fewer hard cases than it says": all(one.queries >= max(probe.fewest, 2) for one in probe.targets),
            "names only a part of clip, epsilon and delta": noise,
            "has a probe of another type or shape than it says": stack.dtype == np.float32
            and stack.ndim == 3
            and stack.shape[:2] == (1 + len(probe.targets), len(probe.classes))
            and stack.shape[2] >= 2,
        }
        for fault, holds in rules.items():
            if not holds:
                raise UserError(f"{query.folder} {fault}; ask its sender for it again.")
        values = torch.from_numpy(np.array(stack))
        if not bool(values.isfinite().all()):
            raise UserError(
                f"{query.folder} has a probe with numbers that are not finite; ask its sender for it again."
            )
    labels = torch.tensor([probe.classes.index(one.label) for one in probe.targets])
    head = values[0]
    return ReceivedProbe(head[:, :-1], head[:, -1], values[1:], labels, tuple(one.queries for one in probe.targets))


def spent_privacy(ledger: SharingLedger) -> tuple[float, float]:
    """Return the sums of ε and δ over all probes with noise that a ledger has recorded, each counted once."""
    noisy = {entry.digest: entry.notes for entry in ledger.entries() if entry.notes.get("epsilon") is not None}
    return sum(one["epsilon"] for one in noisy.values()), sum(one["delta"] for one in noisy.values())


def head_gradients(weight: Tensor, bias: Tensor, features: Tensor, y: Tensor) -> LastLayerGradients:
    """Return the gradients of samples by weight and bias at a linear head, with the bias as a feature of 1.

    Args:
        weight: Weight of the head, ``(C, d)``.
        bias: Bias of the head, ``(C,)``.
        features: Features of the samples, ``(n, d)``.
        y: Class indices of the samples.
    """
    found = last_layer_gradients(features @ weight.T + bias, features, y)
    return LastLayerGradients(found.delta, torch.cat([features, torch.ones(len(features), 1)], dim=1), bias=False)


def _clipped(gradients: LastLayerGradients, clip: float | None) -> LastLayerGradients:
    if clip is None:
        return gradients
    factor = (clip / gradients.squared_norms().sqrt().clamp(min=1e-30)).clamp(max=1)
    return LastLayerGradients(gradients.delta * factor[:, None], gradients.hidden, gradients.bias)
