"""A checkpoint of somebody else runs no code: in no key of it, and in no option of any command that takes a file."""

import copy
import inspect
import json
import re
import shutil
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from fuzzing import LAUGHS
from kinds import exports
from lightning.pytorch import Callback
from lightning.pytorch.strategies import Strategy
from verbs import PACKAGES, own_verbs

from lit_core import trust
from lit_core.cli.lit_cli import LitCLI
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file, read_checkpoint_file
from lit_core.lightning.foreign import LEFT_OUT, _hints, _is_path, vetted
from lit_core.study.identity import identity
from lit_detect import DetectorTask
from lit_detect.loading import load_detector, trained
from lit_moe import MoELanguageModel
from lit_valuation import ClassifierTask

ROOT = Path(__file__).parents[1]
FORMER = ROOT / "tests" / "fixtures" / "before_the_move"
RUNS = {"moe/first": MoELanguageModel, "valuation/first": ClassifierTask, "detect/ensemble": DetectorTask}
SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch ran"}}
IMPORTED = {"class_path": "hostile.Payload", "init_args": {}}
HUB = {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b", "model": "c"}}
CHAIN = {"class_path": "lit_core.record.subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}
PICKLE = {"class_path": "torch.load", "init_args": {"f": "bomb.pt", "weights_only": False}}
PAYLOADS = [SYSTEM, IMPORTED, HUB, CHAIN, PICKLE]


@pytest.fixture
def former(tmp_path, monkeypatch):
    """The working folder of runs that were kept, with a module on the path that tells whether it was imported."""
    shutil.copytree(FORMER, tmp_path, dirs_exist_ok=True)
    shutil.copytree(FORMER / "kept", tmp_path / "runs")
    (tmp_path / "path").mkdir()
    for name in ("hostile", "lit_hostile"):
        (tmp_path / "path" / f"{name}.py").write_text("open('ran', 'w')\nclass Payload:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield
    sys.modules.pop("hostile", None)


def last(run):
    return f"runs/{run}/checkpoints/last.ckpt"


def places(node, path=()):
    """Yield the path of every value in plain data, at any depth."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(checkpoint, path, value):
    """Return a checkpoint with another value at one place."""
    described = {key: copy.deepcopy(checkpoint[key]) for key in trust.DESCRIBING if key in checkpoint}
    at(described, path[:-1])[path[-1]] = copy.deepcopy(value)
    return {**checkpoint, **described}


def at(node, path):
    for key in path:
        node = node[key]
    return node


def described_by(checkpoint):
    return {key: checkpoint[key] for key in trust.DESCRIBING if key in checkpoint}


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload["class_path"])
@pytest.mark.parametrize("run", RUNS)
def test_no_place_takes_an_object_of_others(run, payload, former):
    checkpoint = read_checkpoint_file(last(run))
    assert not vetted(checkpoint, "x.ckpt", "--ckpt_path")[LEFT_OUT]
    walked = list(places(described_by(checkpoint)))
    assert len(walked) > 50
    for path in walked:
        try:
            left = vetted(changed(checkpoint, path, payload), "x.ckpt", "--ckpt_path")
        except UserError as error:
            assert str(error).startswith("--ckpt_path is x.ckpt, which was not written by you; ")
        else:  # then it was left out
            assert payload["class_path"] not in str(described_by(left)), path
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "text", ["hostile.Payload", "os.system", "beside.yaml", "${oc.env:HOME}", "${oc.decode:${oc.env:HOME}}"]
)
@pytest.mark.parametrize("run", RUNS)
def test_a_text_that_names_something_stands_only_where_texts_do(run, text, former):
    checkpoint = read_checkpoint_file(last(run))
    Path("beside.yaml").write_text(yaml.safe_dump(SYSTEM))
    kept = []
    for path in places(described_by(checkpoint)):
        try:
            left = described_by(vetted(changed(checkpoint, path, text), "x.ckpt", "--ckpt_path"))
        except UserError:
            continue
        if text in str(left):
            kept.append(path)
    assert not any("class_path" in str(path[-1]) for path in kept)
    assert text.startswith("$") is not bool(kept)
    # where a class is asked for, the parser would take a name, or read a file
    assert not {path for path in kept if path[-1] in ("model", "data", "trainer", "optimizer", "callbacks", "decoder")}


def disguises(payload):
    """Yield forms from which a parser makes an object again."""
    text = json.dumps(payload)
    yield from (text, f"# x\n{yaml.safe_dump(payload)}", json.dumps(text), f" [{text}]", Counter([text]), {text})
    yield from (Counter([payload["class_path"]]), {payload["class_path"]})


@pytest.mark.parametrize("run", RUNS)
def test_no_place_takes_an_object_of_others_in_disguise(run, former):
    checkpoint = read_checkpoint_file(last(run))
    for path in places(described_by(checkpoint)):
        plain = not isinstance(at(described_by(checkpoint), path), dict | list)
        for disguise in list(disguises(IMPORTED))[: 1 if plain else None]:
            try:
                left = vetted(changed(checkpoint, path, disguise), "x.ckpt", "--ckpt_path")
            except UserError:
                continue
            assert IMPORTED["class_path"] not in str(described_by(left)), (path, disguise)
    assert not Path("ran").exists()


def test_a_text_is_no_file_and_no_reference_in_another_spelling(former, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    Path("beside.yaml").write_text(yaml.safe_dump(SYSTEM))
    checkpoint = read_checkpoint_file(last("moe/first"))
    optimizer, sources = ("hyper_parameters", "optimizer"), ("config", "model", "init_args", "decoder", "d_ff")
    secret = r'{"a": "\x24{oc.env:HOME}"}'
    for path, text in [
        (optimizer, "~/beside.yaml"),
        (optimizer, f"file://{Path.cwd()}/beside.yaml"),
        (sources, secret),
    ]:
        with pytest.raises(UserError, match="which was not written by you"):
            vetted(changed(checkpoint, path, text), "x.ckpt", "--ckpt_path")


@pytest.mark.parametrize("text", [LAUGHS, "[" * 3000, "1" + ":59" * 3000])
def test_a_text_that_takes_for_ever_to_read_is_refused(text, former):
    checkpoint = read_checkpoint_file(last("moe/first"))
    with pytest.raises(UserError, match="is too large or too deep"):
        vetted(changed(checkpoint, ("config", "trainer", "max_steps"), text), "x.ckpt", "--ckpt_path")


def saving(**init_args):
    return {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", **init_args}


FOLDERS = {
    "by its short name": {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "mine"}},
    "by a dotted key": saving(**{"init_args.dirpath": "mine"}),
    "by our own class": {"class_path": "lit_core.callbacks.RunCheckpoint", "init_args": {"dirpath": "mine"}},
    "by one that records": {"class_path": "RunRecord", "init_args": {"config": {}, "path": "mine"}},
}


@pytest.mark.parametrize("callback", FOLDERS.values(), ids=FOLDERS)
def test_no_callback_of_others_names_a_folder(callback, former):
    checkpoint = changed(read_checkpoint_file(last("moe/first")), ("config", "trainer", "callbacks"), [callback])
    try:
        left = vetted(checkpoint, "x.ckpt", "--ckpt_path")
    except UserError as error:
        assert "is no name of an argument" in str(error)
    else:
        assert "mine" not in str(described_by(left)) and "mine" in str(left[LEFT_OUT])


@pytest.mark.parametrize("key", ["trainer.default_root_dir", "trainer.logger", "model.init_args.optimizer", "model+"])
def test_keys_that_a_parser_takes_apart_are_refused(key, former):
    checkpoint = read_checkpoint_file(last("moe/first"))
    checkpoint["config"][key] = "mine"
    with pytest.raises(UserError, match="is no name of an argument"):
        vetted(checkpoint, "x.ckpt", "--ckpt_path")
    checkpoint = read_checkpoint_file(last("moe/first"))
    checkpoint["config"]["trainer"]["logger+"] = "mine"
    with pytest.raises(UserError, match="is no name of an argument"):
        vetted(checkpoint, "x.ckpt", "--ckpt_path")


#: Arguments of callbacks that name a file to read.
READ = {"BranchFrom.path"}


def test_callbacks_say_by_the_type_which_arguments_are_places_to_write():
    for kind in (kind for kind in exports() if issubclass(kind, Callback | Strategy)):
        for name, hint in _hints(kind).items():
            place = re.search("(path|dir|folder|file)$", name) and f"{kind.__name__}.{name}" not in READ
            assert not place or _is_path(hint), (kind, name)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_text_where_texts_stand_is_not_imported(run, former, capsys):
    main = import_module(f"lit_{run.partition('/')[0]}.cli").main
    checkpoint = read_checkpoint_file(last(run))
    for path in places({"config": checkpoint["config"]}):
        torch.save(changed(checkpoint, path, "hostile.Payload"), "x.ckpt")
        main(["test", "--ckpt_path", "x.ckpt", "--trainer.logger", "false", "--trainer.limit_test_batches", "1"])
        assert not Path("ran").exists(), path
    capsys.readouterr()


def hostile(run):
    """Write a checkpoint that would run a command where the optimizer is built, and return its path."""
    checkpoint = read_checkpoint_file(last(run))
    for key in ("config", "hyper_parameters"):
        node = checkpoint[key]["model"]["init_args"] if key == "config" else checkpoint[key]
        node["optimizer"] = SYSTEM
    torch.save(checkpoint, "hostile.ckpt")
    return "hostile.ckpt"


REFUSED = "hostile.ckpt, which was not written by you; its `"


@pytest.mark.parametrize("command", [*LitCLI.subcommands(), "branch", "plan"])
@pytest.mark.parametrize("run", RUNS)
def test_each_command_of_lightning_refuses_it(run, command, former, capsys):
    package = run.partition("/")[0]
    if command == "plan" and package != "moe":
        return
    option = "--branch_from" if command == "branch" else "--ckpt_path"
    command = "fit" if command == "branch" else command
    args = [command, "--config", f"runs/{run}/config.yaml", option, hostile(run), "--run", "new"]
    assert import_module(f"lit_{package}.cli").main(args) == 2
    assert REFUSED in capsys.readouterr().err and not Path("ran").exists()


def options():
    """Yield each option of the packages' own verbs that takes a text, which may be a path."""
    for package, found in own_verbs().items():
        for name, verb in found.items():
            for option, parameter in inspect.signature(verb).parameters.items():
                if "str" in str(parameter.annotation) or "Path" in str(parameter.annotation):
                    yield pytest.param(package, name, option, id=f"{package}-{name}-{option}")


#: Values of other options, so that the checkpoint is reached.
FITTING = {
    "answers": '{"a": "hostile.ckpt"}',
    "fpr": "0.1",
    "human": "texts/shuffled/all.txt",
    "limit": "3",
    "output": "new.ckpt",
    "selector": "lit_valuation.selectors.RandomSelector",
    "to": "[a]",
}


@pytest.mark.parametrize(("package", "name", "option"), list(options()))
def test_each_option_of_each_verb_runs_nothing_of_it(package, name, option, former, capsys):
    path = hostile(next(run for run in RUNS if package.endswith(run.partition("/")[0])))
    parameters = inspect.signature(own_verbs()[package][name]).parameters
    needed = {argument for argument, known in parameters.items() if known.default is known.empty} | FITTING.keys()
    others = [argument for argument in parameters if argument in needed - {option}]
    fitting = FITTING | ({"output": "new.npz"} if name == "fingerprint" else {})
    args = [f"--{argument}={fitting.get(argument, path)}" for argument in others]
    args.append(f"--{option}={fitting['output'] if option == 'output' else path}")
    if name == "serve" and option != "detector":
        args.append("--detector=none.ckpt")  # without a detector it ends
    status = import_module(f"{package}.cli").main([name, *args])
    assert not Path("ran").exists()
    if option == "ckpt_path":
        assert status == 2
        # the others need more files before they read it, or build nothing from it; see the last test
        assert name in ("select", "rank", "consolidate") or REFUSED in capsys.readouterr().err


def test_what_python_loads_is_vetted_too(former):
    for run, kind in RUNS.items():
        path = hostile(run)
        for load in (kind.load_from_checkpoint, lambda path, **_: load_checkpoint_file(path)):
            with pytest.raises(UserError, match="which was not written by you"):
                load(path, weights_only=True)
        with open(path, "rb") as file, pytest.raises(UserError, match="which was not written by you"):
            kind.load_from_checkpoint(file, weights_only=True)
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
        with pytest.raises(UserError, match="which was not written by you"):
            kind.load_from_checkpoint(path, weights_only=True)
    path = hostile("detect/ensemble")
    for load in (trained, load_detector):
        with pytest.raises(UserError, match="which was not written by you"):
            load(path)
    assert not Path("ran").exists()


def test_loggers_folders_and_variables_of_others_do_not_count(former, capsys):
    checkpoint = read_checkpoint_file(last("moe/first"))
    trainer = checkpoint["config"]["trainer"]
    trainer["logger"] = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "mine"}}
    trainer["default_root_dir"] = "/elsewhere"
    saving = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "mine"}}
    trainer["callbacks"] = [saving]
    checkpoint["config"]["data"]["init_args"]["root"] = "../mine"
    left = vetted(checkpoint, "x.ckpt", "--ckpt_path")
    assert not {"logger", "default_root_dir"} & set(left["config"]["trainer"])
    assert left["config"]["trainer"]["callbacks"] == [{**saving, "init_args": {}}]
    assert "root" not in left["config"]["data"]["init_args"]
    assert set(left[LEFT_OUT]) == {
        "trainer.logger",
        "trainer.default_root_dir",
        "trainer.callbacks.0.init_args.dirpath",
        "data.init_args.root",
    }
    torch.save(checkpoint, "x.ckpt")
    main = import_module("lit_moe.cli").main
    assert main(["test", "--ckpt_path", "x.ckpt"]) == 2
    message = "x.ckpt was not written by you, and the place that its `data.init_args.root` names does not count"
    assert message in capsys.readouterr().err
    main(["prepare", "--config", "prepare.moe.yaml"])
    root = yaml.safe_load(Path("runs/moe/first/config.yaml").read_text())["data"]["init_args"]["root"]
    with pytest.warns(UserWarning, match="x.ckpt was not written by you; its trainer.callbacks.0.init_args.dirpath do"):
        assert main(["test", "--ckpt_path", "x.ckpt", "--data.root", root]) == 0
    assert not Path("mine").exists()


def test_what_its_argument_declares_counts_in_each_part_of_a_config(former):
    checkpoint = read_checkpoint_file(last("moe/first"))
    strategy = {"class_path": "lit_moe.ShardedStrategy", "init_args": {"expert_parallel": 1}}
    checkpoint["config"]["trainer"]["strategy"] = strategy
    assert vetted(checkpoint, "x.ckpt", "--ckpt_path")["config"]["trainer"]["strategy"] == strategy


def test_a_class_that_the_user_trusts_or_has_typed_may_be_named(former):
    checkpoint = read_checkpoint_file(last("moe/first"))
    checkpoint["hyper_parameters"]["optimizer"] = IMPORTED
    with pytest.raises(UserError, match="add --trust hostile"):
        vetted(checkpoint, "x.ckpt", "--ckpt_path")
    trust.note_typed({"model": {"init_args": {"optimizer": IMPORTED}}})
    assert vetted(checkpoint, "x.ckpt", "--ckpt_path")["hyper_parameters"]["optimizer"] == IMPORTED
    checkpoint["hyper_parameters"]["router"] = {"class_path": "hostile.Other"}
    with pytest.raises(UserError, match="add --trust hostile"):
        vetted(checkpoint, "x.ckpt", "--ckpt_path")


def test_an_own_run_needs_no_flag_and_another_user_must_trust_its_classes(former, monkeypatch, capsys):
    Path("path/mine.py").write_text("from lit_valuation.nn import MLP\nclass Net(MLP):\n    pass\n")
    main = import_module("lit_valuation.cli").main
    assert main(["divide", "--config", "prepare.valuation.yaml"]) == 0
    network = ["--model.network", "mine.Net", "--model.network.hidden", "[8]"]
    args = ["fit", "--config", "valuation.yaml", *network, "--trainer.max_steps", "2", "--run", "mine"]
    assert main(args) == 0, capsys.readouterr().err
    test = ["test", "--ckpt_path", "runs/valuation/mine/checkpoints/last.ckpt"]
    assert main(test) == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", "another")
    capsys.readouterr()
    assert main(test) == 2
    assert "`model.init_args.network.class_path` is 'mine.Net'" in capsys.readouterr().err
    Path("trusting.yaml").write_text("trust: [mine.Net]\n")
    for typed in (["--trust", "mine.Net"], ["--trust=mine.Net"], ["--config", "trusting.yaml"]):
        monkeypatch.setattr(trust, "_trusted", set())
        monkeypatch.setenv("XDG_CONFIG_HOME", f"another-{len(typed)}")
        assert main([*test, *typed]) == 0, capsys.readouterr().err


def test_one_s_own_checkpoint_counts_until_somebody_changes_it(former):
    checkpoint = read_checkpoint_file(last("moe/first"))
    checkpoint["hyper_parameters"]["scheduler"] = {"class_path": "mine.Scheduler"}
    trust.sign(checkpoint)
    assert vetted(checkpoint, "x.ckpt", "--ckpt_path") is checkpoint
    for path in places(described_by(checkpoint)):
        assert not trust.is_own(changed(checkpoint, path, "another")), path


def test_a_description_that_is_too_deep_or_no_config_is_refused(former):
    checkpoint, deep = read_checkpoint_file(last("moe/first")), "a"
    with pytest.raises(UserError, match="is no value of a config"):
        vetted(changed(checkpoint, ("config", "trainer", "max_steps"), torch.ones(2)), "x.ckpt", "--ckpt_path")
    for _ in range(150):
        deep = [deep]
    for key in ("config", "hyper_parameters"):
        torch.save({**checkpoint, key: {"x": deep}}, f"{key}.ckpt")
        for load in (load_checkpoint_file, MoELanguageModel.load_from_checkpoint):
            with pytest.raises(UserError, match="more than 50 levels"):
                load(f"{key}.ckpt")


def test_no_name_of_a_module_runs_a_command(former):
    checkpoint = read_checkpoint_file(last("moe/first"))
    for package in PACKAGES:
        sys.modules.pop(f"{package}.__main__", None)
        path = ("hyper_parameters", "router")
        with pytest.raises(UserError, match="would run code outside of LitShift"):
            vetted(changed(checkpoint, path, {"class_path": f"{package}.__main__.Router"}), "x.ckpt", "--ckpt_path")


def test_a_cell_of_others_imports_nothing(former):
    assert identity({"values": {"router": "lit_hostile.Payload"}}) and not Path("ran").exists()


def test_whoever_builds_from_a_checkpoint_reads_it_vetted():
    """Only what the modules below do with a checkpoint builds nothing from it."""
    files = [path for package in ("lit_core", *PACKAGES) for path in (ROOT / package).rglob("*.py")]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}
    assert {path for path, text in texts.items() if "torch.load(" in text} == {
        "lit_core/lightning/checkpoint.py",
        "lit_core/lightning/checkpoint_module.py",
        "lit_core/lightning/sharded_checkpoint.py",
        "lit_moe/doctor/checks/data_parallel.py",  # what its own processes wrote, in a folder that it removes
        "lit_valuation/encoders/efficientnet_lite0.py",  # published weights, checked by hash
    }
    unvetted = {path for path, text in texts.items() if re.search(r"\bread_checkpoint_f(ile|acts)\(", text)}
    assert unvetted - {"lit_core/lightning/checkpoint.py"} == {
        "lit_core/callbacks/branch.py",  # weights and counters
        "lit_core/cli/lit_cli.py",  # weights and the step
        "lit_core/cli/show.py",  # prints
        "lit_core/lightning/sharded_checkpoint.py",  # copies
        "lit_moe/callbacks/reference.py",  # and vets before it builds
        "lit_moe/study/cell.py",  # counters
        "lit_moe/study/runs.py",  # weights and the step
        "lit_valuation/training/loading.py",  # and vets before it builds
    }


@pytest.mark.slow  # prepares data and builds a trainer
def test_no_strategy_of_lightning_unpickles_a_folder(former, capsys):
    folder = Path("parts.ckpt")
    folder.mkdir()
    checkpoint = {**read_checkpoint_file(last("valuation/first")), "parts": 1}
    checkpoint["config"]["trainer"]["strategy"] = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    torch.save(checkpoint, folder / "meta.pt")
    main = import_module("lit_valuation.cli").main
    assert main(["divide", "--config", "prepare.valuation.yaml"]) == 0
    assert main(["fit", "--ckpt_path", "parts.ckpt", "--trainer.max_steps", "12", "--trainer.devices", "1"]) == 2
    assert "a checkpoint folder, which only a sharded strategy reads" in capsys.readouterr().err


@pytest.mark.slow  # trains
@pytest.mark.parametrize("path", ["local://{}/mine", "runs/valuation/first/checkpoints/../../../../mine"])
def test_a_resumed_run_removes_nothing_that_is_named_in_its_checkpoint(path, former):
    main = import_module("lit_valuation.cli").main
    assert main(["divide", "--config", "prepare.valuation.yaml"]) == 0
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("")
    checkpoint = torch.load(last("valuation/first"), weights_only=True)  # not mapped, since it is written again
    state = next(state for name, state in checkpoint["callbacks"].items() if name.startswith("RunCheckpoint"))
    assert state["dirpath"] == "runs/valuation/first/checkpoints"
    state["last_model_path"] = path.format(Path.cwd())
    torch.save(checkpoint, last("valuation/first"))
    assert main(["fit", "--ckpt_path", last("valuation/first"), "--trainer.max_steps", "12"]) == 0
    assert Path("mine/thesis.txt").exists()
