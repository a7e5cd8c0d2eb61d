"""Documents and padding of a row, against each document alone, in models that keep them apart in different ways."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hf_models import SHAPE, config, make, spread, tokens

from lit_core.errors import UserError
from lit_moe.nn import HFConfig, HFDecoder, hf_documents, moe_layers

transformers = pytest.importorskip("transformers")
ATTENTION = ["sliding_attention", "full_attention"]
HARD = {
    # its masks are not told the positions
    "gpt_oss": dict(num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=4, layer_types=ATTENTION),
    # convolutions along the row
    "lfm2_moe": dict(
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        num_dense_layers=1,
        layer_types=["conv", "full_attention"],
    ),
    # attention in chunks, counted from the start of a document
    "llama4_text": dict(
        num_local_experts=4,
        num_experts_per_tok=1,
        intermediate_size_mlp=16,
        head_dim=8,
        attention_chunk_size=3,
        layer_types=["chunked_attention", "full_attention"],
    ),
}
DOCUMENTS = torch.tensor([[0] * 4 + [1] * 9 + [2] * 2, [0] * 15])
PIECES = [(0, 0, 4), (0, 4, 13), (0, 13, 15), (1, 0, 15)]


def hard(kind, **changes):
    ours = HFDecoder(HFConfig(config={"model_type": kind, **SHAPE, **HARD[kind], **changes}))
    spread(ours.model)
    return ours.eval()


@pytest.mark.parametrize("with_padding", [False, True])
@pytest.mark.parametrize(("kind", "way"), [("gpt_oss", "masks"), ("lfm2_moe", "rows"), ("llama4_text", "positions")])
def test_documents_in_one_row_equal_documents_alone(kind, way, with_padding):
    ours, ids = hard(kind), tokens(2, 15)
    mask, pieces = None, PIECES
    if with_padding:
        mask = torch.ones(2, 15, dtype=torch.bool)
        mask[0, 11:], mask[1, 13:], mask[1, :2] = False, False, False
        pieces = [(0, 0, 4), (0, 4, 11), (1, 2, 13)]
    with torch.no_grad():
        logits = ours(ids, mask=mask, document_ids=DOCUMENTS)
        alone = [ours.model(ids[row : row + 1, start:end]).logits[0] for row, start, end in pieces]
    for (row, start, end), expected in zip(pieces, alone, strict=True):
        torch.testing.assert_close(logits[row, start:end], expected, rtol=1e-4, atol=1e-5)
    assert ours._documents.way(documents=True) == way


def test_documents_in_rows_of_their_own_have_the_gradient_of_documents_alone():
    ours, ids = hard("lfm2_moe"), tokens(2, 15)
    gradients = []
    for apart in (False, True):
        ours.zero_grad()
        if apart:
            pieces = [ours.model(ids[row : row + 1, start:end]).logits[0] for row, start, end in PIECES]
            sum(piece.logsumexp(-1).sum() for piece in pieces).backward()
        else:
            ours(ids, document_ids=DOCUMENTS).logsumexp(-1).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters() if parameter.grad is not None])
    for packed, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", HARD)
def test_padding_of_either_side_changes_nothing(kind, side):
    ours, ids = hard(kind), tokens(3, 12)
    mask = torch.tensor([[(i < n) if side == "right" else (i >= 12 - n) for i in range(12)] for n in (12, 5, 1)])
    with torch.no_grad():
        logits = ours(ids, mask=mask)
        alone = [ours.model(row[real][None]).logits[0] for row, real in zip(ids, mask, strict=True)]
    for row in range(3):
        torch.testing.assert_close(logits[row][mask[row]], alone[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt_oss", "lfm2_moe"])
@pytest.mark.parametrize("scale", [1e-3, 0.02])
def test_an_influence_that_is_smaller_than_rounding_is_found(kind, scale):
    ours = HFDecoder(HFConfig(config={"model_type": kind, **SHAPE, **HARD[kind]}))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, scale)
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        assert ours._documents.way(documents=True) == {"gpt_oss": "masks", "lfm2_moe": "rows"}[kind]
    assert torch.equal(state, torch.get_rng_state()) and ours.training


def test_experts_are_noted_in_the_order_of_the_tokens():
    ours, ids = HFDecoder(HFConfig(config=config("mixtral"))), tokens(2, 15)
    spread(ours.model).eval()
    mask = torch.ones(2, 15, dtype=torch.bool)
    mask[1, 13:], mask[1, :2] = False, False
    noted = []
    with torch.no_grad():
        for way in ("positions", "rows"):
            ours._documents._ways.clear()
            ours._documents._way = lambda documents, length, way=way: getattr(hf_documents, f"_{way}")
            ours.hidden(ids, mask=mask, document_ids=DOCUMENTS)
            noted.append([(s.stats.indices[mask.flatten()], s.stats.counts) for s in moe_layers(ours).values()])
    for plain, rearranged in zip(*noted, strict=True):
        assert torch.equal(plain[0], rearranged[0]) and torch.equal(plain[1], rearranged[1])


def varlen(module, query, key, value, attention_mask, dropout=0.0, scaling=None, cu_seq_lens_q=None, **_):
    """Attention of packed sequences of one row by their lengths, as the kernels of flash attention take them."""
    assert attention_mask is None
    ends = [0, query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    assert cu_seq_lens_q is None or len(query) == 1
    parts = []
    for start, end in pairwise(ends):
        q, k, v = (each[:, :, start:end] for each in (query, key, value))
        parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True))
    return torch.cat(parts, 2).transpose(1, 2), None


def test_attention_that_knows_lengths_alone_gets_all_documents_in_one_row():
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    AttentionInterface.register("flash_of_the_test", varlen)
    AttentionMaskInterface.register("flash_of_the_test", flash_attention_mask)
    ours, ids = HFDecoder(HFConfig(config=config("qwen3_moe"))), tokens(2, 15)
    spread(ours.model).eval().config._attn_implementation = "flash_of_the_test"  # else kernels would be fetched
    with torch.no_grad():
        logits = ours(ids, document_ids=DOCUMENTS)
        for row, start, end in PIECES:
            alone = make("qwen3_moe")(ids[row : row + 1, start:end]).logits[0]
            torch.testing.assert_close(logits[row, start:end], alone, rtol=1e-4, atol=1e-5)
    assert ours._documents.way(documents=True) == "one_row"


def test_a_model_that_mixes_its_rows_is_refused():
    ours = HFDecoder(HFConfig(config=config("llama")))
    spread(ours.model)
    norm = ours.model.model.layers[0].input_layernorm
    norm.register_forward_hook(lambda module, args, output: output + output.mean((0, 1), keepdim=True))
    with pytest.raises(UserError, match=r"lets a token see other documents .* set `data.init_args.document_mask` to"):
        ours(tokens(2, 15), document_ids=DOCUMENTS)


@pytest.mark.parametrize(("scale", "way"), [(8, "rows"), (8192, "positions")])
def test_what_shows_in_long_rows_only_is_tried_on_long_rows(scale, way):
    # attention is rescaled by the position in the row, whatever positions are told
    ours, ids = hard("llama4_text", no_rope_layers=[1, 0], floor_scale=scale, attn_scale=1.0), tokens(1, 60)
    documents = torch.tensor([[0] * 25 + [1] * 35])
    with torch.no_grad():
        logits = ours(ids, document_ids=documents)
        for start, end in ((0, 25), (25, 60)):
            alone = ours.model(ids[:, start:end]).logits
            torch.testing.assert_close(logits[:, start:end], alone, rtol=1e-4, atol=1e-5)
    assert ours._documents.way(documents=True) == way
