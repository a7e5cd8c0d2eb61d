"""What the arguments of Lightning's Trainer and Lightning's callbacks do in a run on a stream: two tables.

`docs/switches.md` shows them. A test compares them with Lightning, so that a name that it adds must be entered here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import Trainer, callbacks
from torch import nn

from lit_core.errors import UserError, check_at_least
from lit_core.lightning.internals import syncs_batch_norms

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

Verdict = Literal["works", "refused", "no meaning", "only a base"]


@dataclass(frozen=True)
class Use:
    """How an argument of the Trainer or a callback can be used in a run on a stream.

    Args:
        verdict: Whether it works, is refused when it is given, changes nothing, or only others can be derived from it.
        how: What it does here; of what is refused, the reason and the remedy, as the rest of a sentence.
    """

    verdict: Verdict
    how: str


#: Arguments of ``Trainer``.
TRAINER: dict[str, Use] = {
    "accelerator": Use("works", "as in Lightning"),
    "strategy": Use("works", "as in Lightning; `lit_moe.ShardedStrategy` divides a model over devices"),
    "devices": Use("works", "each device reads its own share of every global batch, whatever their number"),
    "num_nodes": Use("works", "as `devices`"),
    "precision": Use(
        "works",
        "`bf16-mixed` for sound training at half the width; `16-true` is refused where it would train, as small "
        "gradients would become 0, and `transformer-engine` needs its package",
    ),
    "logger": Use("works", "added to TensorBoard and `metrics.csv` of the run folder; false switches all off"),
    "callbacks": Use("works", "added to those of every run; see the second table"),
    "fast_dev_run": Use("works", "n micro-batches, a last incomplete optimizer step included; no run folder"),
    "max_epochs": Use("works", "an epoch is the number of optimizer steps after which all samples were read"),
    "min_epochs": Use("works", "as in Lightning"),
    "max_steps": Use("works", "optimizer steps of the run, those before a resume included"),
    "min_steps": Use("works", "as in Lightning"),
    "max_time": Use("works", "saves when the time is over; a resumed run counts the time before"),
    "limit_train_batches": Use(
        "works", "micro-batches per epoch, a multiple of the accumulation; the next epoch goes on in the stream"
    ),
    "limit_val_batches": Use("works", "the first batches of each source, the same at each validation"),
    "limit_test_batches": Use("works", "the first batches of each source"),
    "limit_predict_batches": Use("works", "the first batches"),
    "overfit_batches": Use(
        "refused",
        "a stream goes on to new samples in each epoch; to train on the same few again and again, prepare a source of "
        "only those",
    ),
    "val_check_interval": Use("works", "counts micro-batches of a device, or time"),
    "check_val_every_n_epoch": Use("works", "null counts `val_check_interval` over epochs"),
    "num_sanity_val_steps": Use("works", "changes nothing in the training that follows"),
    "log_every_n_steps": Use("works", "counts optimizer steps"),
    "enable_checkpointing": Use("works", "false keeps nothing, so the run cannot be resumed"),
    "enable_progress_bar": Use(
        "works", "one bar over a whole training; a plain line a minute where standard error is no terminal"
    ),
    "enable_model_summary": Use("works", "one line; a ModelSummary among the callbacks gives a table"),
    "accumulate_grad_batches": Use("works", "follows from batch sizes and devices; another number is refused"),
    "gradient_clip_val": Use("works", "clips the gradient of the whole global batch; 0 does not clip"),
    "gradient_clip_algorithm": Use("works", "`norm` or `value`"),
    "deterministic": Use("works", "as in Lightning; the order of the samples does not depend on it"),
    "benchmark": Use("works", "as in Lightning"),
    "inference_mode": Use("works", "as in Lightning"),
    "use_distributed_sampler": Use("no meaning", "a stream divides its samples over the devices itself"),
    "profiler": Use("works", "as in Lightning"),
    "detect_anomaly": Use("works", "as in Lightning"),
    "barebones": Use("works", "no loggers, no checkpoints, no rows; only the config is kept"),
    "plugins": Use("works", "added to the one that writes checkpoints atomically"),
    "sync_batchnorm": Use("works", "on GPUs, as in Lightning; on several CPUs, a model with batch norms is refused"),
    "reload_dataloaders_every_n_epochs": Use(
        "works", "a new loader goes on where the former one ended; refused with `GradientMatching`"
    ),
    "default_root_dir": Use("no meaning", "the run folder takes its place; `--run` names it"),
    "enable_autolog_hparams": Use("works", "as in Lightning"),
    "model_registry": Use("no meaning", "read only by a checkpoint callback of Lightning's cloud"),
}

#: Callbacks that ``lightning.pytorch.callbacks`` exports.
CALLBACKS: dict[str, Use] = {
    "BackboneFinetuning": Use("works", "for a model of yours that has a `backbone`; ours have none"),
    "BaseFinetuning": Use("only a base", "name the class of yours that is derived from it"),
    "BasePredictionWriter": Use("only a base", "name the class of yours that is derived from it"),
    "BatchSizeFinder": Use(
        "refused",
        "it trains trial steps that the stream would count; try several sizes of micro_batch_size, which change the "
        "memory and not the result",
    ),
    "Callback": Use("only a base", "name the class of yours that is derived from it"),
    "Checkpoint": Use("only a base", "name the class of yours that is derived from it"),
    "DeviceStatsMonitor": Use("works", "as in Lightning"),
    "EarlyStopping": Use("works", "on any key that the run logs; its count goes on in a resumed run"),
    "EMAWeightAveraging": Use(
        "works",
        "validates and saves the averages; a resumed run goes on with both, a branch with the averages; refused for "
        "detectors that are fitted and not trained",
    ),
    "GradientAccumulationScheduler": Use(
        "refused",
        "global_batch_size says how many samples an optimizer step has, and the accumulation follows from it; set "
        "global_batch_size, and branch from the checkpoint where it shall change",
    ),
    "LambdaCallback": Use("works", "a config names functions by their import path, as `my_package.my_function`"),
    "LearningRateFinder": Use(
        "refused",
        "it trains trial steps that the stream would count; try several learning rates in runs of their own",
    ),
    "LearningRateMonitor": Use("works", "as in Lightning; `train/learning_rate` is logged without it"),
    "ModelCheckpoint": Use(
        "works", "beside `RunCheckpoint`; monitors any key that the run logs; each of its files can be resumed"
    ),
    "ModelPruning": Use(
        "refused",
        "it replaces parameters by others, which checkpoints and exports do not know; prune the trained model",
    ),
    "ModelSummary": Use("works", "as in Lightning"),
    "OnExceptionCheckpoint": Use(
        "works", "on one device; its file lies at the last optimizer step and can be resumed; refused on several"
    ),
    "ProgressBar": Use("only a base", "name the class of yours that is derived from it"),
    "RichModelSummary": Use("works", "as in Lightning"),
    "RichProgressBar": Use("works", "as in Lightning"),
    "SpikeDetection": Use(
        "refused",
        "Lightning cannot resume a run with it; a loss that is not finite ends the run without it",
    ),
    "StochasticWeightAveraging": Use(
        "refused",
        "it replaces the schedule at an epoch and does not resume; WeightAveraging and EMAWeightAveraging average "
        "after optimizer steps",
    ),
    "ThroughputMonitor": Use(
        "works", "functions as in `LambdaCallback`; in a resumed run it counts from 0; `lit-moe` logs speed without it"
    ),
    "Timer": Use("works", "as `max_time`"),
    "TQDMProgressBar": Use("works", "as in Lightning"),
    "WeightAveraging": Use("works", "as `EMAWeightAveraging`, with the mean of all steps"),
}


def refuse_switches(arguments: Mapping[str, Any], used: Iterable[Any]) -> None:
    """Refuse what contradicts training on a stream.

    Args:
        arguments: Arguments of the Trainer by name.
        used: The trainer's callbacks.

    Raises:
        UserError: If an argument or a callback is refused, or a number is out of range.
    """
    defaults = inspect.signature(Trainer).parameters
    for name, use in TRAINER.items():
        if use.verdict == "refused" and arguments.get(name, defaults[name].default) != defaults[name].default:
            raise UserError(f"`trainer.{name}` is {arguments[name]}, but {use.how}.")
    check_at_least(0, **{"trainer.gradient_clip_val": arguments.get("gradient_clip_val")})
    for callback in used:
        for name, use in CALLBACKS.items():
            if use.verdict == "refused" and isinstance(callback, getattr(callbacks, name)):
                raise UserError(f"`trainer.callbacks` has {type(callback).__name__}, but {use.how}.")


def refuse_bases(used: Iterable[Any]) -> None:
    """Refuse callbacks of Lightning that do nothing by themselves.

    Args:
        used: The callbacks that a config names.

    Raises:
        UserError: If there is one.
    """
    for callback in used:
        name = type(callback).__name__
        use = CALLBACKS.get(name)
        if use is not None and use.verdict == "only a base" and type(callback) is getattr(callbacks, name):
            raise UserError(f"`trainer.callbacks` has {name}, which is only a base of callbacks; {use.how}.")


def refuse_switches_of(trainer: Trainer) -> None:
    """Refuse what contradicts training on a stream in a trainer that has its module; see `refuse_switches`."""
    names = [name for name, use in TRAINER.items() if use.verdict == "refused"]
    arguments = {name: getattr(trainer, name) for name in [*names, "gradient_clip_val"]}
    module = trainer.lightning_module
    used = trainer.callbacks  # type: ignore[attr-defined]  # set where mypy does not see it
    refuse_switches(arguments, used)
    on_cpus = syncs_batch_norms(trainer) and trainer.strategy.root_device.type == "cpu"
    if on_cpus and any(isinstance(part, _BATCH_NORMS) for part in module.modules()):
        raise UserError(
            "`trainer.sync_batchnorm` is true, but torch synchronises batch norms on GPUs only; leave it out on CPUs."
        )
    if trainer.world_size > 1 and any(isinstance(callback, callbacks.OnExceptionCheckpoint) for callback in used):
        raise UserError(
            "`trainer.callbacks` has OnExceptionCheckpoint, but where one of several devices fails alone, it would "
            "wait for the others for ever; leave it out, and let `RunCheckpoint` save every_n_train_steps."
        )
    averages = [type(callback).__name__ for callback in used if isinstance(callback, callbacks.WeightAveraging)]
    if averages and not getattr(module, "is_trained", True):
        raise UserError(
            f"`trainer.callbacks` has {averages[0]}, but this model is fitted to the whole training set at once, so "
            "there are no weights to average; leave it out."
        )
    finetunes = any(isinstance(callback, callbacks.BackboneFinetuning) for callback in used)
    if finetunes and not hasattr(module, "backbone"):
        raise UserError(
            f"`trainer.callbacks` has BackboneFinetuning, but {type(module).__name__} has no attribute `backbone`, "
            "which it unfreezes; leave it out, or derive a model that has one."
        )
