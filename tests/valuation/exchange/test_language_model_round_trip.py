"""Query, select and rank by the command line with a language model of one's own, on plain texts."""

import csv
import json
import re

import pytest
import torch
from own_llama import Llama
from own_texts import parties, write_plain

from lit_core.data import ResumeStream
from lit_valuation.cli import main
from lit_valuation.data.module import OwnersDataModule


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_answers_of_plain_texts_are_ranked(tied, tmp_path, monkeypatch, capsys, quiet):
    def run(*args, code=0):
        assert main([*map(str, args)]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    for party, texts in parties().items():
        write_plain(f"{party}.jsonl", texts)
        given = ["--source", "PlainTexts", "--source.path", f"{party}.jsonl", "--source.tokenizer", "bytes"]
        run("prepare", "--root", f"./{party}", *given, "--source.length", 64, "--val_fraction", 0.4)
    for party in ("trainer", "alice"):
        torch.manual_seed(0)
        trainer = quiet(ResumeStream(), max_steps=20)
        trainer.fit(Llama(tied), datamodule=OwnersDataModule(str(tmp_path / party), batch_size=8))
        trainer.save_checkpoint(f"{party}.ckpt")
    model = ["--ckpt_path", "trainer.ckpt", "--model", "own_llama.Llama", "--data", "./trainer"]

    ask = ["query", *model, "--to", "[alice,bob]", "--worst", 0.4, "--new_party", "true", "--output", "query"]
    told = run(*ask, "--per_class", 4, "--budget", 6)
    assert re.search(r"samples with a loss of \d", told) and "hard cases with their targets: next token." in told
    contents = json.loads((tmp_path / "query/manifest.json").read_bytes())["contents"]
    assert contents["target"] == "text" and contents["classes"] == {"next token": contents["count"]}
    answer = ["select", "--query", "query", "--to", "trainer", "--new_party", "true", "--limit", 10]
    matching = ["--selector", "GradientMatchingSelector", "--ckpt_path", "alice.ckpt", "--model", "own_llama.Llama"]
    run(*answer, "--data", "./alice", *matching, "--output", "from_alice")
    run(
        *answer,
        "--data",
        "./bob",
        "--selector",
        "FeatureSimilaritySelector",
        "--encoder",
        "TokenCounts",
        "--output",
        "b",
    )
    ranked = ["rank", "--query", "query", "--answers", '{"alice": "from_alice", "bob": "b"}', *model, "--seeds", 2]
    said = run(*ranked, "--batch_size", 8, "--output", "ranking")
    assert "minus the loss per token" in said
    with open("ranking/ranking.csv") as file:
        rows = {row["owner"]: row for row in csv.DictReader(file)}
    assert all(-6 < float(row["held-out hard cases"]) < 0 for row in rows.values())
    assert 0 < float(rows["alice"]["relative residual"]) < 1

    said = run(
        *answer,
        "--data",
        "./bob",
        "--selector",
        "KNNShapleySelector",
        "--encoder",
        "TokenCounts",
        "--output",
        "c",
        code=2,
    )
    assert "texts have one per token" in said
    said = run(*ask[:-1], "other", "--gradients", "trainer", code=2)
    assert "which owners do not have" in said
