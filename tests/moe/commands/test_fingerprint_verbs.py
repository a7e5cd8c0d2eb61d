"""`lit-moe fingerprint` and `lit-moe drift`: the table against a naive count, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_core.lm.tokenizer import Tokenizer
from lit_moe.cli import main
from lit_moe.fingerprint import Fingerprint
from lit_moe.interop.importing import new_checkpoint
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, MoEConfig


def mixture(n_experts):
    return MoEConfig(n_experts=n_experts, top_k=2, expert_width=8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function that saves a checkpoint of a model, and returns its path."""
    folder = tmp_path_factory.mktemp("models")

    def save(seed=0, tokenizer=None, feed_forward=None):
        config = DecoderConfig(300, 2, 16, 2, feed_forward=feed_forward or mixture(4), max_seq_len=48, d_ff=8)
        weights, tokenizer = MoELanguageModel(config, seed=seed).state_dict(), tokenizer or Tokenizer.bytes()
        about = {"json": tokenizer.to_json(), "sha256": tokenizer.sha256, "start": []}
        path = folder / f"{len(list(folder.iterdir()))}.ckpt"
        torch.save({**new_checkpoint(config, weights), "tokenizer": about}, path)
        return str(path)

    return save


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("de.txt").write_text("Es war spät, und Emma ging nach Hause. " * 9)
    Path("en.txt").write_text("It was late, and Emma went home. " * 9)


TEXTS = ["--texts.de", "de.txt", "--texts.en", "en.txt"]


def take(checkpoint, output, *more):
    assert main(["fingerprint", "--ckpt_path", checkpoint, "--output", output, *more]) == 0


def refused(capsys, *args):
    assert main(list(args)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_table_is_that_of_a_naive_count_and_the_picture_is_drawn(saved, capsys):
    pytest.importorskip("matplotlib")
    for seed, name in enumerate(("before.npz", "after.npz")):
        take(saved(seed), name, *TEXTS, "--tokens", "200", "--sequence_length", "32")
    old, new = (Fingerprint.load(name, "before") for name in ("before.npz", "after.npz"))
    tokens = Tokenizer.bytes()
    ids = [*tokens.encode(Path("de.txt").read_text()), tokens.end_of_text][:201]
    assert old.probe.ids[old.probe.counted][:200].tolist() == ids[:-1] and old.probe.domains == ("de", "en")
    capsys.readouterr()
    assert main(["drift", "--before", "before.npz", "--after", "after.npz", "--output", "drift.png"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if re.match(r"(layer|mean|\d)", line)]
    assert rows[0] == ["layer", "de", "en", "mean", "unrelated"] and [row[0] for row in rows[1:]] == ["0", "1", "mean"]
    for layer in range(2):
        for domain in range(2):
            shares = []
            for s, row in enumerate(old.probe.rows.tolist()):
                for t in range(32):
                    if row[t + 1] >= 0 and int(old.probe.domain[s]) == domain:
                        one, other = (set(each.experts[layer][s, t].tolist()) for each in (old, new))
                        shares.append(1 - len(one & other) / 2)
            assert len(shares) == 200 and abs(float(rows[1 + layer][1 + domain]) - np.mean(shares)) < 6e-4
        assert rows[1 + layer][-1] == "0.500"
    assert Path("drift.png").read_bytes()[:4] == b"\x89PNG" and json.loads(Path("drift.png.run.json").read_text())
    assert main(["drift", "--before", "before.npz", "--after", "before.npz"]) == 0
    assert "mean   0.000  0.000  0.000" in capsys.readouterr().out


def test_a_probe_of_another_fingerprint_and_the_embedded_one(saved, capsys):
    take(saved(0), "own.npz", *TEXTS)
    take(saved(1), "same.npz", "--probe", "own.npz")
    own, same = (Fingerprint.load(name, "probe") for name in ("own.npz", "same.npz"))
    assert own.probe.sha256 == same.probe.sha256 and not torch.equal(own.experts[0], same.experts[0])
    assert own.probe.rows.shape[1] == 49, "no more than the model takes"
    take(saved(0), "novels.npz", "--tokens", "96")
    novels = Fingerprint.load("novels.npz", "probe").probe
    assert len(novels.domains) == 6 and "emma" in novels.domains and int(novels.counted.sum()) == 6 * 96
    said = refused(capsys, "drift", "--before", "own.npz", "--after", "novels.npz")
    assert "before is own.npz and after is novels.npz, whose tokens differ" in said and "--probe" in said


def test_what_cannot_be_compared_or_written_is_refused(saved, capsys):
    take(saved(0), "own.npz", *TEXTS)
    other = Tokenizer.train_bpe(["It was late, and Emma went home."], 270)
    take(saved(0, tokenizer=other), "bpe.npz", *TEXTS)
    take(saved(0, feed_forward=mixture(8)), "wide.npz", *TEXTS)
    capsys.readouterr()
    checkpoint = saved(0)
    assert "whose tokenizer differ" in refused(capsys, "drift", "--before", "own.npz", "--after", "bpe.npz")
    assert "of 2 mixture layers of 8 experts" in refused(capsys, "drift", "--before", "own.npz", "--after", "wide.npz")
    before = Path("own.npz").read_bytes()
    start = ["fingerprint", "--ckpt_path", checkpoint, "--output"]
    assert "own.npz" in refused(capsys, *start, "own.npz", *TEXTS) and Path("own.npz").read_bytes() == before
    assert "give a name that ends in .npz" in refused(capsys, *start, "own.json", *TEXTS)
    assert "ends in .png" in refused(capsys, "drift", "--before", "own.npz", "--after", "own.npz", "--output", "x.txt")
    for more, words in (
        (["--probe", "bpe.npz"], "probe is bpe.npz, whose tokens are of the tokenizer"),
        (["--probe", "own.npz", *TEXTS], "texts is given beside probe"),
        (["--sequence_length", "64"], "sequence_length is 64, but the model takes at most 48"),
        (["--texts.a", "nowhere.txt"], "texts has nowhere.txt for a, but there is no such file"),
        (["--tokens", "0"], "tokens is 0"),
    ):
        assert words in refused(capsys, *start, "new.npz", *more)
    dense = saved(0, feed_forward="dense")
    said = refused(capsys, "fingerprint", "--ckpt_path", dense, "--output", "new.npz")
    assert "whose model has no mixture layers" in said and not Path("new.npz").exists()
