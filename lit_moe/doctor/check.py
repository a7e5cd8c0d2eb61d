"""What a check of a model finds, and all checks, found in the files of `checks`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lit_moe.doctor.specimen import Specimen

Verdict = Literal["pass", "fail", "refused", "n/a"]


@dataclass(frozen=True)
class Finding:
    """What a check finds.

    Args:
        verdict: ``pass``; ``fail``; ``refused``, where our code says in one sentence that this cannot be done, before
            anything wrong is computed; or ``n/a``, where the model has no such part.
        reason: One sentence; empty where it passes.
    """

    verdict: Verdict
    reason: str = ""


Check = Callable[["Specimen"], Finding]


def checks() -> dict[str, Check]:
    """Return the function `check` of each file of `checks`, by the file's name, in the order of their names."""
    return {name: module.check for name, module in _modules().items()}


def purposes() -> dict[str, str]:
    """Return the first line of each file of `checks`, by the file's name."""
    return {name: (module.__doc__ or "").partition("\n")[0] for name, module in _modules().items()}


def _modules() -> dict[str, Any]:
    folder = importlib.import_module("lit_moe.doctor.checks").__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folder))
    return {name: importlib.import_module(f"lit_moe.doctor.checks.{name}") for name in names}
