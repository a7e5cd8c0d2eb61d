"""Loading of models by transformers: without its progress bars and reports, with failures in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lit_core.errors import UserError


@contextmanager
def loading(subject: str, remedy: str) -> Iterator[None]:
    """Load a model by transformers, quietly.

    Args:
        subject: The argument and its value, such as ``encoder is minilm``, with which a refusal begins.
        remedy: What to give instead, with which a refusal ends.

    Raises:
        UserError: If transformers finds no such model, or cannot read it.
    """
    try:
        with quiet_transformers():
            yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(f"{subject}, which cannot be loaded ({reason}); {remedy}.") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Show neither a bar nor a list of missing or left-out weights while transformers loads a model."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
