"""Query, select and rank by three commands in three folders."""

import csv
import getpass
import json
import platform
import shutil
import tarfile
from pathlib import Path

import pytest
from crossing import checkpoint, command, files

from lit_valuation.cli import main
from lit_valuation.exchange.ledger import SharingLedger


def digest_of(output):
    return next(line.split()[-1] for line in output.splitlines() if line.startswith("Read it out"))


def test_three_parties_in_three_folders(made, tmp_path, capsys):
    trainer, alice, bob = (tmp_path / name for name in ("trainer_home", "alice_home", "bob_home"))
    trainer.mkdir()
    shutil.copytree(made / "data/trainer", trainer / "data", ignore=shutil.ignore_patterns("ledger.jsonl"))
    shutil.copy(checkpoint(made), trainer / "model.ckpt")
    for home, number in ((alice, 1), (bob, 5)):
        home.mkdir()
        mine = made / f"data/owners/owner_{number}"
        shutil.copytree(mine, home / "data", ignore=shutil.ignore_patterns("ledger.jsonl"))
    shutil.copytree(made / "runs/valuation/owner_1", alice / "run")

    asked = ["query", "--ckpt_path", "model.ckpt", "--data", "data", "--to", "[alice,bob]", "--output", "hard"]
    said = command(trainer, *asked, "--per_class", 3, "--budget", 10)
    digest = digest_of(said)
    assert "held out" in said

    for home in (alice, bob):
        shutil.copytree(trainer / "hard", home / "hard")
    answered = ["select", "--query", "hard", "--data", "data", "--to", "trainer", "--output", "shared", "--limit", 30]
    answered += ["--expect_digest", digest[:16]]
    first = command(alice, *answered, "--selector", "GradientMatchingSelector", "--ckpt_path", "run")
    with pytest.MonkeyPatch.context() as patch:  # the same command, sparing a start
        patch.chdir(bob)
        assert main([*map(str, answered), "--selector", "FeatureSimilaritySelector", "--encoder", "Identity"]) == 0
        second = capsys.readouterr().out
    assert json.loads((alice / "shared/manifest.json").read_bytes())["choice"]["model"] == "lit_valuation.nn.mlp.MLP"

    digests = {"alice": digest_of(first), "bob": digest_of(second)}
    for home, name in ((alice, "alice"), (bob, "bob")):
        shutil.copytree(home / "shared", trainer / name)
    ranked = ["rank", "--query", "hard", "--answers", '{"alice": "alice", "bob": "bob"}', "--ckpt_path", "model.ckpt"]
    ranked += ["--data", "data", "--output", "ranking", "--seeds", 2, "--encoder", "Identity"]
    said = command(trainer, *ranked, "--expect_digests", json.dumps(digests))
    assert "They will take about" in said and "6 trainings of 60 steps" in said
    with (trainer / "ranking/ranking.csv").open() as file:
        rows = {row["owner"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"alice", "bob", "(nothing shared)"}
    assert 0 < float(rows["alice"]["relative residual"]) < 1 and float(rows["bob"]["mean psi"]) > 0
    page = (trainer / "ranking/report.html").read_text()
    assert "data:image/png;base64," in page and 'src="http' not in page and "alice" in page
    assert (trainer / "ranking/ranking.png").read_bytes()[:4] == b"\x89PNG"

    events = [(entry.event, entry.counterparty) for entry in SharingLedger(trainer / "data/ledger.jsonl").entries()]
    assert events == [("query", "alice"), ("query", "bob"), ("received", "alice"), ("received", "bob")]
    before = {path: path.stat().st_mtime_ns for path in (trainer / "ranking/trainings").iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trainer)
        assert main([*map(str, ranked)]) == 0
    assert "trainings of" not in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (trainer / "ranking/trainings").iterdir()}

    private = [
        str(tmp_path),
        str(Path.home()),
        str(Path.cwd()),
        platform.node(),
        "trainer_home",
        "alice",
        "bob",
        "owner_",
    ]
    private += ["model.ckpt", "checkpoint/"] + ([getpass.getuser()] if getpass.getuser() != "root" else [])
    for left in (trainer / "hard", alice / "shared", bob / "shared"):
        listed = json.loads((left / "manifest.json").read_bytes())["contents"]["shards"]
        assert {path.name for path in left.iterdir()} == {"manifest.json", "index.json", *(s["file"] for s in listed)}
        for shard in listed:
            with tarfile.open(left / shard["file"]) as archive:
                members = archive.getmembers()
            assert [member.name for member in members] == shard["members"]
            assert {(m.uname, m.gname, m.mtime) for m in members} == {("litshift", "litshift", 0)}
        for name, content in files(left).items():
            for word in private:
                assert word.encode() not in content, (name, word)
    at_home = SharingLedger(alice / "data/ledger.jsonl").find("answer", digests["alice"]).samples
    assert len(at_home) == len(json.loads((alice / "shared/manifest.json").read_bytes())["keys"])


@pytest.mark.slow
def test_two_processes_select_and_rank_as_one(place):
    two = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    select = ["select", "--query", "query", "--to", "new", "--new_party", "true", "--limit", 12]
    select += [
        "--data",
        "data/owners/owner_1",
        "--selector",
        "GradientMatchingSelector",
        "--ckpt_path",
        "runs/valuation/owner_1",
    ]
    command(place, *select, "--output", "one")
    command(place, *select, "--output", "two", *two)
    one, two_ = (files(place / name) for name in ("one", "two"))
    assert {name: one[name] for name in one if name.endswith(".tar")} == {
        name: two_[name] for name in two_ if name.endswith(".tar")
    }
    rank = ["rank", "--query", "query", "--answers", '{"a": "answer_1", "b": "answer_5"}', "--data", "data/trainer"]
    rank += ["--ckpt_path", "runs/valuation/trainer/checkpoints/last.ckpt", "--seeds", 2]
    rank += ["--mass", 0.3, "--weights", "manifest"]
    command(place, *rank, "--output", "ranking_1")
    command(place, *rank, "--output", "ranking_2", *two)
    tables = []
    for number in (1, 2):
        with (place / f"ranking_{number}/ranking.csv").open() as file:
            tables.append({row["owner"]: float(row["held-out hard cases"]) for row in csv.DictReader(file)})
    assert tables[0] == pytest.approx(tables[1], abs=0.02)
