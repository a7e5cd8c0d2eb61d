"""A place where all is right, and changes that put something wrong into it."""

import copy
import hashlib
import io
import json
import os
import pickle
import shutil
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
import yaml

from lit_moe.cli import main

RUN = yaml.safe_load("""
data:
  class_path: lit_moe.TokenDataModule
  init_args: {root: tokens, sources: {stdlib: 1}, replay: {austen: 1}, sequence_length: 32, global_batch_size: 4,
    micro_batch_size: 2, validation_samples: 4, test_samples: 4}
model:
  class_path: lit_moe.MoELanguageModel
  init_args:
    decoder: {feed_forward: switch, n_layers: 1, d_model: 16, n_heads: 2, d_ff: 16, max_seq_len: 64}
    router: {class_path: lit_moe.nn.TopKRouter, init_args: {normalize_top_k: false}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.001}}
trainer:
  accelerator: cpu
  max_steps: 2
  log_every_n_steps: 1
  val_check_interval: 2
  check_val_every_n_epoch: null
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lit_moe.RouterBalance
      init_args: {heat_map_every: 0}
    - class_path: lit_moe.ReplayMixing
      init_args: {fraction: 0.5}
    - class_path: lit_moe.Forgetting
      init_args: {old: [austen], new: [stdlib]}
""")
FRACTION = "trainer.callbacks.1.init_args.fraction"
PREPARE = {
    "root": "new",
    "corpora": [{"class_path": "lit_core.corpora.TextFolder", "init_args": {"folder": "texts", "name": "mine"}}],
    "tokenizer": "bytes",
}
LAST = "runs/moe/first/checkpoints/last.ckpt"
FIT = ["fit", "--config", "run.yaml", "--run", "x"]
FIT_AS_IS = FIT[:3]
RESUME = ["fit", "--ckpt_path", LAST, "--trainer.max_steps", "4"]
BRANCH = [*FIT, "--branch_from", LAST]
TEST = ["test", "--ckpt_path", LAST]
GENERATE = ["generate", "--ckpt_path", LAST, "--max_new_tokens", "4"]
MAKE = ["prepare", "--config", "prepare.yaml"]


# What is on disk


@contextmanager
def inside(place):
    """Work in a place, with its data root and its folder of temporary files."""
    (place / "temporary").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "work")
        patch.setenv("LITSHIFT_DATA", str(place / "data"))
        patch.setattr(tempfile, "tempdir", str(place / "temporary"))
        yield place


def write(path, content):
    Path(path).write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))


def listing(place):
    return {
        str(path.relative_to(place)): path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(place).rglob("*")
    }


def said(args):
    """Run a command; return its exit code and what it says beginning with its name."""
    err, out = io.StringIO(), io.StringIO()
    with redirect_stderr(err), redirect_stdout(out):
        code = main(args)
    assert "Traceback" not in err.getvalue() + out.getvalue()
    return code, [line for line in err.getvalue().splitlines() if line.startswith("lit-moe: ")]


def refused(place, args, code, *parts):
    """Check exit code, the one sentence, and that nothing on disk has changed."""
    before = listing(place)
    found, lines = said(args)
    advice = [line for line in lines if "add --debug" in line or "the last checkpoint is kept" in line]
    sentences = [line for line in lines if line not in advice]
    assert found == code and len(sentences) == 1, (found, lines)
    assert all(part in sentences[0] for part in parts), sentences[0]
    assert sentences[0].endswith((".", "?")) and len(sentences[0]) < 1200
    assert bool(advice) == (code == 1)
    assert listing(place) == before
    return sentences[0]


# Changes to what is right


def edited(config, key, value):
    """Return a copy of a config with one value set; None as value removes it."""
    config = copy.deepcopy(config)
    node = config
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in path:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return config


def run(key, value):
    return lambda: write("run.yaml", edited(RUN, key, value))


def make(key, value):
    return lambda: write("prepare.yaml", edited(PREPARE, key, value))


def put(path, content):
    return lambda: Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def remove(path):
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def changed(path, change):
    def apply():
        content = bytearray(Path(path).read_bytes())
        Path(path).write_bytes(change(content) or content)

    return apply


def flipped(position):
    def flip(content):
        content[position] ^= 0xFF

    return flip


def every_token(content):
    content[700:-3000] = b"\xff" * (len(content) - 3700)


def other_source(content):
    index = json.loads(content)
    index["tokenizer"] = {}
    return json.dumps(index).encode()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def bomb():
    torch.save({"state_dict": {}, "global_step": 2, "bomb": Bomb()}, "x.ckpt")


def plain_bomb():
    Path("x.ckpt").write_bytes(pickle.dumps(Bomb()))


def checkpoint(**changes):
    def apply():
        content = torch.load(LAST, weights_only=True)
        torch.save({**content, **changes}, "x.ckpt")

    return apply


def poisoned():
    """Weights with which the loss is no number."""
    content = torch.load(LAST, weights_only=True)
    content["state_dict"]["decoder.norm.weight"].fill_(torch.nan)
    torch.save(content, LAST)


def foreign_shards():
    shutil.rmtree("../data/tokens/austen")
    shutil.copytree("../data/bytes/austen", "../data/tokens/austen")


def foreign_root():
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"../data/bytes/{name}", f"../data/tokens/{name}")


def json_lines(text):
    corpus = {"class_path": "lit_core.corpora.JSONLines", "init_args": {"path": "rows.jsonl", "name": "mine"}}

    def apply():
        write("prepare.yaml", {**PREPARE, "corpora": [corpus]})
        Path("rows.jsonl").write_text(text)

    return apply


def without_text():
    for path in Path("texts").iterdir():
        path.write_text(" \n")


def small_moe(**arguments):
    return run("model.init_args.decoder.feed_forward", {"n_experts": 4, "top_k": 2, "expert_width": 8} | arguments)


def data(name, value):
    return [*FIT, f"--data.{name}", value]


def decoder(name, value):
    return [*FIT, f"--model.decoder.{name}", value]


SHARD, INDEX = "../data/tokens/stdlib/train/000000.tar", "../data/tokens/stdlib/train/index.json"
TEST_SHARD = "../data/tokens/stdlib/test/000000.tar"
TEXT = ["--data.root", "bytes"]
