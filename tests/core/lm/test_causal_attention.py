"""Attention by blocks against a loop over tokens in float64, and in a model of transformers."""

import pytest
import torch

from lit_core.lm.decoding import causal_attention, use_packed_attention

transformers = pytest.importorskip("transformers")


def looped(query, key, value, scaling):
    heads, shared = query.shape[1], query.shape[1] // key.shape[1]
    output = torch.empty(query.shape[0], query.shape[2], heads, value.shape[-1], dtype=torch.float64)
    for row in range(query.shape[0]):
        for head in range(heads):
            keys, values = key[row, head // shared].double(), value[row, head // shared].double()
            for place in range(query.shape[2]):
                scores = scaling * keys[: place + 1] @ query[row, head, place].double()
                output[row, place, head] = scores.softmax(0) @ values[: place + 1]
    return output


@pytest.mark.parametrize(("rows", "length", "groups"), [(3, 1, 2), (2, 130, 1), (1, 300, 2), (40, 9, 6)])
def test_it_is_a_loop_over_tokens(rows, length, groups):
    torch.manual_seed(0)
    query = torch.randn(rows, 6, length, 8)
    key, value = torch.randn(2, rows, groups, length, 8)
    assert torch.allclose(causal_attention(query, key, value, 0.3).double(), looped(query, key, value, 0.3), atol=1e-5)
    half = [x.bfloat16() for x in (query, key, value)]
    assert torch.allclose(causal_attention(*half, 0.3).double(), looped(*half, 0.3), atol=0.03)


def test_a_model_in_half_precision_is_as_near_to_the_exact_one_as_before():
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 300, (3, 150))
    with torch.no_grad():
        exact = model(ids).logits
        plain = model.bfloat16()(ids).logits.float()
        use_packed_attention(model)
        ours = model(ids).logits.float()
    assert not torch.equal(ours, plain)  # it was used
    assert (ours - exact).abs().mean() < 1.2 * (plain - exact).abs().mean()
    model(ids).logits.sum().backward()  # and is left alone where gradients are needed
    assert model.model.layers[0].self_attn.q_proj.weight.grad.isfinite().all()
