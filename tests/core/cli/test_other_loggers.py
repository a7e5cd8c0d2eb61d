"""A logger that the user names is added to those of the run, and gets the config, the metrics and the pictures."""

from pathlib import Path

import other_loggers
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CometLogger, MLFlowLogger
from small_cli import main

from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lightning.pictures import add_images, add_text, can_draw
from lit_valuation.callbacks import GradientMatching

FIT = "fit --model SmallModel --data SmallData --trainer.max_steps 2 --trainer.limit_val_batches 1".split()
FIT += ["--trainer.val_check_interval", "2"]
FIT += "--trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.enable_model_summary false".split()
FIT += "--trainer.log_every_n_steps 1 --run first".split()
LAST = "runs/small/first/checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(other_loggers.Remembering, "made", [])
    monkeypatch.setenv("TOKEN", "tr0ub4dor-and-3")


def made():
    return other_loggers.Remembering.made


def folder_is_whole():
    files = {path.name.partition(".")[0] for path in Path("runs/small/first").iterdir()}
    return files >= {"metrics", "events", "hparams", "config", "checkpoints"}


ONE = "other_loggers.Remembering"
GIVEN = {
    "a flag": ["--trainer.logger", ONE],
    "an appending flag": [f"--trainer.logger+={ONE}"],
    "a config": {"logger": {"class_path": ONE}},
    "a list": {"logger": [{"class_path": ONE}]},
    "an appending list": {"logger+": [{"class_path": ONE}]},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_a_named_logger_is_added(given, capsys):
    if isinstance(given, dict):
        Path("named.yaml").write_text(yaml.safe_dump({"trainer": given}))
        given = ["--config", "named.yaml"]
    assert main([*FIT, *given]) == 0
    (logger,) = made()
    assert folder_is_whole()
    assert [step for step, row in logger.rows if "train/loss" in row] == [0, 1]
    assert any("val/loss" in row for _, row in logger.rows)
    (config,) = logger.hyperparameters
    assert config["trainer"]["max_steps"] == 2 and config["model"]["class_path"] == "small_cli.SmallModel"
    out = capsys.readouterr().out
    assert "tensorboard --logdir runs/small/first" in out and "Logged too   Remembering" in out
    assert main(["fit", "--ckpt_path", LAST, "--trainer.max_steps", "3", *given]) == 0  # typed again: once all the same
    assert len(made()) == 2 and [step for step, row in made()[1].rows if "train/loss" in row] == [2]
    assert yaml.safe_load(Path("runs/small/first/hparams.yaml").read_text())["trainer"]["max_steps"] == 3
    assert main(["test", "--ckpt_path", LAST, *given]) == 0
    assert made()[2].hyperparameters[0]["seed_everything"] == 0 and "test/width" in made()[2].rows[0][1]


def test_lightnings_own_loggers_write_beside_ours(capsys):
    Path("named.yaml").write_text(
        "trainer:\n  logger:\n"
        "  - {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: theirs}}\n"
        "  - {class_path: lightning.pytorch.loggers.TensorBoardLogger, init_args: {save_dir: theirs}}\n"
    )
    assert main([*FIT, "--config", "named.yaml"]) == 0 and folder_is_whole()
    theirs = {path.name.partition(".")[0] for path in Path("theirs").rglob("*") if path.is_file()}
    assert theirs == {"metrics", "hparams", "events"}
    for path in Path("theirs").rglob("hparams.yaml"):
        assert yaml.safe_load(path.read_text())["trainer"]["max_steps"] == 2
    assert "Logged too   CSVLogger in theirs" in capsys.readouterr().out


def test_false_switches_all_off_and_says_so(capsys, monkeypatch):
    said = []
    monkeypatch.setattr("lit_core.cli.lit_cli.rank_zero_info", said.append)
    assert main([*FIT, "--trainer.logger", "false"]) == 0
    assert {path.name for path in Path("runs/small/first").iterdir()} == {"checkpoints", "config.yaml", "run.json"}
    (line,) = said
    assert line.startswith("`trainer.logger` is false: nothing is logged") and "metrics.csv" in line
    assert "tensorboard" not in capsys.readouterr().out


def test_no_secret_is_among_the_hyperparameters():
    token = "${oc.env:TOKEN}"
    Path("named.yaml").write_text(
        "model: {init_args: {sleep: '${trainer.overfit_batches}'}}\n"
        f"trainer: {{logger: {{class_path: {ONE}, init_args: {{token: '{token}', title: '{token}'}}}}}}\n"
    )
    assert main([*FIT, "--config", "named.yaml"]) == 0
    (logger,) = made()
    assert logger.token == "tr0ub4dor-and-3"
    assert logger.hyperparameters[0]["trainer"]["logger"]["init_args"] == {"token": token, "title": token}
    assert logger.hyperparameters[0]["model"]["init_args"]["sleep"] == 0.0
    kept = [path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()]
    assert not any(b"tr0ub4dor" in content for content in kept)
    assert load_checkpoint_file(LAST)["config"]["trainer"]["logger"]["init_args"]["token"] == token


def test_a_logger_that_refuses_the_hyperparameters_does_not_end_the_run():
    with pytest.warns(UserWarning, match="Refusing did not take the hyperparameters of this run: Changing param"):
        assert main([*FIT, "--trainer.logger", "other_loggers.Refusing"]) == 0


def trainer_with(logger):
    return Trainer(accelerator="cpu", logger=logger, enable_progress_bar=False, enable_model_summary=False)


PIXELS = (torch.rand(3, 4, 5, 3) * 255).byte().numpy()


def test_a_logger_that_shows_images_and_texts_gets_them():
    showing, plain = other_loggers.Showing(), other_loggers.Remembering()
    trainer = trainer_with([showing, plain])
    assert can_draw(trainer) and not can_draw(trainer_with(plain))
    add_images(trainer, "a/b", list(PIXELS), 7)
    add_text(trainer, "c", "one\ntwo", 8)
    assert showing.shown == [("a/b", [(4, 5, 3)] * 3, 7), ("c", [["one\ntwo"]], 8)]
    assert plain.rows == []


class Client:
    """The methods of the clients of MLflow and Comet that are used."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args[:-1] if args else (), args[-1:], kwargs))


@pytest.mark.parametrize("kind", [MLFlowLogger, CometLogger])
def test_the_services_of_lightnings_loggers_get_images_and_texts(kind, monkeypatch):
    client = Client()
    logger = kind.__new__(kind)
    monkeypatch.setattr(kind, "experiment", client)
    monkeypatch.setattr(kind, "run_id", "9", raising=False)
    trainer = trainer_with(False)
    trainer.loggers = [logger]
    add_images(trainer, "a/b", list(PIXELS[:1]), 7)
    add_text(trainer, "c", "text", 8)
    image, text = client.calls
    assert (image[0], text[0]) == ("log_image", "log_text")
    if kind is MLFlowLogger:
        assert image[1][0] == text[1][0] == "9"
        assert (image[2], text[1:3]) == (("a/b/step=000007-0.png",), (("9", "text"), ("c/step=000008.txt",)))
    else:
        assert image[3] == {"name": "a/b", "step": 7} and text[3] == {"step": 8, "metadata": {"key": "c"}}


def test_chosen_samples_are_shown_by_each_logger_that_can():
    from torch.utils.data import DataLoader

    showing = other_loggers.Showing()
    callback = GradientMatching(show_samples=2)
    x = torch.rand(4, 1, 5, 5)
    rows = [{"x": x[row], "y": row} for row in range(4)]

    class Rows:
        def read(self, numbers):
            return next(iter(DataLoader([rows[number] for number in numbers], batch_size=len(numbers))))

    callback._rows, callback.numbers, callback.weights = Rows(), torch.arange(4), torch.tensor([0.0, 3, 1, 2])
    callback._show(trainer_with(showing))
    assert showing.shown == [("train/selection/samples", [(5, 5, 3)] * 2, 0)]
