"""Query, select and rank over rows of a table, by the three commands in three folders."""

import csv
import json
import shutil

from crossing import files

from lit_valuation.cli import main

FIT = """
seed_everything: 0
data: {class_path: OwnersDataModule, init_args: {root: ., party: trainer, batch_size: 32}}
model:
  class_path: ClassifierTask
  init_args:
    network: {class_path: lit_valuation.nn.MLP, init_args: {hidden: [32]}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.01}}
trainer:
  max_steps: 150
  limit_val_batches: 0
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  enable_model_summary: false
"""


def test_rows_of_a_table_cross(tmp_path, monkeypatch, capsys):
    def run(home, *args):
        monkeypatch.chdir(tmp_path / home)
        capsys.readouterr()
        assert main([*map(str, args)]) == 0
        return capsys.readouterr().out

    for home in ("all", "trainer_home", "alice_home", "bob_home"):
        (tmp_path / home).mkdir()
    run("all", "divide", "--config", "configs/valuation/divide/tumours.yaml", "--root", tmp_path / "all")
    for party, home in (("trainer", "trainer_home"), ("owners/owner_1", "alice_home"), ("owners/owner_5", "bob_home")):
        shutil.copytree(tmp_path / "all" / party, tmp_path / home / "trainer")
    trainer = tmp_path / "trainer_home"
    (trainer / "fit.yaml").write_text(FIT)
    run("trainer_home", "fit", "--config", "fit.yaml", "--run", "model")

    mine = ["--ckpt_path", "runs/valuation/model/checkpoints/last.ckpt", "--data", "trainer"]
    ask = ["query", *mine, "--to", "[alice,bob]", "--per_class", 5, "--budget", 10, "--classes", "[malignant]"]
    run("trainer_home", *ask, "--output", "shown", "--dry_run", "true")
    with (trainer / "shown.csv").open() as file:
        shown = list(csv.DictReader(file))
    said = run("trainer_home", *ask, "--output", "hard")
    digest = next(line.split()[-1] for line in said.splitlines() if line.startswith("Read it out"))
    manifest = json.loads((trainer / "hard/manifest.json").read_bytes())
    assert list(shown[0]) == ["name", "class", *manifest["columns"]] and "worst radius" in manifest["columns"]
    assert len(shown) == manifest["contents"]["classes"]["malignant"] and manifest["contents"]["input"] == "table"

    for home, name in (("alice_home", "alice"), ("bob_home", "bob")):
        shutil.copytree(trainer / "hard", tmp_path / home / "hard")
        answer = ["select", "--query", "hard", "--expect_digest", digest, "--data", "trainer", "--to", "clinic"]
        run(home, *answer, "--limit", 20, "--selector", "BinningSelector", "--output", "shared")
        shutil.copytree(tmp_path / home / "shared", trainer / name)
        assert not any(b"breast_cancer-" in content for content in files(trainer / name).values())  # names at home

    answers = json.dumps({"alice": "alice", "bob": "bob"})
    run("trainer_home", "rank", "--query", "hard", "--answers", answers, *mine, "--seeds", 2, "--output", "ranking")
    with (trainer / "ranking/ranking.csv").open() as file:
        rows = {row["owner"]: row for row in csv.DictReader(file)}
    assert [rows[name]["samples"] for name in ("alice", "bob", "(nothing shared)")] == ["10", "1", "0"]
    recall = {name: float(row["hard classes (test)"]) for name, row in rows.items()}
    assert recall["alice"] > recall["(nothing shared)"]
    assert 0 < float(rows["alice"]["relative residual"]) < float(rows["bob"]["relative residual"]) <= 1
