"""Empty texts where a place is asked for, at any depth and of any command."""

from pathlib import Path

import pytest
import yaml

import lit_moe.cli

RUN = {
    "data": {"class_path": "lit_moe.TokenDataModule", "init_args": {"root": "tokens", "sources": {"austen": 1}}},
    "model": {"class_path": "lit_moe.MoELanguageModel", "init_args": {"decoder": {"n_layers": 1}}},
}


@pytest.mark.parametrize("name", ["data.init_args.root", "ckpt_path", "branch_from"])
def test_a_run_refuses_an_empty_place(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(yaml.safe_dump(RUN))
    assert lit_moe.cli.main(["fit", "--config", "run.yaml", f"--{name}", ""]) == 2
    assert f"{name} is empty; give a value" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_a_verb_refuses_an_empty_place_in_a_part(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    corpus = {"class_path": "lit_core.corpora.TextFolder", "init_args": {"folder": "", "name": "mine"}}
    Path("verb.yaml").write_text(yaml.safe_dump({"root": "new", "corpora": [corpus]}))
    assert lit_moe.cli.main(["prepare", "--config", "verb.yaml"]) == 2
    assert "corpora.0.init_args.folder is empty; give a value" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["verb.yaml"]
