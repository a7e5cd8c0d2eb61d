import torch

from lit_core.lm.tokenizer import Tokenizer
from lit_moe.lm import DecoderLM
from lit_moe.nn import Decoder, DecoderConfig


def test_head_of_hidden_is_the_logits():
    torch.manual_seed(0)
    config = DecoderConfig(vocab_size=257, d_model=32, n_layers=2, n_heads=4, max_seq_len=32)
    lm = DecoderLM(Decoder(config).eval(), Tokenizer.bytes())
    ids = torch.randint(0, 257, (2, 7))
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    assert torch.equal(lm.head(lm.hidden(ids)), lm.logits(ids)[0])
    assert torch.allclose(lm.head(lm.hidden(ids, mask))[mask], lm.logits(ids, mask=mask)[0][mask], atol=1e-6)
