import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from small_cli import SmallModel, main

from lit_core.cli import LitCLI, run
from lit_core.cli.arguments import OWN_KEYS, TRUST
from lit_core.cli.messages import is_user_error, sentence
from lit_core.cli.scores import score_table
from lit_core.cli.verb import LIGHTNING
from lit_core.files.paths import locked_folder

FIT = [
    "fit",
    "--model",
    "SmallModel",
    "--data",
    "SmallData",
    "--trainer.max_steps",
    "4",
    "--trainer.accelerator",
    "cpu",
]
FIT += [
    "--trainer.log_every_n_steps",
    "1",
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.val_check_interval",
    "2",
]
FIT += ["--trainer.limit_val_batches", "2", "--trainer.enable_model_summary", "false"]
LAST = "runs/small/first/checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def first_run():
    assert main([*FIT, "--run", "first", "--model.shape.width", "5"]) == 0


def rows(run="first"):
    with open(f"runs/small/{run}/metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def listing():
    return {str(path): path.stat().st_size for path in Path(".").rglob("*")}


def test_a_run_leaves_its_config_metrics_events_and_checkpoint(first_run, capsys):
    folder = Path("runs/small/first")
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["shape"] == {"width": 5}
    assert [row["step"] for row in rows() if row["train/loss"]] == ["0", "1", "2", "3"]
    assert [row["step"] for row in rows() if row["val/loss"]] == ["1", "3"]
    assert list(folder.glob("events.out.tfevents.*")) and Path(LAST).exists()
    assert not list(folder.rglob("version_*"))


def test_closing_lines_name_the_folder_and_the_next_commands(capsys):
    main([*FIT, "--run", "first"])
    out = capsys.readouterr().out
    assert "Run folder   runs/small/first" in out
    assert f"lit-small test --ckpt_path {LAST}" in out
    assert f"lit-small fit --ckpt_path {LAST} --trainer.max_steps STEPS" in out
    assert "tensorboard --logdir runs/small/first" in out
    assert "💡" not in out


def test_the_default_name_is_the_configs_stem_and_a_number(capsys):
    Path("tiny.yaml").write_text("model: {class_path: SmallModel}\ndata: {class_path: SmallData}\n")
    args = ["fit", "--config", "tiny.yaml", "--trainer.max_steps", "1", "--trainer.enable_progress_bar", "false"]
    assert main(args) == 0 and main(args) == 0
    assert sorted(path.name for path in Path("runs/small").iterdir()) == ["tiny-1", "tiny-2"]


def test_precedence_defaults_checkpoint_config_flags(first_run):
    """What the user types wins: class defaults < checkpoint < config files < flags."""
    Path("x.yaml").write_text("model: {class_path: SmallModel, init_args: {shape: {width: 6}}}\n")

    def tested_width(*extra):
        assert main(["test", "--ckpt_path", LAST, "--trainer.enable_progress_bar", "false", *extra]) == 0
        return [row["test/width"] for row in rows() if row["test/width"]][-1]

    assert tested_width() == "5"
    assert tested_width("--config", "x.yaml") == "6"
    assert tested_width("--config", "x.yaml", "--model.shape.width", "7") == "7"
    # at the last step that the checkpoint was trained on, in its run's folder
    assert [row["step"] for row in rows() if row["test/width"]] == ["3"]


@pytest.mark.parametrize("command", [*LitCLI.subcommands(), "count"])
@pytest.mark.parametrize("config", [["--config", "x.yaml"], ["--config=x.yaml"]], ids=["two", "one"])
def test_a_flag_wins_over_a_config_on_either_side(command, config, capsys):
    Path("x.yaml").write_text("start: 6\nname: y\n" if command == "count" else "data: {init_args: {size: 6}}\n")
    flags = ["--start", "7"] if command == "count" else [*FIT[1:5], "--data.size", "7"]
    for args in ([*config, *flags], [*flags, *config]):
        assert main([command, *args, "--print_config"]) == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        counted = {"start": 7, "name": "y", "trust": None}
        assert printed == counted if command == "count" else printed["data"]["init_args"]["size"] == 7


def test_a_checkpoint_is_resumed_with_the_runs_own_config_on_either_side(first_run):
    own = ["--config", "runs/small/first/config.yaml"]
    for steps, args in (("5", ["--ckpt_path", LAST, *own]), ("6", [*own, "--ckpt_path", LAST])):
        assert main(["fit", *args, "--trainer.max_steps", steps]) == 0
    assert [path.name for path in Path("runs/small").iterdir()] == ["first"]
    assert [row["step"] for row in rows() if row["train/loss"]] == [str(step) for step in range(6)]


@pytest.mark.parametrize("more", [["--ckpt_path", LAST], ["--run", "first"], ["--run", "new"]], ids=" ".join)
def test_a_run_is_trained_by_one_process(first_run, more, capsys):
    folder = Path("runs/small") / ("new" if "new" in more else "first")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    args = [*(FIT if "--run" in more else ["fit"]), *more, "--trainer.max_steps", "5"]
    capsys.readouterr()
    with locked_folder(folder / "checkpoints", "busy"):
        assert main(args) == 2
        busy = f"{folder} is being trained by another process; wait for it. It is process {os.getpid()}."
        assert capsys.readouterr().err == f"lit-small: {busy}\n"
        assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before
        assert main(["test", "--ckpt_path", LAST]) == 0  # evaluations go on
    assert main(args) == (2 if "first" in more else 0)


def test_a_resume_goes_on_in_the_same_folder(first_run):
    before = rows()
    assert main(["fit", "--ckpt_path", LAST, "--trainer.max_steps", "6"]) == 0
    assert rows()[: len(before)] == before
    assert [row["step"] for row in rows() if row["train/loss"]] == [str(step) for step in range(6)]
    assert [path.name for path in Path("runs/small").iterdir()] == ["first"]


def test_a_resume_keeps_what_was_tested_and_removes_what_a_kill_left(first_run):
    assert main(["test", "--ckpt_path", LAST, "--trainer.enable_progress_bar", "false"]) == 0
    torn = [
        Path("runs/small/first/.metrics.csv.x1.litshift.tmp"),
        Path("runs/small/first/checkpoints/.last.ckpt.x1.litshift.tmp"),
    ]
    for path in torn:
        path.write_text("torn")
    assert main(["fit", "--ckpt_path", LAST, "--trainer.max_steps", "6"]) == 0
    assert [row["step"] for row in rows() if row["test/width"]] == ["3"]
    assert not any(path.exists() for path in torn)


def test_a_branch_takes_weights_and_moments_and_starts_at_step_0(first_run):
    args = [arg for arg in FIT if arg not in ("--model", "SmallModel")]
    args[args.index("4")] = "1"
    assert main([*args, "--branch_from", LAST, "--run", "branch"]) == 0
    config = yaml.safe_load(Path("runs/small/branch/config.yaml").read_text())
    assert config["model"]["init_args"]["shape"]["width"] == 5
    assert torch.load("runs/small/branch/checkpoints/last.ckpt", weights_only=True)["global_step"] == 1


def test_callbacks_plus_appends_and_interpolation_sees_flags():
    Path("a.yaml").write_text(
        "model: {class_path: SmallModel, init_args: {shape: {width: '${data.init_args.size}'}}}\n"
        "data: {class_path: SmallData, init_args: {size: 8}}\n"
        "trainer: {max_steps: 1, callbacks: [{class_path: lightning.pytorch.callbacks.LearningRateMonitor}]}\n"
    )
    Path("b.yaml").write_text("trainer:\n  callbacks+:\n  - class_path: lightning.pytorch.callbacks.ModelSummary\n")
    assert main(["fit", "--config", "a.yaml", "--config", "b.yaml", "--data.init_args.size", "9", "--run", "x"]) == 0
    config = yaml.safe_load(Path("runs/small/x/config.yaml").read_text())
    names = [callback["class_path"].rsplit(".", 1)[-1] for callback in config["trainer"]["callbacks"]]
    assert names == ["LearningRateMonitor", "ModelSummary"]
    assert config["model"]["init_args"]["shape"]["width"] == "${data.init_args.size}"
    assert main(["test", "--ckpt_path", "runs/small/x/checkpoints/last.ckpt"]) == 0
    assert rows("x")[-1]["test/width"] == "9"


@pytest.mark.parametrize(
    "given",
    [
        ["--trainer.callbacks", "lit_moe.callbacks.replay_mixing.ReplayMixing", "--trainer.callbacks.fraction", "0.5"],
        ["--trainer.callbacks=lit_moe.callbacks.replay_mixing.ReplayMixing", "--trainer.callbacks.fraction=0.5"],
        [
            "--trainer.callbacks",
            "{class_path: lit_moe.callbacks.replay_mixing.ReplayMixing, init_args: {fraction: 0.5}}",
        ],
        ["--config", "former.yaml"],
    ],
    ids=["flag", "flag=", "yaml", "config"],
)
def test_a_former_class_path_leads_to_the_present_class(given, capsys):
    part = {"class_path": "lit_moe.callbacks.replay_mixing.ReplayMixing", "init_args": {"fraction": 0.5}}
    Path("former.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [part]}}))
    assert main([*FIT, *given, "--print_config"]) == 0
    callbacks = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    callback = callbacks[0] if isinstance(callbacks, list) else callbacks
    assert callback["class_path"].startswith("lit_core.callbacks.") and callback["init_args"] == {"fraction": 0.5}


@pytest.mark.parametrize("appended", ["file", "flag"])
def test_a_repeated_command_resumes_with_what_it_appends_once(capsys, appended):
    Path("b.yaml").write_text("trainer:\n  callbacks+:\n  - class_path: lightning.pytorch.callbacks.ModelSummary\n")
    more = ["--config", "b.yaml"] if appended == "file" else ["--trainer.callbacks+=ModelSummary"]
    assert main([*FIT, *more, "--trainer.callbacks+=LearningRateMonitor", "--run", "first"]) == 0
    capsys.readouterr()
    assert main([*FIT, *more, "--ckpt_path", LAST, "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    names = [callback["class_path"].rsplit(".", 1)[-1] for callback in config["trainer"]["callbacks"]]
    assert sorted(names) == ["LearningRateMonitor", "ModelSummary"]


class Interrupted(SmallModel):
    """Ctrl-C in a test: Lightning makes a SystemExit of it."""

    def test_step(self, batch, batch_idx):
        raise KeyboardInterrupt


def test_ctrl_c_in_a_test_ends_with_130(first_run, capsys):
    assert main(["test", "--ckpt_path", LAST, "--model", "test_cli.Interrupted"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_verb_runs_with_flags_config_and_print_config(capsys):
    Path("count.yaml").write_text("start: 5\n")
    assert main(["count", "--config", "count.yaml", "--name", "y"]) == 0
    assert "counted 5 y" in capsys.readouterr().out
    assert main(["count", "--print_config"]) == 0
    assert "start: 1" in capsys.readouterr().out


def test_a_nan_loss_ends_with_1_and_keeps_the_last_checkpoint(first_run, capsys):
    former = torch.load(LAST, weights_only=True)
    code = main(["fit", "--ckpt_path", LAST, "--trainer.max_steps", "9", "--model.init_args.nan_at", "6"])
    assert code == 1
    error = capsys.readouterr().err
    assert "The loss became nan at step 6" in error and f"--ckpt_path {LAST}" in error and "Traceback" not in error
    assert torch.load(LAST, weights_only=True)["global_step"] == former["global_step"]


BASE = FIT[:5]
BAD = [
    (["fitt"], 'Did you mean "fit"?'),
    ([*BASE, "--trainer.max_stepz", "3"], 'trainer.max_stepz is not an argument. Did you mean "max_steps"?'),
    ([*BASE, "--model.slepe", "3"], 'model.slepe is not an argument. Did you mean "sleep"?'),
    ([*BASE, "--model.shape.widht", "3"], "model.shape.widht is not an argument."),
    ([*BASE, "--model.shape.width", "abc"], "model.shape.width is abc, but must be of type int"),
    ([*BASE, "--model.shape.width", "900"], "`width` is 900, but must be at most 100; lower it."),
    ([*BASE, "--data.size", "-1"], "`size` is -1, but must be 0 or more; raise it."),
    ([*BASE, "--model.part", "Part", "--model.part.tolerancy", "1"], "model.part.tolerancy is not an argument."),
    # near to one of another class, which does not help
    ([*BASE, "--model.part", "Part", "--model.part.seep", "1"], "model.part.seep is not an argument. Those of Part"),
    (
        ["fit", "--model", "SmalModel", "--data", "SmallData"],
        'SmalModel is not the name of a known class. Did you mean "SmallModel"?',
    ),
    (
        [*BASE, "--trainer.callbacks+=__main__.Own"],
        "__main__.Own cannot be imported, since it was defined in a script or notebook; move it into a module.",
    ),
    (
        [*BASE, "--trainer.callbacks+=nowhere.Own"],
        "nowhere.Own cannot be imported, since there is no module nowhere; add its folder to PYTHONPATH.",
    ),
    (
        [*BASE, "--trainer.callbacks+=torn_module.Own"],
        "torn_module.Own cannot be imported (ModuleNotFoundError",
    ),
    (["fit", "--config", "nope.yaml"], "--config is nope.yaml, but there is no such file"),
    (["fit", "--config", "broken.yaml"], "--config broken.yaml is not valid YAML"),
    (["fit", "--config", "unknown.yaml"], "trainr"),
    (["test", "--ckpt_path", "nope.ckpt"], "--ckpt_path is nope.ckpt, but there is no such file"),
    (["test", "--ckpt_path", "torn.ckpt"], "--ckpt_path is torn.ckpt, which cannot be read as a checkpoint"),
    (["test", "--ckpt_path", "~nobody_has_this_name/x.ckpt"], "no such file"),
    (["test", "--ckpt_path", f"{'x' * 300}.ckpt"], "of which a part has 305 bytes"),
    (["fit", "--config", "~nobody_has_this_name/x.yaml"], "--config"),
    (["test", "--branch_from", "x"], "--branch_from starts a training run"),
    ([*BASE, "--run", "a/b"], "--run is a/b"),
    (["count", "--start", "x"], "start is x, but must be of type int"),
]


def test_a_callback_that_refuses_a_value_is_named_by_its_place(capsys):
    callbacks = [{"class_path": "lit_core.callbacks.GracefulStop"}]
    callbacks += [{"class_path": "lit_core.callbacks.ReplayMixing", "init_args": {"fraction": 2.0}}]
    assert main([*BASE, f"--trainer.callbacks={json.dumps(callbacks)}"]) == 2
    assert "lit-small: trainer.callbacks.1: " in capsys.readouterr().err


PLACES = ["trainer.", "data.init_args.", "model.init_args.shape.", "trainer.callbacks.init_args."]


@pytest.mark.parametrize(("command", "place"), [*product(LIGHTNING, [""]), *product(["fit"], PLACES)])
def test_an_empty_mapping_under_a_mistyped_key_is_refused_as_others(command, place, tmp_path, capsys):
    config = {"modell": {}}
    for key in reversed(place.split(".")[:-1]):
        classes = {"data": "SmallData", "model": "SmallModel", "callbacks": "lit_core.callbacks.GracefulStop"}
        config = {key: {"class_path": classes[key], **config} if key in classes else config}
    (tmp_path / "mistyped.yaml").write_text(yaml.safe_dump(config))
    assert main([command, "--config", str(tmp_path / "mistyped.yaml")]) == 2
    assert f"{place.replace('init_args.', '')}modell is not an argument." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("model", "model has a key besides class_path and init_args; correct or remove it."),
        ("trainer.logger", "trainer.logger: No class of Logger is named; give its import path as class_path"),
    ],
)
def test_a_mistyped_init_args_is_told(where, text, tmp_path, capsys):
    part = {"class_path": {"model": "SmallModel"}.get(where, "CSVLogger"), "init_argss": {}}
    for key in reversed(where.split(".")):
        part = {key: part}
    (tmp_path / "mistyped.yaml").write_text(yaml.safe_dump(part))
    assert main(["fit", "--config", str(tmp_path / "mistyped.yaml")]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(args[-2:]) for args, _ in BAD])
def test_bad_input_is_one_sentence_exit_2_and_leaves_nothing(args, message, capsys, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("torn_module.py").write_text("import no_such_module\n")
    Path("torn.ckpt").write_bytes(b"PK\x03\x04torn")
    Path("broken.yaml").write_text("model: [\n")
    Path("unknown.yaml").write_text("trainr: {max_steps: 3}\n")
    before = listing()
    assert main(args) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-small:")]
    assert len(error) == 1 and message in error[0], error
    assert listing() == before


PLACES = ["", "/", ".", "x" * 300, "new/" + "x" * 300]
MISFITS = {
    **dict.fromkeys((key for key in OWN_KEYS if key != TRUST), PLACES),
    "seed_everything": ["-1", str(2**32), str(10**30)],
}


@pytest.mark.parametrize("command", LitCLI.subcommands())
@pytest.mark.parametrize("key", MISFITS)
def test_a_place_that_cannot_be_or_a_seed_out_of_range_is_a_mistake(command, key, capsys):
    for value in MISFITS[key]:
        if key == "branch_from" and command != "fit":
            continue
        args = [command, *FIT[1:], f"--{key}", value]
        assert main(args) == 2, value
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-small:")]
        assert len(error) == 1 and key in error[0], (value, error)
        assert not re.search(r"\b[A-Z]\w+(Error|Exception)\b|Errno", error[0]), error
        assert listing() == {}


@pytest.mark.parametrize("told", [[b"/full/events"], []])
def test_a_thread_that_fails_is_one_sentence_that_names_the_file(told, monkeypatch, capsys):
    def fail(filename="/full/events"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *told)

    def verb():
        """Start a thread, as the writer of TensorBoard's events does."""
        thread = threading.Thread(target=fail, name="writer")
        thread.start()
        thread.join()

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # which the command replaces
    assert run("lit-small", None, {"verb": verb}, ["verb"]) == 0
    said = "lit-small: the thread writer ended. The disk is full: /full/events could not be written; free some space"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.EMFILE, errno.ESTALE])
@pytest.mark.parametrize("place", ["/data/x", b"/data/x"])
def test_a_fault_of_a_file_names_it(number, place):
    said = sentence(OSError(number, os.strerror(number), place))
    assert said == f"/data/x cannot be used ({os.strerror(number)}); see to it and repeat."


def test_a_home_of_nobody_is_the_mistake_of_who_typed_it():
    with pytest.raises(RuntimeError) as raised:
        Path("~nobody_has_this_name/x.csv").expanduser()
    assert is_user_error(raised.value)
    assert sentence(raised.value).startswith("A path begins with ~ and the name of no user")
    assert not is_user_error(RuntimeError("Something else."))


def test_an_existing_run_is_not_overwritten(first_run, capsys):
    before = listing()
    assert main([*FIT, "--run", "first"]) == 2
    assert f"holds a run already; resume it with --ckpt_path {LAST}, choose" in capsys.readouterr().err
    assert listing() == before


def test_a_run_that_was_killed_before_it_saved_anything_begins_anew_with_the_same_config_only(capsys):
    command = [*FIT, "--run", "first", "--trainer.enable_checkpointing", "false"]
    folder = Path("runs/small/first")
    assert main(command) == 0
    expected, record = (folder / "metrics.csv").read_text(), json.loads((folder / "run.json").read_text())
    assert main(command) == 2  # a run that came to its end
    record["sessions"][-1] |= {"end": None, "exit": None}
    (folder / "run.json").write_text(json.dumps(record))
    assert main([*command, "--trainer.max_steps", "3"]) == 2  # another run
    said = capsys.readouterr().err
    assert said.count("holds a run already; choose another name") == 2
    (folder / "metrics.csv").write_text(expected[: len(expected) // 2])
    assert main(command) == 0
    assert (folder / "metrics.csv").read_text() == expected and len(list(folder.glob("events.*"))) == 1


def test_a_command_that_fails_leaves_what_others_write_meanwhile(first_run, monkeypatch, capsys):
    def fail(self, *arguments):
        Path("runs/small/first/checkpoints/step=9.ckpt").write_text("of a fit that goes on")
        Path("thesis.tex").write_text("of somebody else")
        raise RuntimeError("no memory")

    Path("checkpoints").mkdir()
    Path("checkpoints/model.ckpt").write_bytes(Path(LAST).read_bytes())
    monkeypatch.setattr(SmallModel, "test_step", fail)
    for path in (LAST, "checkpoints/model.ckpt"):
        before = listing()
        assert main(["test", "--ckpt_path", path, "--trainer.enable_progress_bar", "false"]) == 1
        others = {"runs/small/first/checkpoints/step=9.ckpt", "thesis.tex"}
        assert listing().keys() == before.keys() | others
        for name in others:
            Path(name).unlink()


def test_a_run_with_a_checkpoint_callback_of_the_users_saves_its_last_step_too(capsys):
    kept = "lightning.pytorch.callbacks.ModelCheckpoint"
    monitor = ["--trainer.callbacks.monitor", "val/loss", "--trainer.callbacks.save_last", "true"]
    assert main([*FIT, "--run", "first", f"--trainer.callbacks={kept}", *monitor]) == 0
    assert torch.load(LAST, weights_only=True)["global_step"] == 4


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_at_the_next_step_and_says_how_to_go_on(signum, code):
    args = [*FIT, "--run", "first", "--model.init_args.sleep", "0.1"]
    args[args.index("4")] = "1000"
    script = "import sys; from small_cli import SmallModel, main; sys.exit(main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *args], stderr=subprocess.PIPE, text=True, env=environment
    )
    metrics = Path("runs/small/first/metrics.csv")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        time.sleep(0.05)
    process.send_signal(signum)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert f"resume with: lit-small fit --ckpt_path {LAST}" in error
    step = torch.load(LAST, weights_only=True)["global_step"]
    assert step >= 3
    assert main(["fit", "--ckpt_path", LAST, "--model.init_args.sleep", "0", "--trainer.max_steps", str(step + 2)]) == 0
    assert [row["step"] for row in rows() if row["train/loss"]] == [str(step) for step in range(step + 2)]


def test_what_a_test_found_is_a_line_per_source():
    table = score_table(
        {"test/a/loss": 1.5, "test/b/loss": 22.25, "test/b/auroc": 0.5, "test/b/router/mri": 9.0, "x": 1.0}
    )
    assert [line.split() for line in table] == [
        ["test", "auroc", "loss"],
        ["a", "-", "1.5"],
        ["b", "0.5", "22.25"],
    ]
    assert score_table({"x": 1.0}) == []
