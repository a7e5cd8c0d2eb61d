"""`LitCLI`, the LightningCLI of all packages: run folders, resuming and branching, the callbacks of every run."""

from __future__ import annotations

import copy
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_core import record
from lit_core.callbacks import (
    BranchFrom,
    FiniteLoss,
    GracefulStop,
    MonitoredKeys,
    PresentOptimizer,
    RunAnswer,
    RunCheckpoint,
    RunProgress,
    RunRecord,
    RunSummary,
    UnmovedWeights,
)
from lit_core.callbacks.run_record import config_text
from lit_core.cli import arguments, checkpoint_config
from lit_core.cli.empty import refuse_empty
from lit_core.cli.messages import sentence
from lit_core.cli.new_run import begin_run, refuse_foreign_files
from lit_core.cli.numbers import check_numbers
from lit_core.cli.parser import PARSER_MODE, Parser, accept_former_paths
from lit_core.cli.ranks import is_further_rank, is_launched_from_outside
from lit_core.cli.run_folder import choose_run_folder, hold_run_folder
from lit_core.cli.scores import score_table
from lit_core.data import ResumeStream
from lit_core.errors import RunFailure, UserError, reason_of
from lit_core.files.paths import remove_torn_files
from lit_core.files.yaml_files import parse_yaml
from lit_core.lightning.checkpoint import (
    AtomicCheckpointIO,
    check_weights,
    checkpoint_facts,
    read_checkpoint_file,
    refuse_folder,
)
from lit_core.lightning.internals import CommandLine, is_of_restoring, set_logged_step
from lit_core.lightning.loggers import run_loggers
from lit_core.lightning.switches import refuse_bases, refuse_switches
from lit_core.origin import import_path
from lit_core.parser_messages import check_keys
from lit_core.references import as_typed, without_environment, without_secrets
from lit_core.screen import rank_zero_info, rank_zero_warn
from lit_core.seeds import checked_seed, drawn_seed, forget_run_seed, seeds_of
from lit_core.size_limit import sized_as
from lit_core.trust import OWN, note_typed


class LightningParser(Parser, LightningArgumentParser):
    """Our parser, with the methods by which a `LightningCLI` adds its arguments."""

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        """Validate each value of a command once; jsonargparse does so by the command's parser and by that around it."""
        if "_prefix" not in kwargs:  # with which the parser around a command calls the command's
            super().validate(namespace, *args, **kwargs)


class LitCLI(CommandLine):
    """Runs ``fit``, ``validate``, ``test`` and ``predict`` with class defaults < checkpoint < config files < flags.

    Args:
        package: Short name of the package: the folder of its runs below ``runs``.
        model_class: Base class of the models that can be named.
        datamodule_class: Base class of the data modules that can be named.
        links: Attributes of the built data module and the model arguments that must equal them.
        args: The command line, without the program's name.

    Attributes:
        best: Metrics of the validations that are shown after ``fit``, with ``min`` or ``max`` for what is best.
        unnamed_model: Import path of the model of a checkpoint that does not name its class; None takes model_class.
    """

    best: ClassVar[Mapping[str, Callable[[Iterable[float]], float]]] = {"loss": min}
    unnamed_model: ClassVar[str | None] = None

    def __init__(
        self,
        package: str,
        model_class: type[LightningModule],
        datamodule_class: type[LightningDataModule],
        links: dict[str, str],
        args: list[str],
    ) -> None:
        self.package = package
        self.links = links
        self.run_folder: Path | None = None
        if args and args[0] in self.subcommands():  # the parsers of the other commands take as long to build
            commands = {args[0]: self.subcommands()[args[0]]}
            self.subcommands = lambda: commands  # type: ignore[method-assign]
        accept_former_paths()
        parser_kwargs: dict[str, Any] = {"parser_mode": PARSER_MODE, "exit_on_error": False}
        super().__init__(
            model_class,
            datamodule_class,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            parser_class=LightningParser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs=parser_kwargs | {command: dict(parser_kwargs) for command in self.subcommands()},
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of a run and the links between data and model."""
        parser.add_argument("--run", type=str | None, default=None, help="Name of the run: its folder below runs.")
        parser.add_argument(
            "--branch_from",
            type=str | None,
            default=None,
            help="Checkpoint whose weights, optimizer moments and data consumption a new run starts from (fit only).",
        )
        parser.add_argument(f"--{arguments.TRUST}", **arguments.TRUST_ARGUMENT)
        for source, target in self.links.items():
            parser.link_arguments(source, target, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; packaged configs are located, and the checkpoint's config is inserted as defaults."""
        located = arguments.locate_configs(arguments.replace_former_paths(args))
        located = arguments.trust_given(arguments.secrets_as_references(located))
        self.config_files = arguments.option(located, "--config", "-c")
        command = next((arg for arg in located if arg in self.subcommands()), None)
        if command is not None:
            located = arguments.configs_first(located, located.index(command) + 1)
        if command is not None and "--help" not in located and "-h" not in located:
            links, model = list(self.links.values()), self.unnamed_model or str(import_path(self.model_class))
            config = checkpoint_config.checkpoint_config(located, command, links, model)
            located = checkpoint_config.insert_config(located, command, config)
        if command in ("validate", "test") and not arguments.option(located, "--verbose"):
            # Lightning prints all metrics once per source; `score_table` prints each once
            located.insert(located.index(command) + 1, "--verbose=false")
        self.config = parser.parse_args(located)
        self._typed: dict[str, Any] = getattr(parser, "typed", {})
        self._refuse_nulls(parser)
        if command is not None:
            check_numbers(self.config[command], command)
            refuse_empty(self.config[command])

    def _refuse_nulls(self, parser: LightningArgumentParser) -> None:
        """Validate nulls too, which jsonargparse treats as values that are not given."""
        config = self.config.clone()
        for target in self.links.values():  # computed later
            config.pop(f"{config.subcommand}.{target}", None)
        set_parsing_settings(unset_sentinel=True)
        try:
            parser.validate(config)
        except TypeError as error:
            raise ArgumentError(None, str(error)) from error
        finally:
            set_parsing_settings(unset_sentinel=False)

    def merge_checkpoint_hyperparameters(self) -> None:
        """Do nothing: the command line wins over the checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Dump the config once; Lightning's own dump, of the same values, would validate all of them again.

        The run keeps it as it was typed; model and data keep their resolved arguments, without secrets.
        """
        assert self.subcommand is not None
        parser = self.subcommand_parser(self.subcommand)
        config = self.config[self.subcommand].clone()
        for key in ("config", "run", "branch_from", arguments.TRUST):
            config.pop(key, None)
        # with the nulls, which are not always the defaults
        dumped = parser.dump(config, skip_validation=True, skip_unset=False, format="yaml")
        plain = parse_yaml(dumped, "The config")
        check_keys(plain)
        note_typed(plain)
        self.plain_config: dict[str, Any] = as_typed(plain, self._typed)
        # to which Lightning adds what the links compute
        self.config_dump = copy.deepcopy(without_secrets(plain, self._typed))
        ckpt_path = config.get("ckpt_path")
        if self.subcommand == "fit" and ckpt_path:
            _check_seeds(self.config_dump, checkpoint_facts(ckpt_path).get("config", {}))

    def instantiate_classes(self) -> None:
        """Build trainer, model and data, of a checkpoint of others nothing that its weights cannot fill."""
        with self.sized_as_checkpoint():
            super().instantiate_classes()

    def sized_as_checkpoint(self) -> AbstractContextManager[None]:
        """Return a context in which no model is built that the weights of the given checkpoint cannot fill."""
        config = self.config[self.subcommand]
        for argument in ("ckpt_path", "branch_from"):
            if path := config.get(argument):
                return sized_as(checkpoint_facts(path, f"--{argument}"), path, f"--{argument}")
        return nullcontext()

    def seed(self) -> None:
        """Seed the generators and the parts without a seed of their own; a seed that is drawn is kept in the config.

        Raises:
            UserError: If the seed is out of range, or is to be drawn by several processes that cannot agree on it.
        """
        config = self.config[self.subcommand]
        seed = config["seed_everything"]
        if seed is False:
            forget_run_seed()
        elif seed is True:
            if is_launched_from_outside():
                raise UserError(
                    "--seed_everything is true, which draws a seed, but several processes were started that must agree "
                    "on it; give a number."
                )
            config["seed_everything"] = drawn_seed(agreed=is_further_rank())
        else:
            checked_seed("--seed_everything", seed)
        super().seed()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with the run folder, its loggers and the callbacks of every run.

        Raises:
            UserError: If the run folder already holds a run that is not resumed, or a switch or callback of Lightning
                contradicts the run.
            MisconfigurationException: If the trainer refuses its arguments.
        """
        assert self.subcommand is not None
        if self.subcommand == "predict":
            self._need_predictions()
        config = self.config[self.subcommand]
        trainer_config = self.config_init[self.subcommand]["trainer"]
        fit, ckpt_path = self.subcommand == "fit", config.get("ckpt_path")
        branch = config.get("branch_from")
        callbacks = trainer_config["callbacks"] or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        refuse_bases(callbacks)
        if fit:
            refuse_switches(trainer_config, callbacks)
        barebones = trainer_config["barebones"]
        if trainer_config["fast_dev_run"]:
            run_record = RunRecord(self.plain_config)
        else:
            folder = choose_run_folder(self.package, config.get("run"), self.config_files, ckpt_path)
            if fit:
                hold_run_folder(folder)
            name = "config.yaml" if fit else f"config.{self.subcommand}.yaml"
            refuse_foreign_files(folder, f"run{name.removeprefix('config').removesuffix('yaml')}json")
            if fit and not ckpt_path:
                others = [Path(one.dirpath) for one in callbacks if isinstance(one, ModelCheckpoint) and one.dirpath]
                begin_run(folder, config_text(self.plain_config), others)
            if fit and ckpt_path:  # on every rank, since no rank writes before all have started
                for directory in (folder, folder / "checkpoints"):
                    remove_torn_files(directory)
            resumed = checkpoint_facts(ckpt_path) if fit and ckpt_path else {}
            resume_step = int(resumed["global_step"]) if resumed else None
            self.run_folder = folder
            kwargs["default_root_dir"] = str(folder)
            if not barebones:
                kwargs["logger"] = self._loggers(trainer_config["logger"], folder, resume_step)
            former = record.of_run(ckpt_path, resumed) if fit and ckpt_path else None
            run_record = RunRecord(self.plain_config, folder / name, self.config_dump, former, sentence)
        own = [
            ResumeStream(),
            FiniteLoss(),
            GracefulStop(),
            PresentOptimizer(),
            MonitoredKeys(),
            UnmovedWeights(),
            *([BranchFrom(branch)] if branch else []),
            run_record,
            RunAnswer(self.answer),
        ]
        kinds = {type(callback) for callback in callbacks}
        callbacks = [*[callback for callback in own if type(callback) not in kinds], *callbacks]
        screen = (("enable_progress_bar", ProgressBar, RunProgress), ("enable_model_summary", ModelSummary, RunSummary))
        for switch, kind, ours in screen:
            is_wanted = not barebones and trainer_config[switch] is not False
            if is_wanted and not any(isinstance(callback, kind) for callback in callbacks):
                callbacks.append(ours())
        saves = fit and trainer_config["enable_checkpointing"] is not False
        saves = saves and not (barebones or trainer_config["fast_dev_run"])
        if saves and not any(isinstance(callback, RunCheckpoint) for callback in callbacks):
            callbacks.append(RunCheckpoint())
        plugins = trainer_config["plugins"] or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        kwargs["callbacks"] = callbacks
        try:
            return self.build_trainer({**trainer_config, **kwargs})
        except (TypeError, ValueError, ModuleNotFoundError) as error:
            raise MisconfigurationException(str(error)) from error

    def _need_predictions(self) -> None:
        """Refuse data without anything to predict, before anything is written."""
        data, model = (type(part).predict_dataloader for part in (self.datamodule, self.model))
        if data is LightningDataModule.predict_dataloader and model is LightningModule.predict_dataloader:
            raise UserError(
                f"predict has nothing to predict: {type(self.datamodule).__name__} has no `predict_dataloader`; use "
                "test, or data that have one."
            )

    def _loggers(self, given: Any, folder: Path, resume_step: int | None) -> list[Logger] | bool:
        """Return the loggers of the run folder with those that the user names; none if that is false."""
        if given is False:
            rank_zero_info(
                "`trainer.logger` is false: nothing is logged, so there is no metrics.csv, nothing in TensorBoard, and "
                "no picture or text of a callback."
            )
            return False
        named = [] if given in (None, True) else [given] if isinstance(given, Logger) else list(given)
        return [*run_loggers(folder, resume_step), *named]

    def run_subcommand(self, subcommand: str) -> None:
        """Run the command; if the checkpoint does not fit the model, name the first weight that differs.

        Raises:
            MisconfigurationException: If a callback monitors a key that the run does not log.
        """
        ckpt_path = self.config[subcommand].get("ckpt_path")
        load = type(self.trainer.strategy).load_checkpoint
        if ckpt_path and load is not Strategy.load_checkpoint and not load.__module__.startswith(OWN):
            refuse_folder(ckpt_path, "--ckpt_path")  # of which such a strategy would unpickle a part
        try:
            super().run_subcommand(subcommand)
        except RuntimeError as error:
            if ckpt_path and "loading state_dict" in str(error):
                check_weights(self.model, read_checkpoint_file(ckpt_path)["state_dict"], ckpt_path, "--ckpt_path")
            if "conditioned on metric" in str(error):  # of EarlyStopping; it lists the keys that there are
                raise MisconfigurationException(str(error)) from error
            self._refuse_unrestored(error)
            raise
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError) as error:
            self._refuse_unrestored(error)
            raise

    def _refuse_unrestored(self, error: Exception) -> None:
        """Refuse the checkpoint if an error that is not ours shows that its state cannot be restored."""
        ours = isinstance(error, UserError | RunFailure | MisconfigurationException | torch.OutOfMemoryError)
        if is_of_restoring(error) and not ours:
            reason = f"{type(error).__name__}: {reason_of(error, 120)}".rstrip(".: ")
            raise UserError(
                f"--ckpt_path is {self.config[self.subcommand]['ckpt_path']}, whose state of the run cannot be "
                f"restored ({reason}); give another checkpoint."
            ) from error

    def answer(self) -> list[str]:
        """Return the lines that are shown after ``validate`` and ``test``: a row per source, a column per metric."""
        return score_table({key: float(value) for key, value in self.trainer.callback_metrics.items()})

    def before_validate(self) -> None:
        """Log at the last step that the checkpoint was trained on."""
        self._log_at_checkpoint_step()

    def before_test(self) -> None:
        """Log at the last step that the checkpoint was trained on."""
        self._log_at_checkpoint_step()

    def _log_at_checkpoint_step(self) -> None:
        ckpt_path = self.config[self.subcommand].get("ckpt_path")
        if not ckpt_path:
            rank_zero_warn("No --ckpt_path is given: the model is evaluated with its initial weights.")
        else:
            steps = int(checkpoint_facts(ckpt_path)["global_step"])
            # fit logs a validation after `steps` steps there too; a later resume cuts rows logged at `steps` or later
            set_logged_step(self.trainer, max(steps - 1, 0))


def _check_seeds(config: dict[str, Any], former: dict[str, Any]) -> None:
    """Check that a resume has the seeds of the run, which have already had their effect on weights and order.

    Args:
        config: The config of the resume, resolved.
        former: That of the checkpoint, as typed.

    Raises:
        UserError: If a seed of the run, of the model or of the data differs.
    """
    now = seeds_of(config)
    for key, seed in seeds_of(without_environment(former)).items():
        if key.startswith(("seed_everything", "model.", "data.")) and now.get(key, seed) != seed:
            raise UserError(
                f"`{key}` is {now[key]}, but the run began with {seed}, which a resume can't change; leave it out, or "
                "start a new run with --branch_from."
            )
