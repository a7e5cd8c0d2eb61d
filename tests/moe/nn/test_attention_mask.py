"""Documents attended to in blocks, as on a GPU, give what a dense mask gives."""

import pytest
import torch

from lit_moe.nn import Decoder, DecoderConfig, decoder
from lit_moe.nn.attention_mask import attention_mask, block_mask, takes_blocks

#: More tokens than a block has, and documents that end within one and at the end of one.
LENGTH = 300
ENDS = [[7, 128, 290], [300]]


@pytest.fixture
def documents():
    return torch.tensor([[sum(position >= end for end in ends) for position in range(LENGTH)] for ends in ENDS])


@pytest.fixture(params=["whole", "padded left", "padded right"])
def mask(request):
    if request.param == "whole":
        return None
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[1, :40] = False
    return mask if request.param == "padded left" else mask.flip(1)


def make(kv_heads):
    shape = {"vocab_size": 50, "n_layers": 2, "d_model": 64, "n_heads": 4, "d_ff": 32, "max_seq_len": LENGTH}
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(**shape, n_kv_heads=kv_heads, feed_forward="dense"))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.15)  # larger than at the start, so that differences show
    return network


def test_the_blocks_allow_what_the_dense_mask_allows(documents, mask):
    blocks = block_mask(mask, documents)
    batch, query, key = (torch.arange(size) for size in (2, LENGTH, LENGTH))
    allowed = blocks.mask_mod(batch[:, None, None], torch.tensor(0), query[:, None], key)
    assert torch.equal(allowed, attention_mask(0, LENGTH, mask, documents, documents.device)[:, 0])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kv_heads", [4, 2])
@torch.no_grad()
def test_logits_equal_those_of_a_dense_mask(monkeypatch, documents, mask, kv_heads):
    network, ids = make(kv_heads), torch.randint(50, (2, LENGTH))
    expected = network(ids, mask=mask, document_ids=documents)
    monkeypatch.setattr(decoder, "takes_blocks", lambda *_: True)
    monkeypatch.setattr(decoder, "attention_mask", None)  # no dense mask is made
    torch.testing.assert_close(network(ids, mask=mask, document_ids=documents), expected, rtol=1e-4, atol=1e-5)


def test_a_processor_keeps_the_dense_mask(documents):
    assert not takes_blocks(documents, 64)


@pytest.mark.gpu
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_gradients_on_a_gpu_equal_those_of_a_dense_mask(monkeypatch, documents, kv_heads):
    network, ids, documents = make(kv_heads).cuda(), torch.randint(50, (2, LENGTH)).cuda(), documents.cuda()

    def gradients():
        network.zero_grad()
        network(ids, document_ids=documents).logsumexp(-1).mean().backward()
        return {name: weight.grad.clone() for name, weight in network.named_parameters()}

    assert takes_blocks(documents, network.config.head_width)
    found = gradients()
    monkeypatch.setattr(decoder, "takes_blocks", lambda *_: False)
    torch.testing.assert_close(found, gradients(), rtol=1e-3, atol=1e-5)
