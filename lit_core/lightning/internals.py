"""Private names of Lightning that LitShift uses, each behind one public function with the reason.

No other module uses one; a test reads all sources to see to it. Another test pins each name here to Lightning 2.6.6, so
that a version of Lightning that drops a name fails that test and not a run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from traceback import walk_tb
from typing import Any

from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters, _given_hyperparameters_context
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.connectors import checkpoint_connector

from lit_core.long_lists import read_long_lists

read_long_lists()  # also where a module is built from its checkpoint in Python

#: Keys of a checkpoint's ``hyper_parameters`` in which LightningCLI notes the class and the function that built it.
#: LightningCLI writes them as literals.
CLASS_PATH, INSTANTIATOR = "_class_path", "_instantiator"
#: The function by which ``load_from_checkpoint`` builds a class from its parsed arguments.
INSTANTIATE_MODULE = "lightning.pytorch.cli.instantiate_module"


class CommandLine(LightningCLI):
    """A `LightningCLI` whose steps can be replaced one by one.

    LightningCLI runs all its steps in ``__init__`` and names only some of them publicly.
    """

    def merge_checkpoint_hyperparameters(self) -> None:
        """Give a checkpoint's hyperparameters precedence over the command line, as Lightning does."""
        super()._parse_ckpt_path()

    def seed(self) -> None:
        """Seed the random number generators from ``--seed_everything``."""
        super()._set_seed()

    def run_subcommand(self, subcommand: str) -> None:
        """Run the trainer's method of this name with the parsed arguments."""
        super()._run_subcommand(subcommand)

    def build_trainer(self, config: dict[str, Any]) -> Trainer:
        """Return a trainer with these arguments, after the defaults that the CLI was given."""
        return self._instantiate_trainer(config, [])

    def subcommand_parser(self, subcommand: str) -> LightningArgumentParser:
        """Return the parser of a subcommand."""
        return self._subcommand_parsers[subcommand]

    def __deepcopy__(self, memo: dict[int, Any]) -> CommandLine:
        """Return itself, not copied.

        A callable argument of a model, such as its optimizer, refers to the command line and so to trainer and data. A
        copy of the model, as `WeightAveraging` makes, would copy them too, which fails on several devices.
        """
        return self

    def _parse_ckpt_path(self) -> None:
        self.merge_checkpoint_hyperparameters()

    def _set_seed(self) -> None:
        self.seed()

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_subcommand(subcommand)


def given_by_cli() -> dict[str, Any] | None:
    """Return the parsed config of which LightningCLI builds the module under construction; None if it builds none.

    LightningCLI hands the config to ``save_hyperparameters`` through this variable only. The order of the values that
    are linked to the data differs from process to process.
    """
    return _given_hyperparameters.get()


def as_built_by_cli(hyperparameters: dict[str, Any]) -> AbstractContextManager[None]:
    """Return a context in which ``save_hyperparameters`` keeps these values, as if LightningCLI had parsed them.

    They are kept sorted by name.

    Args:
        hyperparameters: Plain data, with the class under `CLASS_PATH`.
    """
    return _given_hyperparameters_context(dict(sorted(hyperparameters.items())), INSTANTIATE_MODULE)


def unwrapped(load_from_checkpoint: Any) -> Callable[..., Any]:
    """Return the function of a class method ``load_from_checkpoint``, which takes the class as its first argument.

    Lightning's wrapper refuses a call on an instance. To tell it from scripting, it reads the source of every calling
    frame, which takes as long as loading a small model.
    """
    function: Callable[..., Any] = load_from_checkpoint.__func__
    return function


def trainer_of(module: LightningModule) -> Trainer | None:
    """Return the trainer that a module is attached to; None if there is none.

    The public property ``trainer`` raises an error for a module without a trainer.
    """
    return module._trainer


def logged_step(trainer: Trainer) -> int:
    """Return the step under which Lightning logs: the optimizer steps of the run, on the x axis of its loggers.

    The public ``global_step`` counts the steps of all optimizers and is ahead by one at the end of a batch.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def set_logged_step(trainer: Trainer, step: int) -> None:
    """Set the step under which Lightning logs; see `logged_step`.

    Args:
        trainer: Its loggers log at this step.
        step: Optimizer steps, 0 or more.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def is_of_restoring(error: BaseException) -> bool:
    """Tell whether an error was raised while the trainer restored the state in a checkpoint.

    Lightning does it in ``fit`` and has no public hook around all of it.
    """
    frames = (frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__))
    return checkpoint_connector.__file__ in frames


def syncs_batch_norms(trainer: Trainer) -> bool:
    """Tell whether the strategy replaces batch norms by synchronised ones.

    The public trainer does not keep its argument ``sync_batchnorm``.
    """
    return isinstance(trainer.strategy, DDPStrategy) and trainer.strategy._layer_sync is not None


def stops_after_validation(callback: EarlyStopping) -> bool:
    """Tell whether a callback looks at its key after each validation, and not at the end of each epoch.

    Its public argument may leave that to the trainer.
    """
    return not callback._check_on_train_epoch_end


def logs_this_step(trainer: Trainer) -> bool:
    """Tell, at any moment of an optimizer step, whether its metrics go to the loggers; the same on every rank.

    The public ``log_every_n_steps`` does not tell from which step Lightning counts, which a resume shifts.
    """
    connector = trainer._logger_connector
    return bool(connector.should_update_logs) or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def steps_after_batch(trainer: Trainer) -> bool:
    """Tell, during a training batch, whether the optimizer steps after its backward pass.

    The public ``accumulate_grad_batches`` does not tell that the last batch of an epoch steps too.
    """
    return not trainer.fit_loop._should_accumulate()


def pending_row(trainer: Trainer) -> dict[str, float]:
    """Return the metrics of the current training step that Lightning has not yet given to the loggers; may be empty.

    The public ``logged_metrics`` holds only those that it has given.
    """
    connector = trainer._logger_connector
    if not trainer.training or connector._first_loop_iter is None or not connector.should_update_logs:
        return {}
    return convert_tensors_to_scalars(connector.metrics["log"])


def run_validation(trainer: Trainer) -> None:
    """Run a full validation in the middle of ``fit``, with the state that Lightning sets around its own validations.

    The public ``validate`` can't be called inside ``fit``. Before the first step, `EarlyStopping` would refuse a key of
    training, which it looks for after each validation.
    """
    connector = trainer._logger_connector
    first = connector._first_loop_iter
    strict = [c for c in trainer.callbacks if isinstance(c, EarlyStopping) and c.strict]  # type: ignore[attr-defined]
    for callback in strict:
        callback.strict = False
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    for callback in strict:
        callback.strict = True
    connector._first_loop_iter = first


def validation_follows(trainer: Trainer) -> bool:
    """Tell, at the end of a training batch, whether a validation is due before the next one.

    The rule has many cases (``val_check_interval``, ``check_val_every_n_epoch``, the last batch) and no public name.
    """
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return bool(trainer.enable_validation and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def validation_loaders(trainer: Trainer) -> Any:
    """Return new validation loaders, as ``val_dataloader`` returns them; None without a validation set.

    The public ``val_dataloaders`` is empty before the first validation.
    """
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    return source.dataloader() if source.is_defined() and source.instance is not None else None


def given_train_loader(trainer: Trainer) -> Any:
    """Return the training loader that was given to ``fit``; None if a method makes it.

    The public ``train_dataloader`` is empty before the training loader is prepared.
    """
    return trainer.fit_loop._data_source.instance if not trainer.fit_loop._data_source.is_module() else None


def replace_train_loader(trainer: Trainer, loader: Any) -> None:
    """Make ``fit`` read its training batches from another loader, from the next epoch on.

    Lightning replaces loaders only by ``reload_dataloaders_every_n_epochs``, at fixed epochs and from the same method.

    Args:
        trainer: The trainer, in ``on_train_epoch_start`` or earlier.
        loader: The new loader.
    """
    loop = trainer.fit_loop
    loop._data_source.instance = loader
    loop._combined_loader = None
    loop.setup_data()


def last_saved_step(checkpoint: ModelCheckpoint) -> int:
    """Return the step of the last file that a checkpoint callback wrote, 0 before the first.

    The callback has no public name for this step.
    """
    return checkpoint._last_global_step_saved


def save_files(checkpoint: ModelCheckpoint, trainer: Trainer, *, step_file: bool) -> None:
    """Make a checkpoint callback save now; it names the new files and removes old ones by its own rules.

    The public hooks save only at the moments that the callback's arguments set.

    Args:
        checkpoint: The callback.
        trainer: The trainer that is saved.
        step_file: Whether to write the step's own file too, besides ``last.ckpt``.
    """
    candidates = checkpoint._monitor_candidates(trainer)
    if step_file:
        checkpoint._save_topk_checkpoint(trainer, candidates)
    checkpoint._save_last_checkpoint(trainer, candidates)


def set_data_parallel_size(strategy: ModelParallelStrategy, size: int) -> None:
    """Set the number of groups of devices once the number of devices is known.

    The public argument ``data_parallel_size`` is read when the strategy is made, before the devices are counted.
    """
    strategy._data_parallel_size = size
