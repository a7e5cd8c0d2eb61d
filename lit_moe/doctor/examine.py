"""All checks of one model, each with its finding."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lit_core.errors import UserError, reason_of
from lit_core.lm.transformers_loading import quiet_transformers
from lit_moe.doctor.check import Check, Finding
from lit_moe.doctor.specimen import Specimen

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def examine(
    config: PretrainedConfig, checks: dict[str, Check], seed: int | None = None
) -> Iterator[tuple[str, Finding]]:
    """Yield each check's name and what it finds.

    Args:
        config: A small config of transformers.
        checks: The checks by name.
        seed: Seed of the weights and tokens, 0 or more; None takes that of the run.
    """
    for name, check in checks.items():
        yield name, found(check, Specimen(config, seed))


def found(check: Check, specimen: Specimen) -> Finding:
    """Return what a check finds; what it raises is a finding, too.

    Args:
        check: The check.
        specimen: The small model.
    """
    try:
        with _quiet():
            return check(specimen)
    except UserError as error:
        return Finding("refused", str(error))
    except ImportError as error:
        return Finding("refused", f"A package is missing: {reason_of(error)}")
    except Exception as error:  # of transformers, torch, or of ours
        return Finding("fail", f"{type(error).__name__}: {reason_of(error)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what Lightning and transformers say of each small training."""
    lightning = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lit_moe")]
    levels = [logger.level for logger in lightning]
    for logger in lightning:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), quiet_transformers():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(lightning, levels, strict=True):
            logger.setLevel(level)
