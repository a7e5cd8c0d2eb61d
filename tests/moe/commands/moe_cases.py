"""Small data and arguments with which each verb of lit-moe runs."""

from pathlib import Path

import torch
import yaml
from options import Case

from lit_core.corpora import Austen
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lightning.loggers import CSVLog
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.cli import main

TEXTS = {"class_path": "lit_core.corpora.TextFolder", "init_args": {"folder": "texts", "name": "texts"}}
OTHERS = {"class_path": "lit_core.corpora.TextFolder", "init_args": {"folder": "others", "name": "others"}}
GAIN = {
    "class_path": "lit_core.study.PairedGain",
    "init_args": {"metric": "accuracy", "of": {"share": 0.5}, "over": [{"share": 0.2}]},
}


def measured(seed: int, share: float):
    """A measurement for a study."""
    return [{"accuracy": share + seed / 100}]


GRID = {"function": "moe_cases.measured", "vary": {"share": [0.2, 0.5]}}
CASES = {
    "prepare": Case(
        {"root": "new", "corpora": [TEXTS, OTHERS], "val_fraction": 0.3, "test_fraction": 0.3, "shard_bytes": 3000},
        {"root": "other", "corpora": [TEXTS], "tokenizer": "bytes", "vocab_size": 300, "tokenizer_bytes": 2000}
        | {"max_bytes": 5000, "shard_bytes": 1000},
        alone={"verify": {"root": "prepared"}},
        same={"workers": "equal files for any number of workers"},
        slow=("workers",),  # starts Python for each
    ),
    "generate": Case(
        {"ckpt_path": "dense.ckpt", "prompt": "It is", "max_new_tokens": 8, "samples": 3, "output": "texts.jsonl"},
        {"ckpt_path": "more.ckpt", "prompt": ["Emma"], "prompt_file": "prompts.txt", "top_k": 1, "top_p": 0.2}
        | {"repetition_penalty": 9.0, "seed": 1, "output": "other.jsonl", "device": "none"},
        same={"batch_size": "a text does not depend on the others"},
    ),
    "import": Case({"model": "theirs", "output": "new.ckpt"}, {"model": "more", "output": "other.ckpt", "layers": 1}),
    "export": Case(
        {"ckpt_path": "dense.ckpt", "output": "new"},
        {"ckpt_path": "mixture.ckpt", "output": "other", "shard_bytes": 5000},
    ),
    "upcycle": Case(
        {"ckpt_path": "dense.ckpt", "output": "new.ckpt", "granularity": 2, "top_k": 4},
        {"ckpt_path": "more.ckpt", "output": "other.ckpt", "n_experts": 10, "top_k": 2, "granularity": 4, "noise": 0.1}
        | {"seed": 1},
    ),
    "grow": Case(
        {"ckpt_path": "mixture.ckpt", "output": "new.ckpt", "n_added": 3},
        {"ckpt_path": "more_mixture.ckpt", "output": "other.ckpt", "n_added": 5, "start": "fresh", "noise": 0.5}
        | {"warmup": 7, "seed": 1},
    ),
    "fingerprint": Case(
        {"ckpt_path": "mixture.ckpt", "texts": {"one": "texts/0.txt"}, "output": "new.npz"},
        {"ckpt_path": "more_mixture.ckpt", "texts": {"one": "texts/1.txt"}, "output": "other.npz", "device": "none"}
        | {"tokens": 100, "sequence_length": 32, "batch_size": 3, "probe": "before.npz"},
        alone={"probe": {"ckpt_path": "mixture.ckpt", "output": "new.npz"}},
    ),
    "drift": Case(
        {"before": "before.npz", "after": "after.npz", "output": "new.png"},
        {"before": "after.npz", "after": "before.npz", "output": "other.png"},
    ),
    "doctor": Case(
        {"models": ["small.json"], "checks": ["export"], "output": "found.md"},
        {"models": ["other.json"], "checks": ["resume"], "output": "found.json", "seed": 1},
        slow=("all",),  # each trains a small model, in its own process
    ),
    "consolidate": Case(
        {"ckpt_path": "parts", "output": "new.ckpt"}, {"ckpt_path": "other_parts", "output": "other.ckpt"}
    ),
    "study": Case(
        {"name": "one", "grids": {"all": GRID}, "sizes": {"smoke": {"seeds": [0, 1]}, "small": {"seeds": [0, 1, 2]}}},
        {"name": "other", "grids": {"all": {**GRID, "vary": {"share": [0.3]}}}, "size": "small", "title": "Other"}
        | {"sizes": {"smoke": {"seeds": [0, 3]}}, "claims": {"gain": {"text": "It gains.", "criteria": [GAIN]}}}
        | {"tables": {"Accuracy": {"by": ["share"], "metrics": ["accuracy"]}}, "output": "page.md"}
        | {"figures": {"Curve": {"x": "share", "by": "grid", "metrics": ["accuracy"]}}},
    ),
    "configs": Case({}, {"words": "sinkhorn"}),
    "show": Case({"paths": ["dense.ckpt"]}, {"paths": ["more.ckpt"]}),
    "board": Case({"paths": ["run"], "output": "page.html"}, {"paths": ["other_run"], "output": "other.html"}),
}


def begin():
    """Put in the working directory: texts, models of transformers, and checkpoints."""
    from transformers import LlamaConfig, LlamaForCausalLM

    for name, first in (("texts", 0), ("others", 8)):
        Path(name).mkdir()
        for number, document in enumerate(list(Austen().documents())[first : first + 8]):
            Path(name, f"{number}.txt").write_text(document.text[:1500])
    for value, name in enumerate(("run", "other_run")):
        for step in range(2):
            CSVLog(name).log_metrics({"train/loss": float(value)}, step)
    Path("small.json").write_text('{"model_type": "mixtral"}')
    Path("other.json").write_text('{"model_type": "mixtral", "num_hidden_layers": 2}')
    Path("prompts.txt").write_text("The rain\n")
    for seed, name in enumerate(("theirs", "more")):
        torch.manual_seed(seed)
        shape = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, max_position_embeddings=64)).save_pretrained(name)
        Tokenizer.bytes().save(Path(name, "tokenizer.json"))
    Path("prepare.yaml").write_text(yaml.safe_dump(CASES["prepare"].base))
    assert main(["prepare", "--config", "prepare.yaml", "--root", str(Path("prepared").absolute())]) == 0
    assert main(["import", "--model", "theirs", "--output", "dense.ckpt"]) == 0
    assert main(["import", "--model", "more", "--output", "more.ckpt"]) == 0
    assert main(["upcycle", "--ckpt_path", "dense.ckpt", "--output", "mixture.ckpt"]) == 0
    assert main(["upcycle", "--ckpt_path", "more.ckpt", "--output", "more_mixture.ckpt"]) == 0
    for name, checkpoint in (("before", "mixture.ckpt"), ("after", "more_mixture.ckpt")):
        texts = ["--texts.one", "texts/2.txt", "--texts.two", "texts/3.txt", "--sequence_length", "32"]
        assert main(["fingerprint", "--ckpt_path", checkpoint, *texts, "--output", f"{name}.npz"]) == 0
    for name, checkpoint in (("parts", "dense.ckpt"), ("other_parts", "more.ckpt")):
        Path(name).mkdir()
        torch.save({**load_checkpoint_file(checkpoint), "parts": 0}, f"{name}/meta.pt")
