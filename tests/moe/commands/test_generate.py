import json

import numpy as np
import pytest
import torch

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.cli import main
from lit_moe.commands.generate import generate, read_prompts
from lit_moe.lm import DecoderLM
from lit_moe.nn import Decoder, DecoderConfig, SinkhornRouter, moe_layers

PROMPTS = ["It is a truth", "", "She was not of an ill disposition", "An"]
ROUTERS = {"switch": "lit_moe.nn.SinkhornRouter", "granular": "lit_moe.nn.PenaltyRouter"}


@pytest.fixture(scope="module", params=["switch", "granular"])
def checkpoint(request, tmp_path_factory):
    """A checkpoint of an ordinary short run."""
    folder = tmp_path_factory.mktemp(request.param)
    source = folder / "data" / "prose"
    source.mkdir(parents=True)
    text = b"It is a truth universally acknowledged, that a single man must be in want of a wife. " * 40
    for split in ("train", "val", "test"):
        np.save(source / f"{split}.npy", np.frombuffer(text, dtype=np.uint8).astype(np.uint16))
    config = {
        "seed_everything": 1,
        "trainer": {
            "max_steps": 2,
            "accelerator": "cpu",
            "devices": 1,
            "enable_progress_bar": False,
            "limit_val_batches": 0,
        },
        "model": {
            "class_path": "lit_moe.MoELanguageModel",
            "init_args": {
                "decoder": {
                    "n_layers": 2,
                    "d_model": 32,
                    "d_ff": 64,
                    "max_seq_len": 128,
                    "feed_forward": request.param,
                },
                "router": ROUTERS[request.param],
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.02}},
            },
        },
        "data": {
            "class_path": "lit_moe.TokenDataModule",
            "init_args": {
                "root": str(folder / "data"),
                "sources": {"prose": 1.0},
                "tokenizer": "bytes",
                "sequence_length": 32,
                "global_batch_size": 4,
                "micro_batch_size": 4,
            },
        },
    }
    (folder / "run.yaml").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", "run.yaml", "--run", "short"]) == 0
    (found,) = {path.resolve() for path in folder.glob("runs/**/*.ckpt")}
    return found


@pytest.fixture
def lm():
    torch.manual_seed(0)
    config = DecoderConfig(vocab_size=270, n_layers=2, d_model=32, d_ff=64, max_seq_len=128, feed_forward="granular")
    decoder = Decoder(config, SinkhornRouter)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return DecoderLM(decoder, Tokenizer.bytes())


def test_greedy_batch_equals_one_by_one_and_no_cache(lm):
    options = dict(max_new_tokens=25, temperature=0)
    prompts = [list(text.encode()) or [lm.tokenizer.end_of_text] for text in PROMPTS]
    together = lm.generate_ids(prompts, **options)
    assert together == [lm.generate_ids([prompt], **options)[0] for prompt in prompts]
    lm.module.eval()
    for prompt, expected in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in expected:
            with torch.no_grad():
                logits = lm.module(torch.tensor([ids]))[0, -1, : lm.tokenizer.vocab_size]
            assert logits.argmax() == token
            ids.append(token)


def test_generates_with_inference_routing_in_the_middle_of_training(lm):
    lm.module.train()
    lm.generate(["abc"], max_new_tokens=2)
    assert lm.module.training and lm.module.layers[0].feed_forward.router.training
    stats = [layer.stats for layer in moe_layers(lm.module).values()]
    assert all(torch.equal(s.counts, s.raw_counts) for s in stats)


def test_rebuilds_the_model_of_a_checkpoint(checkpoint):
    lm = DecoderLM.from_checkpoint(checkpoint)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[f"decoder.{name}"]) for name, value in lm.module.state_dict().items())
    assert not lm.module.training and lm.max_length == 128
    router = next(iter(moe_layers(lm.module).values())).router
    assert type(router).__name__ == ROUTERS[lm.module.config.feed_forward].rpartition(".")[2]


def test_verb_prints_what_the_model_generates(checkpoint, capsys):
    options = ["--max_new_tokens", "12", "--temperature", "0", "--device", "cpu"]
    code = main(["generate", "--ckpt_path", str(checkpoint), "--prompt", "It is a truth", *options])
    assert code == 0
    expected = DecoderLM.from_checkpoint(checkpoint).generate(["It is a truth"], max_new_tokens=12, temperature=0)
    assert "It is a truth" + expected[0] in capsys.readouterr().out


def test_verb_writes_every_sample_whatever_the_batch_size(checkpoint, tmp_path):
    (tmp_path / "prompts.txt").write_text("One\n\nTwo and more\n")
    written = []
    for batch_size in (1, 5):
        path = tmp_path / f"{batch_size}.jsonl"
        generate(
            str(checkpoint),
            prompt=["Zero"],
            prompt_file=str(tmp_path / "prompts.txt"),
            samples=2,
            max_new_tokens=9,
            seed=5,
            batch_size=batch_size,
            output=str(path),
        )
        written.append([json.loads(line) for line in path.read_text().splitlines()])
    assert written[0] == written[1]
    assert [(r["prompt"], r["sample"]) for r in written[0]] == [
        (prompt, sample) for prompt in ("Zero", "One", "Two and more") for sample in (0, 1)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("1.jsonl", "1.jsonl.run.json", "5.jsonl", "5.jsonl.run.json", "prompts.txt")
    ]


def test_reads_prompts(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one\\u2028line"}\n{"prompt": "a\u2028b"}\n', encoding="utf-8")
    assert read_prompts(path) == ["one\u2028line", "a\u2028b"]
    for bad in ("[1]", "{}", "x", '{"prompt": 3}'):
        path.write_text('{"prompt": "good"}\n' + bad)
        with pytest.raises(UserError, match=r"p.jsonl, line 2"):
            read_prompts(path)
    with pytest.raises(UserError, match="prompt_file is"):
        read_prompts(tmp_path / "none.txt")


def test_refuses_in_one_sentence(checkpoint, tmp_path, capsys):
    (tmp_path / "there.jsonl").write_text("mine")
    good = ["generate", "--ckpt_path", str(checkpoint)]
    for arguments, named in (
        (["generate", "--ckpt_path", str(tmp_path / "none.ckpt")], "--ckpt_path is"),
        ([*good, "--temperature", "-1"], "temperature is -1"),
        ([*good, "--samples", "0"], "samples is 0"),
        ([*good, "--output", str(tmp_path / "there.jsonl")], "output is"),
        ([*good, "--prompt", "x" * 100, "--max_new_tokens", "60"], "Prompt 0 has 100 tokens"),
    ):
        assert main(arguments) == 2
        message = capsys.readouterr().err.strip()
        assert named in message and "\n" not in message and "Traceback" not in message
    assert (tmp_path / "there.jsonl").read_text() == "mine"


@pytest.mark.parametrize("start", [[], [7], None])
def test_prompts_begin_as_the_documents_of_the_checkpoint_did(checkpoint, tmp_path, start):
    content = torch.load(checkpoint, weights_only=True)
    assert content["tokenizer"].pop("start") == []
    if start is not None:
        content["tokenizer"]["start"] = start
    torch.save(content, tmp_path / "other.ckpt")
    model = DecoderLM.from_checkpoint(tmp_path / "other.ckpt")
    assert model.tokenizer.prompt("a") == [*(start or []), *b"a"]
