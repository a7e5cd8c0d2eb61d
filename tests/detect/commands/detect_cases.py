"""Small data and arguments with which each verb of lit-detect runs."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from austen_pairs import pairs
from options import Case
from tiny_models import save_gpt2

from lit_core.corpora import Austen
from lit_detect.cli import main

JSONL = "lit_detect.formats.LitShiftJSONL"
PAIRS, OTHERS = (
    {"class_path": JSONL, "init_args": {"path": f"{name}.jsonl", "name": name}} for name in ("pairs", "others")
)
TEXTS, MORE = (
    {"class_path": "lit_core.corpora.TextFolder", "init_args": {"folder": name, "name": name}}
    for name in ("texts", "more")
)
LM, OTHER_LM = (
    {"class_path": "lit_core.lm.HuggingFaceLM.from_pretrained", "init_args": {"name": name}}
    for name in ("gpt2", "other")
)
FIT = {
    "data": {"class_path": "TextDataModule", "init_args": {"root": "prepared", "train": ["pairs"]}},
    "model": {
        "class_path": "DetectorTask",
        "init_args": {
            "detector": {"class_path": "EncoderDetector", "init_args": {"model": "scratch-1x32"}},
            "min_tokens": 1,
        },
    },
    "trainer": {
        **{"max_steps": 2, "limit_val_batches": 0, "accelerator": "cpu", "devices": 1, "logger": False},
        **{"enable_progress_bar": False, "enable_model_summary": False},
    },
}
SENTENCES = {"class_path": "SentenceSimilarity", "init_args": {"encoder": "bert"}}
GRUEN = {"language_model": "bert", "acceptability": "bert"}
CHECKPOINT = "runs/detect/{}/checkpoints/last.ckpt"
NO_DEVICE = {
    "trainer.accelerator": "none",
    "trainer.strategy": "none",
    "trainer.devices": 0,
    "trainer.precision": "64-true",
}
PREPARE = {"root": "new", "sources": [PAIRS], "val_fraction": 0.2, "test_fraction": 0.2}
CASES = {
    "prepare": Case(
        PREPARE,
        {"root": "other", "sources": [PAIRS, OTHERS], "shard_size": 10},
        under={"keep_splits": {"sources": [OTHERS]}},
        alone={"verify": {"root": "prepared"}},
    ),
    "generate": Case(
        {
            "output": "new.jsonl",
            "corpora": [TEXTS],
            "language_model": LM,
            "name": "tiny",
            "decodings": [{"name": "pure"}],
        }
        | {"priming_tokens": [4], "train": 2, "words": 3, "max_new_tokens": 12, "trainer": {"devices": 1}},
        {"output": "other.jsonl", "corpora": [MORE], "language_model": OTHER_LM, "name": "other", "priming_tokens": [9]}
        | {"decodings": [{"name": "pure", "temperature": 0.5}], "val": 1, "test": 1, "tokenizer": "bytes", "seed": 1}
        | NO_DEVICE,
        same={"batch_size": "it changes the texts by rounding only"},
    ),
    "attack": Case(
        {"attack": "UpperLower", "output": "new.jsonl", "input": "pairs.jsonl", "limit": 4},
        {
            "attack": "Homoglyph",
            "output": "other.jsonl",
            "input": "others.jsonl",
            "source": PAIRS,
            "limit": 3,
            "seed": 1,
        }
        | NO_DEVICE,
    ),
    "calibrate": Case(
        {"ckpt_path": CHECKPOINT.format("one"), "human": "pairs.jsonl", "fpr": 0.3, "output": "new.json"},
        {"ckpt_path": CHECKPOINT.format("two"), "human": "others.jsonl", "by": "domain", "machine": "pairs.jsonl"}
        | {"text_column": "title", "output": "other.json", "fpr": 0.5, "confidence": 0.5, "detector": "classifier"},
        under={"text_column": {"human": "table.csv"}, "strictest": {"by": "domain"}},
        alone={"detector": {"human": "pairs.jsonl", "fpr": 0.3, "output": "new.json"}},
    ),
    "explain": Case(
        {"input": "texts/0.txt", "detector": CHECKPOINT.format("one"), "output": "new.html"},
        {"input": "texts/1.txt", "detector": CHECKPOINT.format("two"), "output": "other.html"}
        | {"calibration": "by.json", "group": "emma"},
        under={"group": {"calibration": "by.json"}},
    ),
    "report": Case(
        {"detectors": {"one": CHECKPOINT.format("one")}, "texts": ["pairs.jsonl", "attacked.jsonl"], "output": "new"},
        {"detectors": {"two": CHECKPOINT.format("two")}, "texts": ["others.jsonl"], "output": "other", "by": ["domain"]}
        | {"split": "train", "similarity": SENTENCES, "language_model": LM, "seed": 1, "gruen": GRUEN}
        | {"resamples": 10}
        | {**NO_DEVICE, "trainer.precision": "bf16-mixed"},
        under={"split": {"texts": ["prepared/others"]}},
        empty={"by": "no conditions"},
        slow=("all",),  # draws figures
    ),
}


def begin(tiny_gpt2, tiny_bert):
    """Put in the working directory: texts in several forms, two detectors and some models of transformers."""
    records = list(pairs(24))
    splits = ["train", "val", "test"]
    others = [replace(one, split=splits[number // 2 % 3]) for number, one in enumerate(list(pairs(48))[48:])]
    for name, rows in (("pairs", records), ("others", others)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    with open("table.csv", "w", newline="") as file:
        rows = [(one.text[:100], one.text[100:200]) for one in records if one.label == 0]
        csv.writer(file).writerows([("text", "title"), *rows])
    for name, first in (("texts", 0), ("more", 8)):
        Path(name).mkdir()
        for number, document in enumerate(list(Austen().documents())[first : first + 8]):
            Path(name, f"{number}.txt").write_text(document.text[:3000])
    shutil.copytree(tiny_gpt2, "gpt2")
    shutil.copytree(tiny_bert, "bert")
    shutil.copytree(tiny_bert, "classifier")
    config = json.loads(Path("classifier/config.json").read_text())
    Path("classifier/config.json").write_text(json.dumps({**config, "id2label": {"0": "human", "1": "machine"}}))
    torch.manual_seed(1)
    save_gpt2("other")

    def run(verb, *flags, **arguments):
        Path("verb.yaml").write_text(yaml.safe_dump(arguments))
        assert main([verb, "--config", "verb.yaml", *flags]) == 0
        Path("verb.yaml").unlink()

    run("prepare", **{**PREPARE, "root": str(Path("prepared").absolute()), "sources": [PAIRS, OTHERS]})
    for seed, name in enumerate(("one", "two")):
        run("fit", "--run", name, "--seed_everything", str(seed), **FIT)
    run("attack", attack="UpperLower", output="attacked.jsonl", input="pairs.jsonl")
    run("calibrate", ckpt_path=CHECKPOINT.format("one"), human="pairs.jsonl", fpr=0.3, by="domain", output="by.json")
