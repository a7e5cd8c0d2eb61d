"""References are kept as typed, and resolved after all that a command was given."""

import csv
import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from small_cli import main as small

import lit_moe.cli
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.references import as_typed, resolved, settled, value_at, without_secrets
from lit_core.trust import sign
from lit_detect.records import Record
from lit_moe import MoELanguageModel

SECRET = "tr0ub4dor-and-3"
LAST = "runs/moe/first/checkpoints/last.ckpt"
TOTAL = "--model.init_args.scheduler.init_args.total_steps"


@pytest.fixture(autouse=True)
def described(token_root, tmp_path, monkeypatch):
    """A config of a tiny model, whose schedule ends with the run and whose data lie where a variable says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / SECRET).symlink_to(token_root)
    monkeypatch.setenv("PLACE", SECRET)
    monkeypatch.setenv("NANO", "1e-9")
    config = {
        "data": {
            "class_path": "lit_moe.TokenDataModule",
            "init_args": {
                **{"root": "${oc.env:PLACE}", "sources": {"austen": 1}, "sequence_length": 8, "global_batch_size": 2},
                **{"micro_batch_size": 2, "test_samples": 2},
            },
        },
        "model": {
            "class_path": "lit_moe.MoELanguageModel",
            "init_args": {
                "decoder": {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 16, "norm_eps": "${oc.env:NANO}"},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
                "scheduler": {
                    "class_path": "lit_moe.schedules.WarmupCosine",
                    "init_args": {"total_steps": "${trainer.max_steps}", "warmup": 0.0},
                },
            },
        },
        "trainer": {
            **{"accelerator": "cpu", "devices": 1, "max_steps": 2, "max_epochs": -1, "limit_val_batches": 0},
            **{"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1},
            "callbacks": [
                {
                    "class_path": "lit_moe.callbacks.SampleText",
                    "init_args": {"prompts": ["${oc.env:PLACE}"], "max_new_tokens": "${trainer.max_steps}"},
                }
            ],
        },
    }
    Path("run.yaml").write_text(yaml.safe_dump(config))


def fit(*args, code=0):
    assert lit_moe.cli.main(["fit", *args]) == code


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def first(described, finished):
    """A run of two steps; it is made once."""
    if not list(finished.iterdir()):
        fit("--config", "run.yaml", "--run", "first")
        shutil.copytree("runs", finished / "runs")
    else:
        shutil.copytree(finished / "runs", "runs")


def rates(run="first"):
    with open(f"runs/moe/{run}/metrics.csv", newline="") as file:
        return [float(row["train/learning_rate"]) for row in csv.DictReader(file)]


def test_a_resume_for_longer_has_the_schedule_of_its_length(first, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("lit_core.callbacks.present_optimizer.rank_zero_info", said.append)
    fit("--ckpt_path", LAST, "--trainer.max_steps", "4")
    assert rates() == pytest.approx([0.1, 0.05, 0.05, 0.05 - 0.05 * 2**-0.5])
    assert said == ["The learning rate goes on at 0.05, as it is configured now; in the checkpoint it was 0."]
    fit("--config", "run.yaml", "--trainer.max_steps", "4", "--run", "whole")
    assert rates()[2:] == pytest.approx(rates("whole")[2:])


def test_what_is_kept_is_what_was_typed(first):
    saved = yaml.safe_load(Path("runs/moe/first/config.yaml").read_text())
    for config in (saved, load_checkpoint_file(LAST)["config"]):
        assert config["model"]["init_args"]["scheduler"]["init_args"]["total_steps"] == "${trainer.max_steps}"
        assert config["model"]["init_args"]["decoder"]["norm_eps"] == "${oc.env:NANO}"
        assert config["data"]["init_args"]["root"] == "${oc.env:PLACE}"
        assert config["trainer"]["max_steps"] == 2
    kept = load_checkpoint_file(LAST)
    assert kept["hyper_parameters"]["scheduler"]["init_args"]["total_steps"] == 2
    assert kept["hyper_parameters"]["decoder"]["norm_eps"] == "${oc.env:NANO}"
    assert kept["datamodule_hyper_parameters"]["root"] == "${oc.env:PLACE}"
    model = MoELanguageModel.load_from_checkpoint(LAST, weights_only=True)
    assert model.config.norm_eps == 1e-9
    fit("--config", "runs/moe/first/config.yaml", "--trainer.max_steps", "4", "--run", "again")
    assert rates("again")[3] > 0


def holders(folder):
    """The files that hold the secret."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


def test_no_file_of_a_run_has_a_secret_that_a_shell_has_put_into_the_command(monkeypatch):
    monkeypatch.setenv("DATA_TOKEN", SECRET)
    config = yaml.safe_load(Path("run.yaml").read_text())
    del config["trainer"]["callbacks"], config["data"]["init_args"]["root"]
    Path("plain.yaml").write_text(yaml.safe_dump(config))
    fit("--config", "plain.yaml", "--run", "x", "--data.init_args.root", SECRET)
    assert holders("runs/moe/x") == []
    record = json.loads(Path("runs/moe/x/run.json").read_text())
    assert record["sessions"][0]["command"].endswith("--data.init_args.root '${oc.env:DATA_TOKEN}'")
    assert {one["path"] for one in record["inputs"]} == {f"${{oc.env:DATA_TOKEN}}/austen/{s}" for s in ("train", "val")}


def test_no_record_of_a_verb_has_the_value_of_a_variable(first, monkeypatch, tmp_path):
    (tmp_path / "secret").mkdir()
    shutil.copy(LAST, f"secret/{SECRET}.ckpt")
    monkeypatch.setenv("PLACE", f"secret/{SECRET}.ckpt")
    monkeypatch.setenv("MY_KEY", SECRET)
    args = ["generate", "--ckpt_path", "${oc.env:PLACE}", "--max_new_tokens", "2", "--output"]
    assert lit_moe.cli.main([*args, "made/a.jsonl"]) == 0
    assert lit_moe.cli.main([*args, "made/b.jsonl", "--prompt_file", f"secret/{SECRET}.txt"]) == 2
    assert holders("made") == []
    record = json.loads(Path("made/a.jsonl.run.json").read_text())
    assert record["config"]["ckpt_path"] == "${oc.env:PLACE}"
    assert record["inputs"][0]["path"] in ("${oc.env:PLACE}", "secret/${oc.env:MY_KEY}.ckpt")


def test_no_file_of_a_run_has_the_value_of_a_variable(first, monkeypatch):
    assert lit_moe.cli.main(["test", "--ckpt_path", LAST]) == 0
    texts = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert len(texts) >= 5
    # what the model is asked to continue is shown, as it should be
    holders = [path.name for path in texts if SECRET.encode() in path.read_bytes() and "tfevents" not in path.name]
    assert holders == []
    monkeypatch.delenv("PLACE")
    assert lit_moe.cli.main(["test", "--ckpt_path", LAST]) == 2


def rows_of_a_cell(seed, place, seconds=0.5):
    """A function of a study, to which a path is given."""
    if not Path(place).exists():
        raise ValueError(f"there is no {place}")
    return [{"where": place, "value": seconds}]


@pytest.mark.parametrize(
    "kinds",
    [["made", "varied"], pytest.param(["run"], marks=pytest.mark.slow)],  # a command is a process of its own
)
def test_no_file_of_a_study_has_the_value_of_a_variable(kinds, monkeypatch, capsys):
    """Neither its cells and their runs, nor its results and its page; another value is another cell."""
    place, function = "${oc.env:PLACE}", f"{__name__}.rows_of_a_cell"
    fit_words = "fit --config run.yaml --data.init_args.root $place --trainer.max_steps 1 --trainer.callbacks null"
    monkeypatch.setenv("FILE", "run")
    named = {"place": place, "file": "${oc.env:FILE}"}
    grids = {
        "made": {"function": function, "arguments": {"place": place, "seconds": 0.5}},
        "varied": {"function": function, "vary": {"place": [place]}},
        "run": {"commands": [fit_words.replace("run.yaml", "$file.yaml")], "arguments": named},
    }
    study = {"name": "s", "size": "one", "sizes": {"one": {"seeds": [0]}}}
    study["grids"] = {kind: grids[kind] for kind in kinds}
    many = len(kinds)
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert lit_moe.cli.main(["study", "--config", "study.yaml", "--output", "page.md"]) == 0, capsys.readouterr()
    assert len(list(Path("runs/moe/s-one").glob("*/cell.json"))) == many
    assert holders("runs/moe/s-one") == [] and SECRET not in Path("page.md").read_text()
    for path in Path("runs/moe/s-one").glob("*/cell.json"):
        cell = json.loads(path.read_text())
        assert cell["values"]["place"] == place and len(cell["environment"]) == 16
    capsys.readouterr()
    assert lit_moe.cli.main(["study", "--config", "study.yaml"]) == 0
    assert f"{many} of {many} cells are finished" in capsys.readouterr().out
    monkeypatch.setenv("PLACE", "elsewhere")
    assert lit_moe.cli.main(["study", "--config", "study.yaml"]) == 1
    assert f"0 of {many} cells are finished" in capsys.readouterr().out
    assert len(list(Path("runs/moe/s-one").glob("*/error.txt"))) == many
    kept = [path for path in Path("runs").rglob("*") if path.is_file() and b"elsewhere" in path.read_bytes()]
    assert kept == []


def own_data(folder):
    """Data of a user's own, below a folder whose name must not be told."""
    folder.mkdir()
    words = "It was a truth that all of them knew and none of them said aloud in the house that day".split()
    texts = [" ".join(words[n:] + words[:n]) + f" {n}." for n in range(len(words))]
    for number in range(6):
        (folder / f"{number}.txt").write_text("\n\n".join(texts[number:] * 9))
    with (folder / "pairs.jsonl").open("w") as file:
        for number, text in enumerate(texts):
            for label, by in ((0, "human"), (1, "other")):
                pair = Record(f"{by}{number}", f"{by} {text}", label, source=by, pair_id=str(number))
                file.write(json.dumps(pair.to_dict()) + "\n")
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["height", "width", "kind"])
        table.writerows([number % 7 + number / 100, number % 5, "ab"[number % 2]] for number in range(200))


def prepared(package):
    """The arguments of ``prepare``, or ``divide``, for the data above."""
    place = {"lit_moe": ("TextFolder", {"folder": "${oc.env:PLACE}", "name": "own"})}
    place["lit_detect"] = ("LitShiftJSONL", {"path": "${oc.env:PLACE}/pairs.jsonl", "name": "own"})
    place["lit_valuation"] = ("Table", {"path": "${oc.env:PLACE}/rows.csv", "name": "own", "label": "kind"})
    kind, arguments = place[package]
    source = {"class_path": kind, "init_args": arguments}
    if package == "lit_valuation":
        return [
            "--source",
            json.dumps(source),
            "--division",
            json.dumps(
                {
                    "owners": {"o": {"useful": 0.0, "samples": 20}},
                    "train": 40,
                    "val": 40,
                    "test": 40,
                    "evaluation_useful": 0.0,
                }
            ),
        ]
    options = {"lit_moe": ["--vocab_size", "260"], "lit_detect": []}[package]
    return [f"--{'corpora' if package == 'lit_moe' else 'sources'}", json.dumps([source]), *options]


@pytest.mark.parametrize("package", ["lit_moe", "lit_detect", "lit_valuation"])
def test_no_file_of_prepared_data_has_the_value_of_a_variable(package, monkeypatch, tmp_path, capsys):
    """The same variable reuses the data, also those of before, which tell it; another value of it does not."""
    main = importlib.import_module(f"{package}.cli").main
    places = [tmp_path / "s3cret-place", tmp_path / "0ther-place"]
    for place in places:
        own_data(place)
    verb = "divide" if package == "lit_valuation" else "prepare"
    args = [verb, "--root", str(tmp_path / "made"), *prepared(package)]
    monkeypatch.setenv("PLACE", str(places[0]))
    assert main(args) == 0, capsys.readouterr()
    written = [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [path.name for path in written if b"s3cret-place" in path.read_bytes()] == []
    records = [*(tmp_path / "made").rglob("prepare.json")]
    assert len(records) == 1
    content = json.loads(records[0].read_text())
    hidden = "${oc.env:PLACE}" in json.dumps(content["settings"])  # or only names and hashes of the files
    assert ("environment" in content["settings"]) == hidden == (package == "lit_moe")
    content["settings"].pop("environment", None)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*.tar")}
    assert times and main(args) == 0, capsys.readouterr()
    text = json.dumps(content).replace("${oc.env:PLACE}", str(places[0]))
    records[0].write_text(text)
    assert main(args) == 0, capsys.readouterr()
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*.tar")}
    monkeypatch.setenv("PLACE", str(places[1]))
    assert main(args) == 2


def test_a_variable_that_is_not_set_is_one_sentence(monkeypatch, capsys):
    monkeypatch.delenv("PLACE")
    fit("--config", "run.yaml", code=2)
    said = (
        ".init_args.prompts[0]: Environment variable 'PLACE' not found; set it, or correct the name within the braces."
    )
    assert f"lit-moe: trainer.callbacks[0]{said}" in capsys.readouterr().err and not Path("runs").exists()


def test_a_test_takes_the_values_that_the_trainer_had_and_what_is_typed_about_the_data(first, capsys):
    assert lit_moe.cli.main(["test", "--ckpt_path", LAST, "--data.init_args.root", SECRET]) == 0
    config = yaml.safe_load(Path("runs/moe/first/config.test.yaml").read_text())
    assert config["trainer"]["callbacks"][0]["init_args"] | {"prompts": 0} == {
        **{"prompts": 0, "max_new_tokens": 2, "temperature": 0.8, "top_k": 50, "seed": None}
    }
    assert config["data"]["init_args"]["root"] == SECRET
    assert config["model"]["init_args"]["scheduler"]["init_args"]["total_steps"] == 2


def test_a_branch_has_the_schedule_of_its_own_length(first):
    config = yaml.safe_load(Path("run.yaml").read_text())
    Path("branch.yaml").write_text(yaml.safe_dump({key: config[key] for key in ("data", "trainer")}))
    fit("--config", "branch.yaml", "--branch_from", LAST, "--trainer.max_steps", "3", "--run", "branch")
    assert rates("branch") == pytest.approx([0.1, 0.075, 0.025])


def test_a_checkpoint_that_kept_the_number_says_what_to_type(first, capsys):
    former = torch.load(LAST, weights_only=True)
    former["config"] = resolved(former["config"])
    sign(former)
    torch.save(former, LAST)
    capsys.readouterr()
    shutil.copy(LAST, "former.ckpt")
    with pytest.warns(UserWarning, match="`total_steps` of the schedule is 2, but the run has 4 steps"):
        fit("--ckpt_path", "former.ckpt", "--trainer.max_steps", "4", "--run", "short")
    assert rates("short") == [0, 0]
    fit("--ckpt_path", LAST, "--trainer.max_steps", "4", TOTAL, "${trainer.max_steps}")  # in a flag too
    assert rates()[2] == pytest.approx(0.05)


def test_a_reference_to_nothing_names_its_key(capsys):
    assert small(["fit", "--model", "SmallModel", "--data", "SmallData", "--model.nan_at", "${trainer.max_stepz}"]) == 2
    message = "model.init_args.nan_at: Interpolation key 'trainer.max_stepz' not found; correct the name"
    assert message in capsys.readouterr().err


def test_references_among_plain_values(monkeypatch):
    typed = {
        "a": "${oc.env:PLACE}",
        "b": ["x-${a}", "${c.d}"],
        "c": {"d": "${n}"},
        "e": "${oc.decode:${oc.env:NANO}}",
        "n": 3,
    }
    full = resolved(typed)
    assert full == {"a": SECRET, "b": [f"x-{SECRET}", 3], "c": {"d": 3}, "e": 1e-9, "n": 3}
    assert as_typed(full, typed) == typed and as_typed(full, {}) == full
    assert without_secrets(full, typed) == {
        "a": "${oc.env:PLACE}",
        "b": ["x-${oc.env:PLACE}", 3],
        "c": {"d": 3},
        "e": "${oc.decode:${oc.env:NANO}}",
        "n": 3,
    }
    assert settled(typed, "c")["b"] == ["x-${a}", "${n}"]
    monkeypatch.delenv("PLACE")
    assert value_at(typed, "c.d") == 3 and value_at(typed, "c") == {"d": 3} and value_at(typed, "z.y") is None
