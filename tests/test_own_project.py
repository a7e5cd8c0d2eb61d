"""The page "In your own project" runs as it stands there."""

import re
from pathlib import Path

import torch

from lit_moe import MoELanguageModel
from lit_moe.nn import DecoderConfig

PAGE = Path(__file__).parents[1] / "docs" / "own_project.md"
SMALL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 16, "max_seq_len": 64}


def test_each_example_of_the_page_runs(tmp_path, monkeypatch, token_root):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 5
    names = {"__name__": "own_project"}
    with torch.random.fork_rng():
        for block in blocks:
            exec(compile(block, PAGE.name, "exec"), names)
        data = ["--data.root", str(token_root), "--data.sources", '{"austen": 1}', "--data.sequence_length", "32"]
        data += ["--data.global_batch_size", "4", "--data.micro_batch_size", "2"]
        decoder = [f"--model.decoder.{name}={value}" for name, value in SMALL.items()]
        short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.accelerator", "cpu"]
        names["main"](["fit", *data, *decoder, *short])


def test_a_decoder_may_be_a_mapping():
    assert MoELanguageModel({"vocab_size": 300, **SMALL}).config == DecoderConfig(300, **SMALL)
