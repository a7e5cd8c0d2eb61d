"""From the plain values of a study to what its runs are made of: a recipe, texts, a router."""

from __future__ import annotations

import hashlib
import json
import pydoc
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.cli import instantiate_class

from lit_core.errors import UserError, did_you_mean
from lit_core.files.paths import data_root
from lit_core.prepare import prepare
from lit_moe.nn import RouterCallable

Plain = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How all models of a study are trained.

    The constant and the least learning rate stand to the largest as in the paper: 0.55 and 0.1 of it.

    Args:
        sequence_length: Tokens per sequence.
        batch_size: Sequences per optimizer step.
        learning_rate: Largest learning rate of AdamW, with betas 0.9 and 0.95 and weight decay 0.1.
        warmup: Length of each warm-up, as a fraction of a run.
        cooldown: Length of the cooldown from the largest to the constant rate, as a fraction of pre-training.
        constant: Length of the constant phase of pre-training, as a fraction of it; annealing takes the rest.
        flat: Length of the constant phase of a run that goes on, as a fraction of it; annealing takes the rest.
        precision: Type of the numbers, as Lightning names it.
    """

    sequence_length: int = 128
    batch_size: int = 32
    learning_rate: float = 4e-3
    warmup: float = 0.05
    cooldown: float = 0.65
    constant: float = 0.1
    flat: float = 0.8
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    @property
    def const_lr(self) -> float:
        """Learning rate of constant phases."""
        return 0.55 * self.learning_rate

    @property
    def min_lr(self) -> float:
        """Learning rate at the end of a run."""
        return 0.1 * self.learning_rate

    @property
    def step_tokens(self) -> int:
        """Tokens per optimizer step."""
        return self.sequence_length * self.batch_size


@dataclass(frozen=True)
class Texts:
    """Prepared texts.

    Args:
        root: Folder of the sources.
        names: Names of all sources.
        old: Those of pre-training.
        new: Those that come with the shift.
        samples: Sequences per source of a test.
    """

    root: Path
    names: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    samples: int

    def kind(self, name: str) -> str:
        """Return which text a source is: old, new, or foreign, which no training ever sees."""
        return "old" if name in self.old else "new" if name in self.new else "foreign"


def prepare_once(corpora: Sequence[Plain], vocab_size: int, max_bytes: int | None) -> tuple[Path, tuple[str, ...]]:
    """Prepare corpora with one tokenizer below the data root, unless that was done before.

    Args:
        corpora: Class and arguments of each corpus.
        vocab_size: Tokens of the tokenizer that is trained on all of them.
        max_bytes: Most bytes of text of each; None takes all.

    Returns:
        The folder, and the names of the sources.
    """
    built = [instantiate_class((), description) for description in corpora]
    root = data_root() / "moe" / "study" / f"texts-{digest([list(corpora), vocab_size, max_bytes])}"
    names = tuple(corpus.name for corpus in built)
    if not all((root / name).is_dir() for name in names):
        with redirect_stdout(StringIO()):  # its summary and next command are not the study's
            prepare(str(root), built, vocab_size=vocab_size, max_bytes=max_bytes)
    return root, names


def digest(described: Any) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def chosen(name: str, choices: Mapping[str, Any], argument: str) -> Any:
    """Return what a name stands for.

    Raises:
        UserError: If it stands for nothing.
    """
    if name not in choices:
        raise UserError(f"{argument} is {name}, but must be one of {', '.join(choices)}.{did_you_mean(name, choices)}")
    return choices[name]


def made(kind: Any, arguments: Plain, argument: str) -> Any:
    """Make a dataclass from plain arguments.

    Raises:
        UserError: If one of them is unknown.
    """
    known = [field.name for field in fields(kind)]
    for key in arguments:
        if key not in known:
            raise UserError(f"{argument} gives {key}, but knows {', '.join(known)}.{did_you_mean(key, known)}")
    return kind(**arguments)


def router_of(description: Plain) -> RouterCallable:
    """Return what makes the router of a layer, from its class and arguments.

    Raises:
        UserError: If there is no such class.
    """
    found = pydoc.locate(description["class_path"])
    if not callable(found):
        raise UserError(f"class_path is {description['class_path']}, but there is no such class; correct the name.")
    return partial(found, **description.get("init_args", {}))
