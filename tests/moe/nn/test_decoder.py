import math
from dataclasses import asdict

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lit_core.errors import UserError
from lit_moe.nn import (
    Decoder,
    DecoderConfig,
    KVCache,
    MoEConfig,
    PenaltyRouter,
    SinkhornRouter,
    TopKRouter,
    auxiliary_losses,
    moe_layers,
)

PAPER = dict(vocab_size=128256, n_layers=24, d_model=1024, n_heads=16, d_ff=2816, activation="gelu")


def make(router=PenaltyRouter, seed=0, **changes):
    shape = dict(vocab_size=50, n_layers=2, d_model=32, n_heads=4, d_ff=48, feed_forward="granular", max_seq_len=64)
    torch.manual_seed(seed)
    decoder = Decoder(DecoderConfig(**{**shape, **changes}), router)
    for name, parameter in decoder.named_parameters():
        # Larger than at the start, so that differences show; gains and biases off their neutral values.
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.15)
    return decoder.eval()


def tokens(*shape, seed=1):
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


def copy_into(theirs, ours, rename):
    """Copy our weights into a Hugging Face model by its own names."""
    with torch.no_grad():
        state, target = ours.state_dict(), theirs.state_dict()
        filled = set()
        for name, value in state.items():
            name = "model." + name if name.startswith("norm.") else name
            for ours_part, theirs_part in rename.items():
                name = name.replace(ours_part, theirs_part)
            target[name].copy_(value)
            filled.add(name)
        assert filled == set(target)


NAMES = {
    "embedding.": "model.embed_tokens.",
    "layers.": "model.layers.",
    "output.": "lm_head.",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "attention.out": "self_attn.o_proj",
    "attention.q.": "self_attn.q_proj.",
    "attention.k.": "self_attn.k_proj.",
    "attention.v.": "self_attn.v_proj.",
    "feed_forward.gate.": "mlp.gate_proj.",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def test_equals_stablelm_with_layernorm_and_partly_rotated_heads(transformers):
    """What no architecture that can be imported has; those are compared in tests/moe/interop."""
    config = transformers.StableLmConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        layer_norm_eps=1e-5,
        partial_rotary_factor=0.25,
        rope_theta=10000.0,
        use_parallel_residual=False,
    )
    theirs = transformers.StableLmForCausalLM(config).eval()
    ours = make(feed_forward="dense", norm="layernorm", rope_fraction=0.25)
    copy_into(theirs, ours, NAMES)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens(2, 20)), theirs(tokens(2, 20)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_documents_in_one_row_equal_documents_apart(kv_heads):
    decoder = make(n_kv_heads=kv_heads)
    ids = tokens(2, 30)
    documents = torch.tensor([[0] * 7 + [1] * 13 + [2] * 10, [0] * 30])
    logits = decoder(ids, document_ids=documents)
    apart = torch.cat([decoder(ids[:1, a:b]) for a, b in ((0, 7), (7, 20), (20, 30))], dim=1)
    torch.testing.assert_close(logits[:1], apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[1:], decoder(ids[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    decoder = make()
    ids = tokens(3, 12)
    lengths = [12, 5, 0]
    mask = torch.tensor([[(i < n) if side == "right" else (i >= 12 - n) for i in range(12)] for n in lengths])
    logits = decoder(ids, mask=mask)
    assert logits.isfinite().all()
    stats = [layer.stats for layer in moe_layers(decoder).values()]
    assert [s.tokens for s in stats] == [17, 17] and [s.counts.sum() for s in stats] == [51, 51]
    for row in (0, 1):
        alone = decoder(ids[row][mask[row]][None])
        torch.testing.assert_close(logits[row][mask[row]], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("steps", [[1] * 10, [4, 1, 1, 4], [3, 7], [10]])
@pytest.mark.parametrize("padded", [False, True])
def test_cache_equals_a_full_pass(steps, padded, kv_heads):
    decoder = make(n_kv_heads=kv_heads)
    ids = tokens(2, 10)
    mask = torch.ones(2, 10, dtype=torch.bool)
    if padded:
        mask[1, :2] = False
    full = decoder(ids, mask=mask)
    cache, parts, start = KVCache(), [], 0
    for step in steps:
        part = mask[:, start : start + step] if start == 0 or not padded else None
        if step == 1 and padded:
            part = mask[:, start : start + 1]
        parts.append(decoder(ids[:, start : start + step], mask=part if padded else None, cache=cache))
        start += step
        assert cache.length == start
    torch.testing.assert_close(torch.cat(parts, dim=1)[mask], full[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("router", [PenaltyRouter, SinkhornRouter])
def test_activation_checkpointing_changes_nothing(router):
    results = []
    for recompute in (False, True):
        decoder = make(router, activation_checkpointing=recompute).train()
        logits = decoder(tokens(2, 16))
        auxiliary = auxiliary_losses(decoder)
        before = [layer.stats for layer in moe_layers(decoder).values()]
        (logits.float().logsumexp(-1).mean() + 100 * auxiliary).backward()
        after = [layer.stats for layer in moe_layers(decoder).values()]
        assert all(a is b for a, b in zip(before, after, strict=True))
        results.append((logits, auxiliary, *[s.counts for s in after], *[p.grad for p in decoder.parameters()]))
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(plain, recomputed)
    assert results[0][1] > 0 or router is SinkhornRouter


def test_auxiliary_gradient_alone_survives_activation_checkpointing():
    gradients = []
    for recompute in (False, True):
        decoder = make(activation_checkpointing=recompute).train()
        decoder(tokens(2, 16))
        auxiliary_losses(decoder).backward()
        gradients.append([layer.gate.weight.grad for layer in moe_layers(decoder).values()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("low", ["autocast", "weights"])
@pytest.mark.parametrize(
    "changes",
    [{}, dict(qk_norm="head", n_kv_heads=2), dict(qk_norm="all", norm="layernorm", activation_checkpointing=True)],
)
def test_bfloat16_is_near_float32(changes, low):
    decoder = make(**changes).train()
    exact = decoder(tokens(2, 16))
    if low == "weights":
        decoder.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=low == "autocast"):
        logits = decoder(tokens(2, 16))
        loss = logits.float().logsumexp(-1).mean() + auxiliary_losses(decoder)
    loss.backward()
    assert logits.dtype == torch.bfloat16
    # Single tokens may change experts by rounding before the router, so the comparison is of the whole.
    assert (logits.float() - exact).square().mean().sqrt() < 0.1 * exact.std()
    for parameter in decoder.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.dtype == parameter.dtype


def test_later_tokens_do_not_reach_earlier_ones():
    decoder = make()
    ids = tokens(1, 20)
    changed = ids.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 50
    torch.testing.assert_close(decoder(ids)[:, :12], decoder(changed)[:, :12], rtol=1e-5, atol=1e-6)


def test_hidden_and_head_make_the_logits():
    for tied in (False, True):
        decoder = make(tie_embeddings=tied)
        hidden = decoder.hidden(tokens(2, 9))
        assert hidden.shape == (2, 9, 32)
        torch.testing.assert_close(decoder.head(hidden), decoder(tokens(2, 9)))


@pytest.mark.parametrize(("feed_forward", "millions"), [("dense", 570.9), ("switch", 2024.5), ("granular", 2025.0)])
def test_paper_scale_has_the_published_number_of_weights(feed_forward, millions):
    with torch.device("meta"):
        decoder = Decoder(DecoderConfig(**PAPER, feed_forward=feed_forward))
    gains = 24 * 2 * 1024 + 1024  # the published figures leave the gains of the norms out
    counts = decoder.parameter_counts()
    assert round((counts.total - gains) / 1e6, 1) == millions
    assert counts.total - counts.total_without_embeddings == 2 * 128256 * 1024
    router = {"dense": 0, "switch": 8, "granular": 31}[feed_forward] * 24 * 1024
    assert counts.active - gains - router == 570_949_632
    assert all(parameter.is_meta for parameter in decoder.parameters())


@pytest.mark.parametrize("feed_forward", ["dense", "switch", "granular"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_flops_equal_torchs_counter(feed_forward, tied, kv_heads):
    decoder = make(TopKRouter, feed_forward=feed_forward, tie_embeddings=tied, n_kv_heads=kv_heads, qkv_bias=True)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        decoder(tokens(3, 16)).sum().backward()
    total = counter.get_total_flops()
    # Neither the first layer's input gradient nor any other product is spared: the embedding learns from it.
    assert total == 3 * 3 * 16 * decoder.flops_per_token(16)


def test_initial_weights_have_the_documented_spread():
    decoder = Decoder(DecoderConfig(vocab_size=2000, d_model=128, d_ff=352, n_layers=4, feed_forward="granular"))
    small, into_residual = math.sqrt(2 / (5 * 128)), 2 / (4 * math.sqrt(128))
    spread = {name: parameter.std().item() for name, parameter in decoder.named_parameters() if parameter.dim() > 1}
    for name, std in spread.items():
        expected = into_residual if name.endswith(("out.weight", "down", "down.weight")) else small
        assert std == pytest.approx(expected, rel=0.05), name
    for name, parameter in decoder.named_parameters():
        assert parameter.dim() > 1 or (parameter == 1).all(), name


def test_a_seed_gives_the_same_weights_again():
    first, second = make(seed=0), make(seed=1)
    for decoder in (first, second):
        decoder.reset_parameters(torch.Generator().manual_seed(7))
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    second.reset_parameters(torch.Generator().manual_seed(8))
    assert not torch.equal(first.embedding.weight, second.embedding.weight)


def test_a_config_survives_its_plain_form():
    for feed_forward in ("granular", MoEConfig(n_experts=4, top_k=2, expert_width=8)):
        config = DecoderConfig(vocab_size=9, feed_forward=feed_forward)
        assert DecoderConfig(**asdict(config)) == config


@pytest.mark.parametrize(
    "yaml",
    [
        "config: {vocab_size: 9, feed_forward: switch}\nrouter: lit_moe.nn.SinkhornRouter\n",
        "config: {vocab_size: 9, n_kv_heads: 2, feed_forward: {n_experts: 6, top_k: 2, expert_width: 8}}\n"
        "router: {class_path: lit_moe.nn.PenaltyRouter, init_args: {balance_weight: 0.5}}\n",
    ],
)
def test_decoder_is_built_from_yaml(yaml):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Decoder, "model")
    text = "model:\n" + "".join(f"  {line}\n" for line in yaml.splitlines())
    decoder = parser.instantiate(parser.parse_string(text)).model
    moe = decoder.config.moe
    routers = [layer.router for layer in moe_layers(decoder).values()]
    assert len(routers) == 4 and all((r.n_experts, r.top_k) == (moe.n_experts, moe.top_k) for r in routers)
    assert isinstance(routers[0], SinkhornRouter) or routers[0].balance_weight == 0.5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(n_layers=0), "n_layers is 0"),
        (dict(n_heads=3), "n_heads is 3"),
        (dict(n_kv_heads=3), "n_kv_heads is 3"),
        (dict(n_kv_heads=0), "n_kv_heads is 0"),
        (dict(head_dim=7), "head_dim is 7"),
        (dict(rope_fraction=0.0), "rope_fraction is 0.0"),
        (dict(clip_qkv=0.0), "clip_qkv is 0.0"),
        (dict(d_ff=50), "d_ff is 50"),
        (dict(feed_forward="sparse"), "`feed_forward` is .sparse., but must be dense, switch, granular or"),
    ],
)
def test_refuses_impossible_shapes(changes, named):
    with pytest.raises(UserError, match=named) as error:
        make(**changes)
    assert "\n" not in str(error.value)


def test_refuses_a_sequence_that_is_too_long():
    decoder, cache = make(), KVCache()
    with pytest.raises(UserError, match="65 tokens but max_seq_len is 64"):
        decoder(tokens(1, 65))
    decoder(tokens(1, 64), cache=cache)
    with pytest.raises(UserError, match="max_seq_len"):
        decoder(tokens(1, 1), cache=cache)
