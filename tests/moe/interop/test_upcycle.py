"""Mixtures made of a dense decoder compute what it computes, or come as near as they say."""

import pytest
import torch

pytest.importorskip("transformers")

from hugging_face import logits, make, save, tokens

from lit_core.errors import UserError
from lit_moe.interop import import_model
from lit_moe.interop.upcycle import upcycle
from lit_moe.lm import DecoderLM
from lit_moe.nn import moe_layers


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A checkpoint of a dense decoder, width 48, and its logits on some tokens."""
    folder = tmp_path_factory.mktemp("dense")
    theirs = make("Llama", 1)
    save(theirs, folder / "theirs")
    import_model(str(folder / "theirs"), str(folder / "dense.ckpt"))
    return folder / "dense.ckpt", logits(theirs, tokens(2, 40))


def upcycled(dense, path, **arguments):
    upcycle(str(dense[0]), str(path), **arguments)
    return DecoderLM.from_checkpoint(path).module


@pytest.mark.parametrize(
    "arguments",
    [
        dict(),
        dict(n_experts=5, top_k=3, router_std=1.0),
        dict(granularity=4, top_k=4),
        dict(granularity=4, n_experts=12, top_k=8, seed=3),
        dict(granularity=4, n_shared=1, n_experts=30, top_k=3),
        dict(granularity=3, n_shared=1, n_experts=4, top_k=4, router_std=0.5),
    ],
    ids=str,
)
def test_normalised_weights_preserve_the_function(dense, tmp_path, arguments):
    module = upcycled(dense, tmp_path / "moe.ckpt", **arguments)
    moe, layers = module.config.moe, moe_layers(module)
    torch.testing.assert_close(logits(module, tokens(2, 40)), dense[1], rtol=1e-4, atol=1e-4)
    assert moe.expert_width == 48 // arguments.get("granularity", 1)
    assert len(layers) == 2 and all(layer.router.top_k == moe.top_k for layer in layers.values())
    # Whole groups are chosen: as many tokens for each piece of one.
    routed = arguments.get("granularity", 1) - moe.n_shared
    for layer in layers.values():
        loads = layer.stats.counts.view(-1, routed)
        assert (loads == loads[:, :1]).all() and (loads[:, 0] > 0).sum() > 1


@pytest.mark.parametrize("arguments", [dict(top_k=1), dict(granularity=4, n_shared=1, n_experts=6, top_k=3)], ids=str)
def test_without_normalisation_it_comes_nearer_with_a_smaller_router(dense, tmp_path, arguments):
    errors = []
    for number, router_std in enumerate((0.1, 0.01, 1e-5)):
        path = tmp_path / f"{number}.ckpt"
        module = upcycled(dense, path, normalize_top_k=False, router_std=router_std, **arguments)
        errors.append((logits(module, tokens(2, 40)) - dense[1]).square().mean().sqrt() / dense[1].std())
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 1e-3


def test_noise_has_the_stated_size_and_spares_shared_experts(dense, tmp_path):
    options = dict(granularity=4, n_shared=1, n_experts=6, top_k=3)
    plain = upcycled(dense, tmp_path / "plain.ckpt", **options)
    noisy = upcycled(dense, tmp_path / "noisy.ckpt", noise=0.3, **options)
    whole = torch.load(dense[0], weights_only=True)["state_dict"]
    for index, (one, other) in enumerate(zip(moe_layers(plain).values(), moe_layers(noisy).values(), strict=True)):
        gate, up = (other.experts.gate_up - one.experts.gate_up).chunk(2, dim=1)
        down = (other.experts.down - one.experts.down) / 3  # scaled as the weights are
        for part, difference in (("gate", gate), ("up", up), ("down", down)):
            std = whole[f"decoder.layers.{index}.feed_forward.{part}.weight"].std().item()
            assert difference.std().item() == pytest.approx(0.3 * std, rel=0.1)
        assert all(torch.equal(a, b) for a, b in zip(one.shared.parameters(), other.shared.parameters(), strict=True))
    assert not torch.allclose(logits(noisy, tokens(2, 40)), dense[1], atol=0.01)


def test_the_record_says_how_it_was_made_and_the_seed_makes_it_again(dense, tmp_path):
    options = dict(n_experts=4, noise=0.1, router_std=0.05)
    for name, seed in (("one", 7), ("same", 7), ("other", 8)):
        upcycle(str(dense[0]), str(tmp_path / f"{name}.ckpt"), seed=seed, **options)
    one, same, other = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("one", "same", "other"))
    assert one["upcycled"].items() >= dict(granularity=1, noise=0.1, router_std=0.05, seed=7, dense_steps=0).items()
    assert one["upcycled"]["moe"]["n_experts"] == 4 and one["tokenizer"]["sha256"]
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, same["state_dict"][name])
        drawn = ".gate.weight" in name or ".experts." in name
        assert torch.equal(tensor, other["state_dict"][name]) != drawn, name
    rows = [tensor for name, tensor in one["state_dict"].items() if name.endswith("feed_forward.gate.weight")]
    assert torch.cat(rows).std().item() == pytest.approx(0.05, rel=0.15) and not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (dict(granularity=5, n_experts=10, top_k=5), "granularity is 5 but must divide d_ff, 48"),
        (dict(granularity=0), "granularity is 0"),
        (dict(n_shared=1), "n_shared is 1 but must be from 0 to below granularity, 1"),
        (dict(granularity=4, n_shared=1, n_experts=31, top_k=3), "n_experts is 31 but must be a multiple of 3"),
        (dict(granularity=4, n_experts=8, top_k=3), "top_k is 3 but must be a multiple of 4"),
        (dict(top_k=1), "normalize_top_k is true with top_k 1"),
        (dict(top_k=9), "top_k is 9 but the layer has 8"),
        (dict(noise=-1.0), "noise is -1.0"),
        (dict(router_std=0.0), "router_std is 0.0"),
        (dict(seed=-1), "seed is -1"),
    ],
    ids=str,
)
def test_refuses_impossible_shapes(dense, tmp_path, arguments, named):
    with pytest.raises(UserError, match=named) as error:
        upcycle(str(dense[0]), str(tmp_path / "moe.ckpt"), **arguments)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_refuses_a_mixture_and_an_existing_output(dense, tmp_path):
    upcycle(str(dense[0]), str(tmp_path / "moe.ckpt"))
    with pytest.raises(UserError, match="is a mixture of experts already"):
        upcycle(str(tmp_path / "moe.ckpt"), str(tmp_path / "again.ckpt"))
    with pytest.raises(UserError, match="which exists already"):
        upcycle(str(dense[0]), str(tmp_path / "moe.ckpt"))
    assert [path.name for path in tmp_path.iterdir()] == ["moe.ckpt"]
