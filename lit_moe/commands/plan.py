"""The command line of ``lit-moe plan``, which takes what ``fit`` takes."""

from __future__ import annotations

import pydoc
from collections.abc import Mapping
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lit_core.cli import LitCLI
from lit_core.errors import UserError, check_at_least
from lit_core.lightning.later_weights import weights_come_later
from lit_core.lm.config_file import config_of
from lit_core.screen import say
from lit_moe.module import MoELanguageModel
from lit_moe.nn import HFConfig
from lit_moe.parallel.strategy import ShardedStrategy
from lit_moe.plan.costs import check_costs, plan
from lit_moe.plan.layout import Layout

_ALIASES = {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_OWN = ("tflops", "utilisation", "price", "device_memory", "bandwidth")


class PlanCLI(LitCLI):
    """Reads the command line of ``fit`` and prints the cost of the training instead of training."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the command whose arguments ``plan`` takes: ``fit``."""
        return {"fit": LitCLI.subcommands()["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of a plan to those of ``fit``."""
        super().add_arguments_to_parser(parser)
        parser.add_function_arguments(plan, skip={"model", "layout", "steps"})
        parser.add_argument(
            "--vocab_size",
            type=int | None,
            default=None,
            help="Number of token ids; null takes it from the data's tokenizer, which then has to be there.",
        )

    def seed(self) -> None:
        """Draw nothing."""

    def instantiate_classes(self) -> None:
        """Build nothing, so that neither data nor devices are needed."""

    def run_subcommand(self, subcommand: str) -> None:
        """Print what the training would cost."""
        config = self.config[subcommand]
        trainer, data = config.trainer, config.data.init_args
        own = {name: config[name] for name in _OWN}
        theirs = _config_of_theirs(config.model)
        check_costs(**own)
        check_at_least(1, vocab_size=config.vocab_size)
        layout = layout_of(trainer, data)
        vocab_size = config.vocab_size
        if vocab_size is None:
            vocab_size = (theirs or {}).get("vocab_size") or _tokenizer_size(config.data)
        with self.sized_as_checkpoint():
            model = _without_weights(config.model, theirs, vocab_size)
        model.configure_optimizers()  # refuses what `fit` would refuse
        steps = trainer.max_steps if trainer.max_steps > 0 else None
        say(*plan(model, layout, steps, **own).split("\n"))


def layout_of(trainer: Mapping[str, Any], data: Mapping[str, Any]) -> Layout:
    """Return the layout of a run's config.

    Args:
        trainer: The arguments of the trainer; the devices ``auto`` are taken to be one.
        data: The arguments of the data module.

    Raises:
        UserError: If the number of devices is missing or does not divide the batch, or the strategy is unknown.
    """
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    per_node = len(devices) if isinstance(devices, list) else 1 if devices == "auto" else int(devices)
    if per_node < 1:
        raise UserError(f"`trainer.devices` is {devices}, but a plan is for a number of them; give it.")
    world, micro, batch = per_node * nodes, data["micro_batch_size"], data["global_batch_size"]
    if batch < 1 or batch % (world * micro):
        raise UserError(
            f"`data.global_batch_size` is {batch}, but {world} × {micro} samples (devices × micro_batch_size) are "
            f"taken at once; give a multiple of {world * micro}."
        )
    expert_parallel, reduce_once = _sharding(trainer["strategy"])
    if world % (expert_parallel or 1):
        raise UserError(
            f"`expert_parallel` is {expert_parallel}, but must divide {world} devices; set it to a divisor."
        )
    precision = str(trainer["precision"])
    return Layout(
        devices=world,
        sharded=expert_parallel is not None,
        expert_parallel=expert_parallel or 1,
        precision=_ALIASES.get(precision, precision),
        micro_batch_size=micro,
        sequence_length=data["sequence_length"],
        accumulation=batch // (world * micro),
        gpu=trainer["accelerator"] != "cpu",
        reduce_once=reduce_once,
    )


def _sharding(strategy: Any) -> tuple[int | None, bool]:
    """Return among how many devices a strategy divides the experts, None if it does not shard; and `reduce_once`."""
    name = strategy if isinstance(strategy, str) else strategy["class_path"]
    if name in ("auto", "single_device") or name.startswith("ddp") or name.endswith("DDPStrategy"):
        return None, False
    kind = pydoc.locate(name)
    if isinstance(kind, type) and issubclass(kind, ShardedStrategy):
        if isinstance(strategy, str):
            raise UserError(
                f"`trainer.strategy` is {name}, a class without arguments; write it as gpu8_fsdp2.yaml does."
            )
        arguments = strategy["init_args"]
        return int(arguments["expert_parallel"]), bool(arguments.get("reduce_once", False))
    raise UserError(f"`trainer.strategy` is {name}, but a plan knows ddp and lit_moe.ShardedStrategy; set one of them.")


def _tokenizer_size(data: Namespace) -> int:
    kind: Any = pydoc.locate(data.class_path)
    try:
        return int(kind(**data.init_args.as_dict()).vocab_size)
    except UserError as error:
        raise UserError(f"{error} To plan without the data, give --vocab_size.") from error


def _config_of_theirs(model: Namespace) -> dict[str, Any] | None:
    """Return the config of a model of transformers, of which only config.json is read; None for a decoder of ours."""
    if model.init_args.hugging_face is None:
        return None
    theirs = HFConfig(**model.init_args.hugging_face.as_dict())
    return theirs.config if theirs.model is None else config_of(theirs.model)


def _without_weights(model: Namespace, theirs: dict[str, Any] | None, vocab_size: int) -> MoELanguageModel:
    model = model.clone()
    model.init_args.decoder.vocab_size = vocab_size
    if theirs is not None:
        model.init_args.hugging_face.model, model.init_args.hugging_face.config = None, theirs
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(MoELanguageModel, "model")
    with torch.device("meta") if theirs is None else weights_come_later():
        built: MoELanguageModel = parser.instantiate(Namespace(model=model)).model
    return built
