"""Checkpoints of every family, in and out, against transformers itself."""

import pytest
import torch

pytest.importorskip("transformers")

from hugging_face import CASES, load, logits, make, save, tokens

from lit_moe.cli import main
from lit_moe.lm import DecoderLM


@pytest.mark.parametrize(("family", "number"), CASES, ids=lambda value: str(value))
def test_in_and_out_gives_equal_logits_and_tokens(family, number, tmp_path):
    theirs = make(family, number)
    save(theirs, tmp_path / "theirs", max_shard_size="40KB")
    checkpoint = tmp_path / "ours.ckpt"
    assert main(["import", "--model", str(tmp_path / "theirs"), "--output", str(checkpoint)]) == 0
    ours = DecoderLM.from_checkpoint(checkpoint)
    ids = tokens(2, 40)
    torch.testing.assert_close(logits(ours.module, ids), logits(theirs, ids), rtol=0, atol=1e-4)

    export = ["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "again"), "--shard_bytes", "40000"]
    assert main(export) == 0
    assert len(list((tmp_path / "again").glob("model-*.safetensors"))) > 1
    again = load(tmp_path / "again")
    assert type(again) is type(theirs)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    torch.testing.assert_close(logits(again, ids), logits(theirs, ids), rtol=0, atol=0)

    padded = list(range(ours.tokenizer.vocab_size, 260))  # ids that mean nothing, which we never choose
    greedy = again.generate(ids[:1, :10], max_new_tokens=20, do_sample=False, suppress_tokens=padded)[0, 10:].tolist()
    mine = ours.generate_ids([ids[0, :10].tolist()], max_new_tokens=20, temperature=0)[0]
    assert mine == [token for token in greedy if token != ours.tokenizer.end_of_text]
