"""What an owner needs to answer a query: the samples that may be shared, the selector's view of them, the choice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule
from torch import nn

from lit_core.errors import UserError, check_at_least
from lit_core.files.paths import file_sha256
from lit_core.lightning.devices import gather_shares, share
from lit_core.trust import KNOWN
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.encoders import Encoder, EncoderStamp, embed
from lit_valuation.encoders.stamp import public_name
from lit_valuation.exchange.folder import Received
from lit_valuation.exchange.manifest import Choice, Plain, Query
from lit_valuation.exchange.probe import ReceivedProbe
from lit_valuation.last_layer import gather_gradients, rows_at_once
from lit_valuation.samples import Samples, as_inputs
from lit_valuation.selectors import Pool, Selection, Selector

#: Packages whose class paths tell nothing about who names them.
_PUBLIC = (*KNOWN, "timm.", "torchvision.", "transformers.")


def check_budget(budget: int | None, query: Query, limit: int) -> int:
    """Return the budget of an answer; None takes that of the query, or the limit if that is smaller.

    Raises:
        UserError: If the limit is below 1, or the budget is not from 1 to the query's.
    """
    check_at_least(1, limit=limit)
    budget = min(query.budget, limit) if budget is None else budget
    if not 1 <= budget <= query.budget:
        raise UserError(f"budget is {budget}, but the query allows 1 to {query.budget}; change it.")
    return budget


def check_inputs(owned: LabelledSet, query: Query) -> None:
    """Refuse data whose inputs are not of the kind that a query asks for.

    Raises:
        UserError: If kind, shape, columns, vocabulary, the kind of targets or the encoder of embeddings differ.
    """
    contents, columns = query.contents, query.columns
    if owned.target != contents.kind:
        raise UserError(
            f"The query asks for samples whose target is {contents.kind} ({', '.join(contents.classes)}), but those of "
            f"{owned.folder} have the target {owned.target}; prepare your data with that target."
        )
    if (owned.kind, owned.shape) != (contents.input, contents.shape):
        raise UserError(
            f"The query asks for inputs {contents.input} {contents.shape}, but {owned.folder} holds {owned.kind} "
            f"{owned.shape}; prepare your data in that shape."
        )
    if owned.vocabulary != contents.vocabulary:
        raise UserError(
            f"The query asks for texts of the vocabulary {contents.vocabulary}, but {owned.folder} has "
            f"{owned.vocabulary}; prepare your texts with the trainer's tokenizer."
        )
    own_columns = owned.meta.get("columns")
    if columns is not None and own_columns is not None and list(columns) != list(own_columns):
        raise UserError(
            f"The query asks for the columns {', '.join(columns)}, but {owned.folder} has {', '.join(own_columns)}; "
            "prepare your table with the same columns in the same order."
        )
    if None not in (contents.encoder, owned.encoder) and contents.encoder != owned.encoder:
        raise UserError(
            f"The query holds embeddings by {contents.encoder}, but those of {owned.folder} are by {owned.encoder}; "
            "prepare your data with that encoder."
        )


def note_encoder(owned: LabelledSet, query: Query) -> str:
    """Return a note where nothing tells whether the embeddings of both sides are by one encoder; else empty."""
    if query.contents.input != "embedding" or None not in (query.contents.encoder, owned.encoder):
        return ""
    silent = "The query" if query.contents.encoder is None else str(owned.folder)
    return f"Note: {silent} does not tell which encoder made its embeddings; make sure that both sides used the same."


def check_encoder(selector: Selector, encoder: Encoder | None, query: Query) -> EncoderStamp | None:
    """Return name and hash of the encoder; None if the selector does not use features.

    Raises:
        UserError: If an encoder is missing or not used, or the query asks for another one.
    """
    is_probe = query.probe is not None and "gradients" in selector.needs
    if "features" not in selector.needs and not is_probe:
        if encoder is not None:
            raise UserError(f"encoder is {encoder.name}, but {type(selector).__name__} uses no features; leave it out.")
        return None
    wanted = query.encoder
    if encoder is None:
        which = "EfficientNetLite0 or another" if wanted is None else wanted.name
        raise UserError(f"{type(selector).__name__} needs features, but there is no encoder; give --encoder {which}.")
    stamp = EncoderStamp.of(encoder)
    if wanted is not None and stamp != wanted:
        raise UserError(f"encoder is {stamp}, but the query asks for {wanted}; use that one.")
    return stamp


def find_checkpoint(
    selector: Selector, ckpt_path: str | None, query: Received[Query], model: object = None
) -> Path | None:
    """Return the checkpoint file for gradients: that of the query if it has one, in a run folder the earliest.

    Args:
        selector: The selector.
        ckpt_path: The checkpoint, or a run folder.
        query: The query.
        model: The class of the model, as the user gives it; only a selector that uses gradients has a use for it.

    Returns:
        The file; None if the selector uses no gradients.

    Raises:
        UserError: If no path is given or it is not used, or the run folder has no checkpoint of a step.
    """
    given = query.manifest.given
    for name, value in (("ckpt_path", ckpt_path), ("model", model)):
        if given is not None and value is not None:
            raise UserError(
                f"{name} is {value}, but the query holds the model at which it asks for gradients; leave it out."
            )
    if "gradients" not in selector.needs:
        for name, value in (("ckpt_path", ckpt_path), ("model", model)):
            if value is not None:
                raise UserError(f"{name} is {value}, but {type(selector).__name__} uses no gradients; leave it out.")
        return None
    if given is not None:
        return query.folder / given.file
    if ckpt_path is None:
        raise UserError(
            f"{type(selector).__name__} needs gradients of your own model; give --ckpt_path of your lit-valuation fit, "
            "or of your LightningModule with --model."
        )
    path = Path(ckpt_path)
    if not path.is_dir():
        return path
    found = [*path.glob("*.ckpt"), *path.glob("checkpoints/*.ckpt")]
    files = {int(match[1]): file for file in found if (match := re.search(r"step=(\d+)", file.name))}
    steps = [step for step in files if step > 0]
    if not steps:
        raise UserError(
            f"--ckpt_path is {path}, which has no checkpoint named step=<n>.ckpt; give a .ckpt file, or train with "
            "RunCheckpoint and its every_n_train_steps and save_top_k -1."
        )
    return files[min(steps)]


def check_selector(selector: Selector, query: Query) -> None:
    """Refuse a selector that compares samples with hard cases, where the query does not hold them.

    Raises:
        UserError: If it does.
    """
    if query.probe is not None and selector.needs - {"gradients"}:
        raise UserError(
            f"{type(selector).__name__} compares your samples with the hard cases, but the query holds only sums of "
            "their gradients; use GradientMatchingSelector."
        )


def probe_pools(
    samples: Samples, selector: Selector, encoder: Encoder | None, probe: ReceivedProbe, fabric: Fabric
) -> tuple[Pool, Pool]:
    """Compute what a selector needs to know of an owner's samples and of the hard cases that a probe sums.

    Args:
        samples: The samples, numbered by the classes of the probe's head.
        selector: The selector.
        encoder: The probe's encoder; needed only by selectors that use gradients.
        probe: The probe.
        fabric: The processes; each encodes a share.

    Raises:
        UserError: If the encoder's features are not as wide as the head's.
    """
    if "gradients" not in selector.needs:
        return Pool(samples.y), Pool(probe.labels.repeat_interleave(torch.tensor(probe.counts)))
    assert encoder is not None
    n, width = len(samples), probe.weight.shape[1]
    own = samples.take(share(n, fabric.global_rank, fabric.world_size))
    features = embed(encoder, own.x) if len(own) else torch.empty(0, width)
    if features.shape[1] != width:
        raise UserError(
            f"The query's head takes features of width {width}, but {encoder.name} makes {features.shape[1]}; ask its "
            "sender for it again."
        )
    return probe.pools(gather_shares(fabric, features, n), samples.y)


def shareable_samples(owned: LabelledSet, query: Query, withhold: list[str]) -> Samples:
    """Return the owner's samples of the query's classes, without those that are withheld.

    Args:
        owned: The owner's training set.
        query: The query.
        withhold: Keys of samples that must not be shared.

    Raises:
        UserError: If a withheld key does not exist, or no sample is left.
    """
    samples = owned.load()
    unknown = sorted(set(withhold) - set(samples.keys))
    if unknown:
        raise UserError(f"withhold names {unknown[0]}, which is not a sample of {owned.folder}; correct it.")
    asked = query.contents.classes
    samples = samples.of_classes(
        [name for name in samples.classes if name in asked] if samples.target == "class" else list(asked)
    )
    if not len(samples):
        raise UserError(
            f"{owned.folder} has no sample of the classes asked for ({', '.join(asked)}), so there is nothing to share."
        )
    allowed = [index for index, key in enumerate(samples.keys) if key not in set(withhold)]
    if not allowed:
        raise UserError("withhold names all samples of the classes asked for, so there is nothing to share.")
    return samples.take(allowed)


def make_pool(
    samples: Samples, selector: Selector, encoder: Encoder | None, task: LightningModule | None, fabric: Fabric
) -> Pool:
    """Compute what a selector needs to know of samples; each rank computes a share and receives the whole.

    Args:
        samples: The samples, numbered by the classes of the model, if there is one.
        selector: The selector; its ``needs`` say what to compute.
        encoder: Computes features; needed only by selectors that use them.
        task: The owner's model; needed only by selectors that use gradients.
        fabric: The processes.
    """
    if "x" in selector.needs and samples.has_positions:
        raise UserError(
            f"{type(selector).__name__} compares columns of a table, but the samples are texts as token ids; take "
            "another selector, such as GradientMatchingSelector."
        )
    n = len(samples)
    own_share = share(n, fabric.global_rank, fabric.world_size)
    own_samples = samples.take(own_share)
    features = gradients = None
    if "features" in selector.needs:
        assert encoder is not None
        width = embed(encoder, samples.x[:1]).shape[1]
        own_features = embed(encoder, own_samples.x) if len(own_samples) else torch.empty(0, width)
        features = gather_shares(fabric, own_features, n)
    if "gradients" in selector.needs:
        assert task is not None
        task.to(fabric.device)
        indices = list(own_share) or list(range(min(n, 1)))  # without samples a rank still needs shape and dtype
        size = rows_at_once(task, samples)
        blocks = [indices[start : start + size] for start in range(0, len(indices), size)]
        batches = ((as_inputs(samples.x[block]), samples.y[block]) for block in blocks)
        gradients = gather_gradients(task, batches).gradients.take(range(len(own_samples)))
        if fabric.world_size > 1:
            gradients = gradients.unpacked(gather_shares(fabric, gradients.packed(), n))
    rows = samples.x.flatten(1).float() if "x" in selector.needs else None
    values = None if samples.target == "class" else samples.y
    return Pool(samples.strata(), rows, features, gradients, values, target=samples.target)


def describe_choice(
    selector: Selector,
    encoder: EncoderStamp | None,
    task: LightningModule | None,
    checkpoint: Path | None,
    selection: Selection,
    is_probe: bool = False,
) -> Choice:
    """Return how an answer was chosen, without any name that could tell who chose it, as that of an own class could."""
    network = getattr(task, "network", None)
    of_task = network if isinstance(network, nn.Module) else task
    return Choice(
        selector=_class_path(selector),
        settings={key: _plain(value) for key, value in vars(selector).items() if not key.startswith("_")},
        encoder=encoder,
        model=_class_path(of_task) if task is not None else "probe" if is_probe else None,
        checkpoint=None if checkpoint is None else file_sha256(checkpoint),
        facts={name: float(value) for name, value in selection.facts.items()},
    )


def _class_path(instance: Any) -> str:
    """Return the class path of an object; of a class that is not in a public package only that it is the owner's."""
    path = f"{type(instance).__module__}.{type(instance).__qualname__}"
    return path if path.startswith(_PUBLIC) else "(a class of the owner's)"


def _plain(value: Any) -> Plain:
    if isinstance(value, str):
        return public_name(value)
    return value if value is None or isinstance(value, bool | int | float) else type(value).__name__
