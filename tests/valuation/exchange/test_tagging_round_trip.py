"""Prepare, fit, query, select and rank by the command line where each word of a text has a tag."""

import csv
import json
import re

import pytest
from metric_keys import documented, logged
from own_texts import WORD, parties, tag, write_tagged

from lit_valuation.cli import main

FIT = """
seed_everything: 0
data: {class_path: OwnersDataModule, init_args: {root: ./trainer, batch_size: 16}}
model:
  class_path: TaggingTask
  init_args:
    network: {class_path: lit_valuation.nn.TokenConvNet, init_args: {vocabulary: 257, width: 16, hidden: [16]}}
    positions: POSITIONS
    hard_classes: [NAME]
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.005}}
trainer:
  {max_steps: 40, log_every_n_steps: 20, accelerator: cpu, devices: 1, enable_progress_bar: false}
"""


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["mean", "sum"])
def test_answers_of_tagged_texts_are_ranked(positions, tmp_path, monkeypatch, capsys):
    def run(*args, code=0):
        assert main([*map(str, args)]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    for party, texts in parties().items():
        write_tagged(f"{party}.jsonl", texts)
        given = ["--source", "TaggedWords", "--source.path", f"{party}.jsonl", "--source.tokenizer", "bytes"]
        run("prepare", "--root", f"./{party}", *given, "--val_fraction", 0.4)
    (tmp_path / "fit.yaml").write_text(FIT.replace("POSITIONS", positions))
    run("fit", "--config", "fit.yaml", "--run", "m")
    model = ["--ckpt_path", "runs/valuation/m/checkpoints/last.ckpt"]
    said = run("test", *model)
    assert "accuracy, 0 to 1" in said
    keys = {re.sub(r"^(val|test)/\w+/", r"\1/{source}/", key) for key in logged("runs/valuation/m/metrics.csv")}
    assert {key.replace("NAME", "{class}") for key in keys} == documented("TaggingTask", "UnmovedWeights")
    run("predict", *model)
    with open("runs/valuation/m/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"index", "tags"} and set(rows[0]["tags"].split()) <= {"NAME", "NUMBER", "SIGN", "WORD"}

    ask = ["query", *model, "--data", "./trainer", "--to", "[alice,bob]", "--worst", 0.4, "--new_party", "true"]
    told = run(*ask, "--output", "shown", "--per_class", 6, "--dry_run", "true")
    assert "They are whole texts, as token ids." in told
    with open("shown.csv") as file:
        shown = list(csv.DictReader(file))
    assert set(shown[0]) == {"name", "target", "text", "token ids"}
    trainer = {
        " ".join(WORD.findall(text)[:20]).encode()[:128].decode(errors="ignore") for text in parties()["trainer"]
    }
    for row in shown:  # words of the trainer's own file, each with the tag that the rule gives it
        words, tags = row["target"].split()[::2], row["target"].split()[1::2]
        assert row["text"] in trainer and row["text"].split() == words
        assert tags[:-1] == [f"[{tag(word)}]" for word in words[:-1]]
    run(*ask, "--output", "query", "--per_class", 6, "--budget", 10, "--gradients", "trainer")
    contents = json.loads((tmp_path / "query/manifest.json").read_bytes())["contents"]
    assert (
        contents["target"] == "tags"
        and 2 <= contents["count"] <= 6
        and contents["vocabulary"].startswith("257 tokens, ")
    )
    assert set(contents["classes"]) == {"NAME", "NUMBER", "SIGN", "WORD"}
    for party in ("alice", "bob"):
        answer = ["select", "--query", "query", "--data", f"./{party}", "--to", "trainer", "--new_party", "true"]
        run(*answer, "--limit", 10, "--selector", "GradientMatchingSelector", "--output", f"from_{party}")
    other = ["select", "--query", "query", "--data", "./bob", "--to", "trainer", "--limit", 30, "--output", "by_counts"]
    run(*other, "--selector", "FeatureSimilaritySelector", "--encoder", "TokenCounts")
    answers = json.dumps({"alice": "from_alice", "bob": "from_bob"})
    said = run("rank", "--query", "query", "--answers", answers, *model, "--data", "./trainer", "--output", "ranking")
    assert re.search(r"hard cases: share of right tags on \d+ hard cases", said)
    with open("ranking/ranking.csv") as file:
        rows = {row["owner"]: row for row in csv.DictReader(file)}
    assert all(0 <= float(row["held-out hard cases"]) <= 1 for row in rows.values())
    assert 0 < float(rows["alice"]["relative residual"]) < 1

    given = ["--source", "TaggedWords", "--source.path", "bob.jsonl", "--source.length", 64]
    run("prepare", "--root", "./short", *given, "--source.tokenizer", "bytes")
    wrong = ["select", "--query", "query", "--to", "trainer", "--new_party", "true", "--limit", 9, "--output", "x"]
    said = run(*wrong, "--data", "./short", "--selector", "RandomSelector", code=2)
    assert "tokens (128,)" in said and "prepare your data in that shape" in said
