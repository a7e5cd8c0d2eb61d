"""A mixture with more experts computes what it computed, and the added ones take part by and by."""

from functools import partial

import pytest
import torch
from all_routers import CLASSES, draws, made

from lit_core.errors import UserError
from lit_moe import MoELanguageModel
from lit_moe.interop.exporting import export_model
from lit_moe.interop.grow import grow
from lit_moe.lm import load_module
from lit_moe.nn import DecoderConfig, MoEConfig, MoEFeedForward, PenaltyRouter, UniformRouter, moe_layers, step_routers

SHAPE = {"vocab_size": 50, "n_layers": 2, "d_model": 32, "n_heads": 4, "d_ff": 48, "max_seq_len": 64}
KINDS = [kind for kind in CLASSES if kind is not UniformRouter]


@pytest.fixture
def trained(make_trainer, tmp_path):
    """Makes the checkpoint of a mixture whose weights and biases are not those of the start."""

    def make(router, mixture="granular", name="trained", **changes):
        torch.manual_seed(0)
        model = MoELanguageModel(
            DecoderConfig(**{**SHAPE, **changes}, feed_forward=mixture), router, partial(torch.optim.AdamW, lr=0.01)
        )
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                torch.nn.init.normal_(buffer, std=0.1)
        trainer = make_trainer(name=name)
        trainer.strategy.connect(model)
        model.trainer = trainer
        path = tmp_path / f"{name}.ckpt"
        trainer.save_checkpoint(path)
        return path, model

    return make


def tokens(*shape):
    return torch.randint(50, shape, generator=torch.Generator().manual_seed(1))


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, MoEFeedForward)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mixture", ["switch", "granular", MoEConfig(5, 3, 16, normalize_top_k=True)], ids=str)
@pytest.mark.parametrize("start", ["copies", "fresh"])
def test_at_the_first_step_the_function_is_the_same(trained, tmp_path, kind, mixture, start):
    path, before = trained(made(kind), mixture)
    grow(str(path), str(tmp_path / "grown.ckpt"), n_added=3, start=start)
    after, _ = load_module(tmp_path / "grown.ckpt")
    for mode in (False, True):
        if mode and draws(made(kind)(4, 2)):
            continue
        ids = tokens(3, 40)
        with torch.no_grad():
            expected, found = (model.train(mode)(ids) for model in (before, after))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for old, new in zip(moe_layers(before).values(), moe_layers(after).values(), strict=True):
            assert new.stats.counts[-3:].tolist() == [0, 0, 0]
            assert torch.equal(new.stats.counts[:-3], old.stats.counts)


@pytest.mark.parametrize("kind", KINDS)
def test_their_odds_rise_to_those_of_all_others(trained, tmp_path, kind):
    path, _ = trained(made(kind))
    grow(str(path), str(tmp_path / "grown.ckpt"), n_added=31, noise=0.0, warmup=8)
    model, _ = load_module(tmp_path / "grown.ckpt")
    model.train()
    shares = []
    for step in range(9):
        with torch.no_grad():
            model(tokens(8, 64))
        counts = torch.stack([layer.stats.counts for layer in moe_layers(model).values()]).sum(0)
        shares.append(float(counts[31:].sum() / counts.sum()))
        added = layers_of(model)[0].added
        expected = torch.cat((torch.ones(31), torch.full((31,), step / 8)))
        torch.testing.assert_close(added.log_odds(31).exp(), expected)
        step_routers(model)
    assert shares[0] == 0 and shares[-1] > 0.3  # a copy and its original have equal logits


def test_copies_are_those_of_their_parents_and_only_they_are_noisy(trained, tmp_path):
    path, before = trained(PenaltyRouter)
    for name, arguments in {
        "exact": {"noise": 0.0},
        "noisy": {"noise": 0.1, "seed": 1},
        "same": {"noise": 0.0},
    }.items():
        grow(str(path), str(tmp_path / f"{name}.ckpt"), n_added=40, **arguments)
    exact, noisy, same = (load_module(tmp_path / f"{name}.ckpt")[0] for name in ("exact", "noisy", "same"))
    for old, new, other, again in zip(*map(layers_of, (before, exact, noisy, same)), strict=True):
        rows = old.experts.gate_up.detach()
        parents = [int((rows - copy).abs().amax((1, 2)).argmin()) for copy in new.added.gate_up]
        assert sorted(parents[:31]) == list(range(31)) and len(set(parents)) == 31
        assert torch.equal(new.added.gate_up, old.experts.gate_up[parents])
        assert torch.equal(new.added.down, old.experts.down[parents])
        assert torch.equal(new.added.gate.weight, old.gate.weight[parents])
        assert torch.equal(new.added.down, again.added.down)
        assert torch.equal(other.experts.gate_up, old.experts.gate_up)
        spread = float(other.added.gate_up.var() / rows.var())
        assert spread == pytest.approx(1.01, rel=0.02)


def test_fresh_ones_are_drawn_as_in_a_new_model(trained, tmp_path):
    path, _ = trained(PenaltyRouter)
    grow(str(path), str(tmp_path / "grown.ckpt"), n_added=20, start="fresh")
    grown, _ = load_module(tmp_path / "grown.ckpt")
    new = MoELanguageModel(DecoderConfig(**SHAPE, feed_forward="granular"), PenaltyRouter)
    for ours, theirs in zip(layers_of(grown), layers_of(new), strict=True):
        pairs = [(ours.added.gate_up, theirs.experts.gate_up), (ours.added.down, theirs.experts.down)]
        for found, expected in [*pairs, (ours.added.gate.weight, theirs.gate.weight)]:
            assert float(found.std() / expected.std()) == pytest.approx(1, rel=0.1)


def test_old_weights_learn_slowly_and_a_resume_is_exact(trained, tmp_path, make_trainer, byte_data, token_root):
    """The steps of the warm-up are in the state."""

    def fit(name, max_steps, ckpt_path=None, **options):
        model, _ = load_module(tmp_path / "grown.ckpt")
        torch.manual_seed(0)
        model = MoELanguageModel(model.config, PenaltyRouter, partial(torch.optim.AdamW, lr=0.01), **options)
        model.load_state_dict(load_module(tmp_path / "grown.ckpt")[0].state_dict())
        before = {key: value.clone() for key, value in model.state_dict().items()}
        trainer = make_trainer(name=name, max_steps=max_steps)
        trainer.fit(model, datamodule=byte_data(replay=False), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        return before, model.state_dict()

    path, _ = trained(PenaltyRouter, vocab_size=257)
    grow(str(path), str(tmp_path / "grown.ckpt"), n_added=31, warmup=4)
    factors = {"decoder": 0.001, "added": 1.0}
    before, whole = fit("whole", 6, lr_factors=factors)
    moved = {key: (whole[key] - before[key]).abs().mean() for key in whole if whole[key].is_floating_point()}
    slow = max(float(value) for key, value in moved.items() if ".added." not in key)
    fast = min(float(value) for key, value in moved.items() if ".added." in key)
    assert fast > 20 * slow
    assert int(whole["decoder.layers.1.feed_forward.added.steps"]) == 6
    fit("half", 2, lr_factors=factors)
    _, resumed = fit("resumed", 6, tmp_path / "half.ckpt", lr_factors=factors)
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_another_growth_joins_those_of_the_first(trained, tmp_path):
    path, _ = trained(PenaltyRouter)
    once, twice, joined = (str(tmp_path / f"{name}.ckpt") for name in ("once", "twice", "joined"))
    grow(str(path), once, n_added=4, warmup=2)
    with pytest.raises(UserError, match="whose added experts take part fully after 2 optimizer steps, but it has 0"):
        grow(once, twice)
    checkpoint = torch.load(once, weights_only=True)
    for key, value in checkpoint["state_dict"].items():
        if key.endswith("added.steps"):
            value.fill_(2)
    torch.save(checkpoint, tmp_path / "trained_on.ckpt")
    full, _ = load_module(tmp_path / "trained_on.ckpt")
    with pytest.raises(UserError, match=r"lit-moe grow.*n_added 0"):
        export_model(str(tmp_path / "trained_on.ckpt"), str(tmp_path / "exported"))
    grow(str(tmp_path / "trained_on.ckpt"), joined, n_added=0)
    grow(str(tmp_path / "trained_on.ckpt"), twice, n_added=2)
    ids = tokens(2, 30)
    with torch.no_grad():
        expected = full.eval()(ids)
        for name, experts in ((joined, 35), (twice, 37)):
            model, _ = load_module(name)
            assert model.config.moe.n_experts == experts
            torch.testing.assert_close(model.eval()(ids), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match=r"n_added is 0, but .* has no experts of an earlier growth"):
        grow(joined, str(tmp_path / "other.ckpt"), n_added=0)


def test_what_cannot_grow_is_refused_and_nothing_is_written(trained, tmp_path):
    for number, (router, mixture, message) in enumerate(
        [
            (UniformRouter, "granular", "whose UniformRouter does not choose experts by their logits"),
            (PenaltyRouter, "dense", "which is dense; `lit-moe upcycle`"),
        ]
    ):
        path, _ = trained(router, mixture, name=f"model_{number}")
        with pytest.raises(UserError, match=message):
            grow(str(path), str(tmp_path / "grown.ckpt"))
    for arguments, message in (
        ({"n_added": -1}, "n_added is -1"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"warmup": -1}, "warmup is -1"),
    ):
        with pytest.raises(UserError, match=message):
            grow(str(path), str(tmp_path / "grown.ckpt"), **arguments)
    assert not (tmp_path / "grown.ckpt").exists()


def test_a_loop_that_does_not_end_the_steps_is_told(trained, tmp_path):
    path, _ = trained(PenaltyRouter)
    grow(str(path), str(tmp_path / "grown.ckpt"))
    model, _ = load_module(tmp_path / "grown.ckpt")
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    model(tokens(2, 10)).sum().backward()
    optimizer.step()
    with pytest.raises(UserError, match=r"The added experts cannot take part, .* call of step_routers"):
        model(tokens(2, 10))
