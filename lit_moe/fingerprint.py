"""`Fingerprint`: the experts that the routers of a model choose for fixed tokens, as a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_core.errors import UserError
from lit_core.files.arrays import npz_bytes, read_npz
from lit_core.files.formats import check_format, stamp
from lit_core.files.json_files import checked, parse_json
from lit_moe.nn import moe_layers
from lit_moe.probe import Probe

FORMAT = "litshift-fingerprint"
_REMEDY = "write it again with lit-moe fingerprint"


class _About(TypedDict):
    domains: list[str]
    n_experts: list[int]
    batch_size: int
    tokenizer: str
    sha256: str


@dataclass(frozen=True)
class Fingerprint:
    """The experts that a model's routers choose on a probe.

    Args:
        probe: The tokens.
        experts: Of each mixture layer the chosen experts, shape ``(sequences, length, k)``, int64.
        n_experts: Number of routed experts of each layer.
    """

    probe: Probe
    experts: tuple[Tensor, ...]
    n_experts: tuple[int, ...]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Number of experts, and of those per token, of each layer."""
        return [(count, each.shape[2]) for count, each in zip(self.n_experts, self.experts, strict=True)]

    @property
    def sha256(self) -> str:
        """Hash of all that it holds."""
        plain = json.dumps([self.probe.sha256, self.probe.tokenizer, self.probe.batch_size, self.n_experts])
        return hashlib.sha256(
            b"".join([plain.encode(), *(each.numpy().tobytes() for each in self.experts)])
        ).hexdigest()

    @classmethod
    def of(
        cls, module: LightningModule, probe: Probe, context: AbstractContextManager[Any] | None = None
    ) -> Fingerprint:
        """Take the fingerprint of a model in evaluation mode; see `Probe.route`."""
        experts = probe.route(module, torch.arange(len(probe.rows)), context)
        counts = (layer.router.n_experts for layer in moe_layers(module).values())
        return cls(probe, tuple(each.cpu() for each in experts), tuple(counts))

    def content(self) -> bytes:
        """Return the content of its file, a ``.npz``."""
        probe = self.probe
        about = {"domains": list(probe.domains), "n_experts": list(self.n_experts), "batch_size": probe.batch_size}
        about |= {"tokenizer": probe.tokenizer, "sha256": self.sha256}
        arrays = {"about": np.array(json.dumps({**stamp(FORMAT), **about}))}
        arrays |= {"rows": probe.rows.numpy().astype(np.int32), "domain": probe.domain.numpy().astype(np.int32)}
        for number, (count, each) in enumerate(zip(self.n_experts, self.experts, strict=True)):
            arrays[f"experts_{number}"] = each.numpy().astype(np.min_scalar_type(count))
        return npz_bytes(arrays)

    @classmethod
    def load(cls, path: str | Path, argument: str) -> Fingerprint:
        """Read a file of `content`; nothing in it is executed.

        Args:
            path: The file.
            argument: Name of the argument that gave the path, for messages.

        Raises:
            UserError: If there is no such file, or it is no whole fingerprint of a version that is read.
        """
        where = f"{argument} is {path}"
        if not Path(path).is_file():
            raise UserError(f"{where}, but there is no such file; correct the path, or {_REMEDY}.")
        text = "".join(_array(path, where, "about").ravel().tolist())
        content = parse_json(text, where, dict[str, Any], _REMEDY)
        check_format(FORMAT, content, path, _REMEDY)
        about = checked(_About, content, where, _REMEDY, "about")
        rows, domain = (torch.from_numpy(_array(path, where, name)) for name in ("rows", "domain"))
        named = (f"experts_{number}" for number in range(len(about["n_experts"])))
        experts = tuple(torch.from_numpy(_array(path, where, name)) for name in named)
        found = cls(
            Probe(rows, domain, tuple(about["domains"]), about["tokenizer"], about["batch_size"]),
            experts,
            tuple(about["n_experts"]),
        )
        if not found._is_whole() or found.sha256 != about["sha256"]:
            raise UserError(
                f"{where}, whose tokens, domains and experts do not fit each other, as it was damaged; {_REMEDY}."
            )
        return found

    def _is_whole(self) -> bool:
        probe, count, length = self.probe, len(self.probe.rows), self.probe.rows.shape[-1] - 1
        return (
            probe.rows.ndim == 2
            and min(count, length, probe.batch_size, len(self.experts), len(probe.domains)) > 0
            and probe.domain.shape == (count,)
            and _within(probe.rows, -1, 2**31)
            and _within(probe.domain, 0, len(probe.domains))
            and all(each.ndim == 3 and each.shape[:2] == (count, length) for each in self.experts)
            and all(_within(each, 0, size) for each, size in zip(self.experts, self.n_experts, strict=True))
        )


def _within(values: Tensor, least: int, bound: int) -> bool:
    return bool(((values >= least) & (values < bound)).all())


def _array(path: str | Path, where: str, name: str) -> np.ndarray:
    try:
        found = read_npz(Path(path), name)
    except UserError as error:
        raise UserError(f"{where}, which is not a whole fingerprint: {error} Or {_REMEDY}.") from error
    if found.dtype.kind not in ("U" if name == "about" else "iu"):
        raise UserError(f"{where}, whose {name} is of {found.dtype}, which is not that of a fingerprint; {_REMEDY}.")
    return found if name == "about" else found.astype(np.int64)


def check_can_route(module: LightningModule) -> None:
    """Refuse a module whose routing cannot be compared.

    Raises:
        UserError: If it has no method ``routing_step``.
    """
    if not hasattr(module, "routing_step"):
        raise UserError(
            f"Routing is read by a method routing_step(batch), which {type(module).__name__} does not have; define it: "
            "run the mixture layers as an evaluation does, and return which tokens count or None for all."
        )


def vocab_size(module: LightningModule) -> int | None:
    """Return the number of token ids of a module with ``config.vocab_size``; None for others."""
    return getattr(getattr(module, "config", None), "vocab_size", None)


def sizes_of(module: LightningModule) -> list[tuple[int, int]]:
    """Return the number of experts, and of those per token, of each mixture layer of a model."""
    return [(layer.router.n_experts, layer.router.top_k) for layer in moe_layers(module).values()]


def shape_text(sizes: Sequence[tuple[int, int]]) -> str:
    """Return in words how many mixture layers of which sizes a model has."""
    each = dict.fromkeys(f"{experts} experts, {top_k} per token" for experts, top_k in sizes)
    return f"{len(sizes)} mixture layers of {' and '.join(each)}"
