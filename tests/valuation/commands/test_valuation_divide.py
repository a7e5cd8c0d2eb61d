"""The verb: parties on disk, whole or not at all, the same for the same arguments, and never mixed."""

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

from lit_core.errors import RunFailure, UserError
from lit_core.files.working_folder import WORK
from lit_valuation.commands.divide import divide
from lit_valuation.data.division import Division, Owner
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.data.noise import Noise
from lit_valuation.data.planting import PlantedBackground, ScarceClasses
from lit_valuation.sources import Digits, ShardFolder, SklearnTable

PLANTING = PlantedBackground(["3", "8"], 0.3)
DIVISION = Division(train=350, val=300, test=300, owner_samples=110)


def listing(root):
    """Every path below a folder with the hash of its content."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(Path(root).rglob("*"))
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared") / "root"
    summary = divide(str(root), Digits(), PLANTING, DIVISION, Noise(labels=0.2, owners=["owner_2"]), shard_size=64)
    return root, summary


def test_parties_lie_where_they_belong(prepared):
    root, summary = prepared
    names = [f"trainer/{split}" for split in ("train", "val", "test")]
    names += [f"owners/owner_{n}/{split}" for n in range(1, 7) for split in ("train", "val")]
    assert list(summary) == names
    everything = PLANTING.plant(Digits().samples(), 0)
    number = {key: place for place, key in enumerate(everything.keys)}
    seen = set()
    for name in names:
        found = LabelledSet(root / name)
        assert found.meta["input"] == "image" and found.meta["hard"] == ["hard"]
        samples = found.load()
        assert not seen & set(samples.keys)
        seen |= set(samples.keys)
        assert torch.equal(samples.x, everything.x[[number[key] for key in samples.keys]])
        assert sum(count for groups in summary[name].values() for count in groups.values()) == len(samples)


def test_noise_is_where_it_was_asked_for_and_its_keys_are_kept(prepared):
    root, _ = prepared
    truth = dict(zip(Digits().samples().keys, Digits().samples().y.tolist(), strict=True))
    for name in ("owner_1", "owner_2"):
        found = LabelledSet(root / "owners" / name / "train")
        samples = found.load()
        wrong = [key for key, y in zip(samples.keys, samples.y.tolist(), strict=True) if truth[key] != y]
        assert wrong == found.meta.get("corrupted", {"labels": []})["labels"]
        assert len(wrong) == (0 if name == "owner_1" else 20)


def test_equal_arguments_give_equal_files_and_a_second_time_changes_nothing(prepared, tmp_path, capsys):
    root, summary = prepared
    noise = Noise(labels=0.2, owners=["owner_2"])
    assert divide(str(tmp_path / "root"), Digits(), PLANTING, DIVISION, noise, shard_size=64) == summary
    assert listing(tmp_path / "root") == listing(root)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert divide(str(root), Digits(), PLANTING, DIVISION, noise, shard_size=64) == summary
    assert times == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    said = capsys.readouterr().out
    assert f"lit-valuation fit --config CONFIG --data.root {root}" in said
    shown = re.search(r"(\d+) of (\d+) classes with hard samples are shown", said)
    assert 0 < int(shown[1]) <= int(shown[2])
    (line,) = {line for line in said.splitlines() if line.startswith("owner_1") and " train " in line}
    assert line.split()[2] == "99"


def test_verify_compares_hashes(prepared, tmp_path, capsys):
    root, summary = prepared
    assert divide(str(root), verify=True) == summary
    shutil.copytree(root, tmp_path / "root")
    shard = tmp_path / "root" / "owners" / "owner_3" / "val" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=str(shard)):
        divide(str(tmp_path / "root"), verify=True)


def test_prepared_sets_are_a_source_again(prepared):
    root, _ = prepared
    source = ShardFolder(str(root / "owners" / "owner_1"), "again")
    samples = source.samples()
    assert len(samples) == 110 and source.input == "image" and samples.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": 1}, "prepared with seed 0, and now it is 1"),
        ({"noise": Noise(labels=0.3, owners=["owner_2"])}, r"noise\.labels 0\.2, and now it is 0\.3"),
        ({"planting": PlantedBackground(["3", "9"], 0.3)}, r"planting\.classes"),
        ({"division": Division(train=351)}, r"division\.train 350, and now it is 351"),
        ({"source": SklearnTable("iris")}, r"source\.class"),
    ],
)
def test_a_root_is_not_mixed(prepared, arguments, words):
    root, _ = prepared
    before = listing(root)
    given = {"source": Digits(), "planting": PLANTING, "division": DIVISION, "shard_size": 64}
    given["noise"] = Noise(labels=0.2, owners=["owner_2"])
    with pytest.raises(UserError, match=words):
        divide(str(root), **{**given, **arguments})
    assert listing(root) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": None}, "source is missing"),
        ({"seed": -1}, "seed is -1"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"noise": Noise(owners=["owner_9"])}, "owner_9"),
        ({"division": Division()}, "are left"),
        ({"planting": ScarceClasses(["ten"])}, "names ten"),
        ({"source": SklearnTable("iris")}, "need images"),
        (
            {"division": Division(train=50, val=50, test=50, owners={"a": Owner(classes=["10"])})},
            "classes of a names 10",
        ),
        ({"verify": True, "source": None, "planting": None, "division": None}, "was not written by divide"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, arguments, words):
    given = {"source": Digits(), "planting": PLANTING, "division": DIVISION, **arguments}
    with pytest.raises(UserError, match=words) as error:
        divide(str(tmp_path / "deep" / "root"), **given)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_foreign_folder_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="was not made by prepare"):
        divide(str(tmp_path), Digits(), PLANTING, DIVISION)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


SCRIPT = """
import os, sys
import lit_valuation.commands.divide as module
import lit_valuation.data.filled_root as filled
from lit_valuation.data.noise import Noise
from lit_valuation.data.division import Division
from lit_valuation.data.planting import PlantedBackground
from lit_valuation.sources import Digits
{before}
division = Division(train=350, val=300, test=300, owner_samples=110)
noise = Noise(labels=0.2, owners=["owner_2"])
module.divide(sys.argv[1], Digits(), PlantedBackground(["3", "8"], 0.3), division, noise, shard_size=64)
"""
#: Kills the process while it writes, and between the moves into the root.
KILLS = {
    "writing": "calls, original = [0], module.write_labelled\n"
    "def write(*args, **kwargs):\n"
    "    calls[0] += 1\n"
    "    if calls[0] == 5: os.kill(os.getpid(), 9)\n"
    "    original(*args, **kwargs)\n"
    "module.write_labelled = write",
    "moving": "calls, original = [0], filled.replace_whole\n"
    "def move(*paths):\n"
    "    calls[0] += 1\n"
    "    if calls[0] == 2: os.kill(os.getpid(), 9)\n"
    "    original(*paths)\n"
    "filled.replace_whole = move",
}


@pytest.mark.parametrize(("name", "call"), [("write_labelled", 5), ("replace_whole", 2)])
def test_interrupted_it_goes_on_and_ends_the_same(name, call, prepared, tmp_path, monkeypatch):
    import lit_valuation.commands.divide as writing
    import lit_valuation.data.filled_root as moving

    module = writing if name == "write_labelled" else moving
    original, calls = getattr(module, name), itertools.count(1)

    def interrupt(*args, **kwargs):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    arguments = (str(tmp_path / "root"), Digits(), PLANTING, DIVISION, Noise(labels=0.2, owners=["owner_2"]))
    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            divide(*arguments, shard_size=64)
    assert not (tmp_path / "root" / "prepare.json").exists()
    divide(*arguments, shard_size=64)
    assert listing(tmp_path / "root") == listing(prepared[0])


@pytest.mark.slow
@pytest.mark.parametrize("moment", KILLS)
def test_killed_it_goes_on_and_ends_the_same(moment, prepared, tmp_path):
    script = [sys.executable, "-c", SCRIPT.replace("{before}", KILLS[moment]), str(tmp_path / "root")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run(script, env=environment, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "root" / "prepare.json").exists() and (tmp_path / "root" / WORK).exists()
    noise = Noise(labels=0.2, owners=["owner_2"])
    divide(str(tmp_path / "root"), Digits(), PLANTING, DIVISION, noise, shard_size=64)
    assert listing(tmp_path / "root") == listing(prepared[0])


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    script = [sys.executable, "-c", SCRIPT.replace("{before}", limit), str(tmp_path / "root")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert f"{RunFailure.__name__}: The disk is full" in done.stderr and not (tmp_path / "root").exists()


FOLDER = Path(__file__).parents[3] / "configs" / "valuation" / "divide"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_its_command_and_parses(path):
    assert path.read_text().splitlines()[1] == f"#   lit-valuation divide --config configs/valuation/divide/{path.name}"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(divide, as_positional=False)
    parsed = parser.parse_args(["--config", str(path)])
    assert parsed.root and parsed.source.class_path.startswith("lit_valuation.sources.")


@pytest.mark.parametrize("name", ["digits", "tumours"])
def test_the_embedded_configs_divide_by_command(name, tmp_path, monkeypatch, capsys):
    from lit_valuation.cli import main

    monkeypatch.chdir(tmp_path)
    config = str(FOLDER / f"{name}.yaml")
    assert main(["divide", "--config", config, "--root", str(tmp_path / "root")]) == 0, capsys.readouterr()
    assert main(["divide", "--root", str(tmp_path / "root"), "--verify", "true"]) == 0
    record = json.loads((tmp_path / "root" / "prepare.json").read_text())
    assert record["samples"]["copies_left_out"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["fashion_backgrounds", "fashion_overlap", "fashion_noise", "letter", "satellite", "shuttle"]
)
def test_the_fetched_configs_divide_by_command(name, tmp_path, capsys):
    from lit_valuation.cli import main

    root = tmp_path / "root"
    assert main(["divide", "--config", str(FOLDER / f"{name}.yaml"), "--root", str(root)]) == 0, capsys.readouterr()
    assert len(list((root / "owners").iterdir())) == 6
