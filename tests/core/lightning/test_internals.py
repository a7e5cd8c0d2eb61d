"""The private names in `lit_core.lightning.internals` are pinned, and each function there does what it says."""

import ast
import copy
import inspect
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, cli
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.core.mixins import hparams_mixin
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from lit_core.lightning import internals

#: The version of Lightning that had all of these names: each with the object that it belongs to.
VERSION = "2.6.6"
PINS = {
    "_given_hyperparameters": lambda: hparams_mixin,
    "_given_hyperparameters_context": lambda: hparams_mixin,
    "_parse_ckpt_path": lambda: cli.LightningCLI,
    "_set_seed": lambda: cli.LightningCLI,
    "_run_subcommand": lambda: cli.LightningCLI,
    "_instantiate_trainer": lambda: cli.LightningCLI,
    "_subcommand_parsers": lambda: in_source(cli.LightningCLI),
    "_class_path": lambda: in_source(cli),
    "_instantiator": lambda: in_source(hparams_mixin),
    "_trainer": LightningModule,
    "_batches_that_stepped": lambda: trainer().fit_loop.epoch_loop,
    "_should_accumulate": lambda: trainer().fit_loop,
    "_should_check_val_fx": lambda: trainer().fit_loop.epoch_loop,
    "_logger_connector": lambda: trainer(),
    "_first_loop_iter": lambda: trainer()._logger_connector,
    "_data_fetcher": lambda: trainer().fit_loop,
    "_data_source": lambda: trainer().fit_loop,
    "_combined_loader": lambda: trainer().fit_loop,
    "_last_global_step_saved": ModelCheckpoint,
    "_monitor_candidates": ModelCheckpoint,
    "_save_topk_checkpoint": ModelCheckpoint,
    "_save_last_checkpoint": ModelCheckpoint,
    "_data_parallel_size": ModelParallelStrategy,
    "_check_on_train_epoch_end": lambda: EarlyStopping("train/value"),
    "_layer_sync": lambda: DDPStrategy(),
}


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return Trainer(**quiet | {"enable_model_summary": False} | options)


def in_source(part):
    """Return an object with the private names in a source, of which no object has some before a command runs."""
    return SimpleNamespace(**dict.fromkeys(private_names(inspect.getsource(part))))


def private_names(source):
    """Return the private names in a source: attributes, methods, imports and text constants."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "attr", getattr(node, "name", getattr(node, "value", None)))
        if isinstance(name, str) and name.startswith("_") and name.isidentifier() and not name.startswith("__"):
            names.add(name)
    return names


def test_every_private_name_is_pinned_and_no_other():
    assert private_names(Path(internals.__file__).read_text()) == PINS.keys()


@pytest.mark.parametrize("name", PINS)
def test_lightning_has_the_private_name(name):
    owner = PINS[name]()
    assert hasattr(owner, name), (
        f"Lightning {lightning.__version__} has lost {name}, which Lightning {VERSION} had on {owner!r}. Find what "
        "took its place, and change the function in lit_core/lightning/internals.py that uses it."
    )


class Line(LightningModule):
    def __init__(self, slope=1.0):
        super().__init__()
        self.given = internals.given_by_cli()
        if self.given is not None:
            self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.tensor(slope))

    def training_step(self, batch, batch_idx):
        self.log("train/value", float(self.global_step))
        return (self.weight * batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/value", 1.0)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(4), batch_size=1)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(2), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Calls(Callback):
    """Calls functions in hooks of a run, and keeps what each returns at each call."""

    def __init__(self, **functions):
        self.functions, self.returned = functions, {hook: [] for hook in functions}
        for hook in functions:
            setattr(self, hook, lambda trainer, *args, hook=hook, **named: self.call(hook, trainer))

    def call(self, hook, trainer):
        self.returned[hook].append(self.functions[hook](trainer))


def fit(callback, tmp_path=None, **options):
    logger = {} if tmp_path is None else {"logger": CSVLogger(tmp_path)}
    run = trainer(max_epochs=1, num_sanity_val_steps=0, callbacks=[callback], **logger | options)
    run.fit(Line())
    return run


def test_a_module_knows_what_the_command_line_builds_it_of():
    assert Line().given is None
    options = {"logger": False, "enable_checkpointing": False}
    built = cli.LightningCLI(
        Line,
        run=False,
        subclass_mode_model=True,
        args=[f"--model={Line.__module__}.Line", "--model.slope=2"],
        save_config_callback=None,
        trainer_defaults=options,
    )
    assert built.model.given["slope"] == 2
    notes = {key: built.model.hparams[key] for key in (internals.CLASS_PATH, internals.INSTANTIATOR)}
    assert notes == {
        "_class_path": f"{Line.__module__}.Line",
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }


@pytest.mark.parametrize("owner", [LightningModule, LightningDataModule])
def test_a_checkpoint_is_loaded_without_the_source_of_the_callers(owner, tmp_path, monkeypatch):
    class Own(owner):
        def __init__(self, number=1):
            super().__init__()
            self.number = number

    monkeypatch.setattr(inspect, "stack", lambda: pytest.fail("Lightning's wrapper was called"))
    checkpoint = {"pytorch-lightning_version": VERSION, "state_dict": {}, owner.CHECKPOINT_HYPER_PARAMS_KEY: {}}
    torch.save(checkpoint, tmp_path / "own.ckpt")
    built = internals.unwrapped(Own.load_from_checkpoint)(Own, tmp_path / "own.ckpt", number=2, weights_only=True)
    assert type(built) is Own and built.number == 2


def test_a_module_has_a_trainer_once_it_is_attached():
    module = Line()
    assert internals.trainer_of(module) is None
    module.trainer = run = trainer()
    assert internals.trainer_of(module) is run


def test_the_logged_step_is_that_of_the_loggers_and_can_be_set(tmp_path):
    calls = Calls(on_train_batch_start=internals.logged_step)
    fit(calls)
    assert calls.returned["on_train_batch_start"] == [0, 1, 2, 3]
    calls = Calls(on_train_start=lambda trainer: internals.set_logged_step(trainer, 10))
    run = fit(calls, tmp_path, log_every_n_steps=1)
    run.logger.save()
    rows = Path(run.logger.log_dir, "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows if row.split(",")[2]] == ["10", "11", "12", "13"]


def test_the_steps_that_are_logged_are_known_before_they_are(tmp_path):
    calls = Calls(on_before_optimizer_step=internals.logs_this_step, on_train_batch_end=internals.pending_row)
    fit(calls, tmp_path, log_every_n_steps=2)
    assert calls.returned["on_before_optimizer_step"] == [False, True, False, True]
    assert calls.returned["on_train_batch_end"] == [{}, {"train/value": 1.0}, {}, {"train/value": 3.0}]
    calls = Calls(on_before_optimizer_step=internals.logs_this_step)
    fit(calls, fast_dev_run=2)
    assert calls.returned["on_before_optimizer_step"] == [True, True]


def test_the_batches_after_which_the_optimizer_steps_are_known():
    calls = Calls(on_after_backward=internals.steps_after_batch)
    fit(calls, accumulate_grad_batches=3)
    assert calls.returned["on_after_backward"] == [False, False, True, True]


def test_it_is_known_whether_batch_norms_are_synchronised():
    assert not internals.syncs_batch_norms(trainer(sync_batchnorm=True))
    assert internals.syncs_batch_norms(trainer(sync_batchnorm=True, strategy="ddp"))


def test_it_is_known_when_a_callback_looks():
    for options, after_validation in (({}, False), ({"val_check_interval": 2}, True)):
        stopping = EarlyStopping("train/value")
        fit(stopping, **options)
        assert internals.stops_after_validation(stopping) == after_validation


def test_a_copy_of_a_module_copies_nothing_of_its_command_line():
    line = cli.LightningCLI.__new__(internals.CommandLine)
    assert copy.deepcopy({"line": line})["line"] is line


def test_a_validation_runs_in_the_middle_of_training_and_changes_nothing_of_its_state(tmp_path):
    calls = Calls(
        on_train_epoch_start=internals.run_validation,
        on_validation_end=lambda trainer: trainer.validating,
        on_train_batch_start=lambda trainer: trainer.training,
        on_before_optimizer_step=internals.logs_this_step,
    )
    fit(calls, tmp_path, log_every_n_steps=2)
    assert calls.returned["on_validation_end"] == [True, True]
    assert calls.returned["on_train_batch_start"] == [True] * 4
    assert calls.returned["on_before_optimizer_step"] == [False, True, False, True]


def test_a_validation_before_the_first_step_looks_for_no_key_of_training():
    stopping = EarlyStopping("train/value", check_on_train_epoch_end=False)
    calls = Calls(on_train_start=internals.run_validation)
    run = trainer(max_epochs=1, num_sanity_val_steps=0, callbacks=[calls, stopping])
    run.fit(Line())
    assert stopping.strict and stopping.best_score == 3


def test_a_validation_that_follows_is_announced():
    calls = Calls(on_train_batch_end=internals.validation_follows)
    fit(calls, val_check_interval=2)
    assert calls.returned["on_train_batch_end"] == [False, True, False, True]
    calls = Calls(on_train_batch_end=internals.validation_follows)
    fit(calls, limit_val_batches=0)
    assert not any(calls.returned["on_train_batch_end"])


def test_validation_loaders_are_there_before_the_first_validation():
    calls = Calls(on_train_epoch_start=internals.validation_loaders)
    fit(calls)
    assert [len(loader) for loader in calls.returned["on_train_epoch_start"]] == [2]


def test_another_train_loader_is_read_from_the_next_epoch_on():
    other = torch.utils.data.DataLoader(torch.full((3,), 5.0), batch_size=1)
    calls = Calls(on_train_epoch_start=lambda trainer: internals.replace_train_loader(trainer, other))
    run = fit(calls)
    assert run.global_step == 3 and float(run.lightning_module.weight) == pytest.approx(1 - 3 * 0.1 * 5)


@pytest.mark.parametrize("step_file", [False, True])
def test_a_checkpoint_callback_saves_when_it_is_told_to(tmp_path, step_file):
    own = ModelCheckpoint(tmp_path, filename="{step}", save_last=True, every_n_train_steps=100)
    assert internals.last_saved_step(own) == 0
    save = Calls(on_train_end=lambda trainer: internals.save_files(own, trainer, step_file=step_file))
    trainer(max_epochs=1, enable_checkpointing=True, callbacks=[save, own]).fit(Line())
    assert {file.name for file in tmp_path.glob("*.ckpt")} == {"last.ckpt", *(["step=4.ckpt"] if step_file else [])}
    assert internals.last_saved_step(own) == 4


def test_the_number_of_groups_of_devices_can_be_set():
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2)
    internals.set_data_parallel_size(strategy, 3)
    assert "3" in str(vars(strategy)["_data_parallel_size"])


def test_each_step_of_a_command_line_can_be_replaced(capsys):
    seen = []

    class Steps(internals.CommandLine):
        def merge_checkpoint_hyperparameters(self):
            seen.append("merge")

        def seed(self):
            seen.append("seed")

        def run_subcommand(self, subcommand):
            seen.append(subcommand)

    built = Steps(Line, args=["fit", "--trainer.accelerator=cpu"], save_config_callback=None)
    assert seen == ["merge", "seed", "fit"]
    assert built.subcommand_parser("fit").get_defaults().model.slope == 1.0
    assert built.build_trainer({**built.config_init.fit.trainer, "max_steps": 7, "logger": False}).max_steps == 7
