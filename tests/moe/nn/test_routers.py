import math
from itertools import product

import pytest
import torch
from all_routers import DRAWLESS, ROUTERS

from lit_core.errors import UserError
from lit_moe.functional import routing as F
from lit_moe.nn import (
    BiasRouter,
    MoEConfig,
    MoEFeedForward,
    PenaltyRouter,
    Router,
    SinkhornRouter,
    TopKRouter,
    UniformRouter,
)

#: Those that `naive` describes.
KNOWN = [BiasRouter, PenaltyRouter, SinkhornRouter, TopKRouter, UniformRouter]
SHAPES = [(8, 1), (31, 3)]


def make_logits(tokens, n_experts, seed=0, skew=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, n_experts, generator=generator) + skew * torch.randn(n_experts, generator=generator)
    return logits.to(dtype).requires_grad_()


def naive(router, logits, training):
    """Choose and weigh token by token, in plain Python."""
    rows = logits.detach().double()
    balanced = F.sinkhorn(rows, router.tolerance, router.max_iterations) if isinstance(router, SinkhornRouter) else None
    chosen, weights = [], []
    for t, row in enumerate(rows.tolist()):
        total = sum(math.exp(z) for z in row)
        score = [math.exp(z) / total for z in row]
        if isinstance(router, BiasRouter) or (isinstance(router, SinkhornRouter) and router.top_k == 1):
            score = [1 / (1 + math.exp(-z)) for z in row]
        order = balanced[t].tolist() if balanced is not None and training else score
        experts = sorted(range(len(row)), key=lambda i: -order[i])[: router.top_k]
        if isinstance(router, UniformRouter):
            experts = [(t * router.top_k + j) % len(row) for j in range(router.top_k)]
        chosen.append(experts)
        weights.append([score[i] for i in experts])
    return chosen, torch.tensor(weights)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
@pytest.mark.parametrize("kind", KNOWN)
def test_equals_a_loop_over_tokens(kind, n_experts, k, training):
    logits = make_logits(120, n_experts)
    router = kind(n_experts, k).train(training)
    indices, weights, stats = router(logits)
    chosen, expected = naive(router, logits, training)
    assert indices.tolist() == chosen == stats.indices.tolist()
    torch.testing.assert_close(weights.detach(), expected, rtol=1e-5, atol=1e-7)
    assert stats.counts.tolist() == [sum(i in row for row in chosen) for i in range(n_experts)]
    raw, _ = naive(router, logits, training=False)
    assert stats.raw_counts.tolist() == [sum(i in row for row in raw) for i in range(n_experts)]
    assert stats.tokens == 120
    torch.testing.assert_close(stats.probs_mean, logits.detach().softmax(-1).mean(0))


@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
@pytest.mark.parametrize("kind", ROUTERS)
def test_language_loss_alone_reaches_the_router(kind, n_experts, k):
    logits = make_logits(64, n_experts)
    _, weights, _ = kind(n_experts, k)(logits)
    targets = torch.randn(weights.shape, generator=torch.Generator().manual_seed(5))
    (weights * targets).sum().backward()
    assert (logits.grad.abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_balance_loss_alone_has_the_gradient_of_its_formula(n_experts, k):
    logits = make_logits(64, n_experts).double().detach().requires_grad_()
    router = PenaltyRouter(n_experts, k, balance_weight=0.3, z_weight=0.0)
    stats = router(logits)[2]
    (stats.balance_loss + stats.z_loss).backward()
    p = logits.detach().softmax(-1)
    f = stats.counts / (64 * k)
    expected = 0.3 * n_experts / 64 * p * (f - (p * f).sum(-1, keepdim=True))
    torch.testing.assert_close(logits.grad, expected)
    assert expected.abs().max() > 1e-4
    # Gradient descent on it evens the load: raw MRI falls.
    before = F.mri(stats.counts, 64)
    lighter = logits.detach().clone()
    for _ in range(300):
        lighter.requires_grad_()
        (gradient,) = torch.autograd.grad(router(lighter)[2].balance_loss, lighter)
        lighter = lighter.detach() - 10 * gradient
    assert F.mri(router(lighter)[2].counts, 64) < before


@pytest.mark.parametrize("kind", [PenaltyRouter, BiasRouter])
@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_the_loss_of_sequences_is_the_mean_of_their_own(kind, n_experts, k):
    """Of four sequences of 12 tokens, sequence by sequence; the second has three tokens and the last has none."""
    logits = make_logits(48, n_experts).double().detach().requires_grad_()
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[1, 3:], mask[3] = False, False
    only = {"balance_weight": 0.0, "z_weight": 0.0} if kind is PenaltyRouter else {}
    router = kind(n_experts, k, sequence_weight=0.3, **only)
    indices, _, stats = router(logits, mask.flatten(), sequences=4)
    (gradient,) = torch.autograd.grad(stats.balance_loss, logits)
    expected = 0.0
    for sequence in range(3):
        rows = [12 * sequence + token for token in range(12) if mask[sequence, token]]
        scores = [logits[row].sigmoid() if kind is BiasRouter else logits[row].softmax(-1) for row in rows]
        load = torch.zeros(n_experts, dtype=torch.float64)
        for row in rows:
            for expert in indices[row].tolist():
                load[expert] += 1 / (k * len(rows))
        share = sum(score / score.sum() for score in scores) / len(rows)
        expected = expected + 0.3 * n_experts * (load * share).sum() / 3
    torch.testing.assert_close(stats.balance_loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    with pytest.raises(UserError, match=r"`sequence_weight` is 0.3, but how the tokens divide"):
        router(logits)


def test_losses_of_several_scopes_add_up():
    logits = [make_logits(24, 8, seed=seed) for seed in (0, 1)]
    parts = [dict(balance_weight=0.2), dict(sequence_weight=0.3), dict(global_weight=0.4)]
    none = dict(balance_weight=0.0, z_weight=0.0)
    routers = [
        PenaltyRouter(8, 2, **{**none, **part}) for part in (*parts, {k: v for p in parts for k, v in p.items()})
    ]
    for batch in logits:
        *single, together = [router(batch, sequences=2).stats.balance_loss for router in routers]
        torch.testing.assert_close(together, sum(single))
    scoped = PenaltyRouter(8, 2, balance_weight=0.4, z_weight=0.0, scope="global_batch")
    values = [scoped(batch).stats.balance_loss for batch in logits]
    torch.testing.assert_close(values[1], single[2])


@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_z_loss_alone_has_the_gradient_of_its_formula(n_experts, k):
    logits = make_logits(32, n_experts).double().detach().requires_grad_()
    stats = PenaltyRouter(n_experts, k, balance_weight=0.0, z_weight=0.01)(logits)[2]
    (stats.balance_loss + stats.z_loss).backward()
    lse = logits.detach().logsumexp(-1, keepdim=True)
    torch.testing.assert_close(logits.grad, 0.01 * 2 / 32 * lse * logits.detach().softmax(-1))


@pytest.mark.parametrize("kind", ROUTERS)
def test_all_measure_losses_that_few_have(kind):
    logits = make_logits(50, 8)
    router = kind(8, 2)
    stats = router(logits)[2]
    has = type(router).losses is not Router.losses
    assert (stats.balance_loss is not None, stats.z_loss is not None) == (has, has)
    assert not stats.raw_balance_loss.requires_grad and not stats.raw_z_loss.requires_grad
    torch.testing.assert_close(
        stats.raw_balance_loss, F.balance_loss(logits.detach().softmax(-1).mean(0), stats.counts, 50, 2)
    )
    torch.testing.assert_close(stats.raw_z_loss, F.z_loss(logits.detach()))
    if has:
        torch.testing.assert_close(stats.balance_loss.detach(), router.balance_weight * stats.raw_balance_loss)
        torch.testing.assert_close(stats.z_loss.detach(), router.z_weight * stats.raw_z_loss)


def test_weights_of_the_penalty_are_those_of_the_paper():
    router = PenaltyRouter(8, 2)
    assert (router.balance_weight, router.z_weight) == (0.01, 0.001)


@pytest.mark.parametrize("kind", DRAWLESS)
def test_masked_tokens_enter_nothing(kind):
    logits = make_logits(80, 8)
    mask = torch.rand(80, generator=torch.Generator().manual_seed(1)) > 0.3
    spoiled = torch.where(mask[:, None], logits, torch.full((), 50.0))
    router = kind(8, 2)
    masked, alone = router(spoiled, mask), router(logits[mask])
    assert torch.equal(masked.indices_Tk[mask], alone.indices_Tk)
    torch.testing.assert_close(masked.weights_Tk[mask], alone.weights_Tk)
    for name, value in vars(alone.stats).items():
        if name == "indices":
            assert torch.equal(masked.stats.indices[mask], value)
        elif value is not None:
            torch.testing.assert_close(getattr(masked.stats, name), value, msg=name)
    assert masked.indices_Tk.max() < 8
    nobody = router(logits, torch.zeros(80, dtype=torch.bool))
    assert nobody.stats.counts.sum() == 0 and nobody.stats.raw_balance_loss == 0
    assert nobody.indices_Tk.min() >= 0 and nobody.indices_Tk.max() < 8
    assert all(len(set(row)) == 2 for row in nobody.indices_Tk.tolist())


@pytest.mark.parametrize("skew", [0.5, 1.5, 3.0, 30.0])
@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_sinkhorn_balances_in_training_only(n_experts, k, skew):
    logits = make_logits(4096, n_experts, skew=skew)
    router = SinkhornRouter(n_experts, k)
    stats = router(logits)[2]
    assert F.mri(stats.counts, 4096) < 1.15 * k / n_experts
    assert F.mri(stats.raw_counts, 4096) > F.mri(stats.counts, 4096)
    inference = router.eval()(logits)[2]
    assert torch.equal(inference.counts, stats.raw_counts) and torch.equal(inference.raw_counts, stats.raw_counts)


def test_sinkhorn_routes_each_token_alone_in_evaluation():
    logits = make_logits(20, 8)
    router = SinkhornRouter(8, 2).eval()
    together = router(logits).indices_Tk
    alone = torch.cat([router(row[None]).indices_Tk for row in logits])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("kind", ROUTERS)
def test_routes_bfloat16_logits_in_float32(kind):
    logits = make_logits(64, 8, dtype=torch.bfloat16)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        low = kind(8, 2)(logits)
    torch.manual_seed(0)  # for a router that draws
    high = kind(8, 2)(logits.float())
    assert low.weights_Tk.dtype == torch.float32
    assert torch.equal(low.indices_Tk, high.indices_Tk) and torch.equal(low.weights_Tk, high.weights_Tk)


@pytest.mark.parametrize("mode", ["mixed", "true"])
@pytest.mark.parametrize("kind", ROUTERS)
def test_layers_route_in_float32_under_bfloat16(kind, mode):
    """Against a float64 projection of the numbers that the layer has; bfloat16 logits would choose otherwise."""
    layer = MoEFeedForward(16, MoEConfig(n_experts=31, top_k=3, expert_width=8), kind).eval()
    x = torch.randn(400, 16, generator=torch.Generator().manual_seed(2))
    torch.nn.init.normal_(layer.gate.weight, generator=torch.Generator().manual_seed(3))
    if isinstance(layer.router, BiasRouter):
        layer.router.bias.copy_(torch.linspace(-0.01, 0.01, 31) / 3)
    if mode == "true":
        layer, x = layer.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "mixed"):
        layer(x)
    logits = x.double() @ layer.gate.weight.double().t()
    assert torch.equal(layer.stats.indices, layer.router(logits).indices_Tk)
    by_bfloat16 = layer.router(logits.bfloat16()).indices_Tk
    ignores_logits = torch.equal(layer.stats.indices, layer.router(-logits).indices_Tk)
    assert torch.equal(layer.stats.indices, by_bfloat16) == ignores_logits


@pytest.mark.parametrize("kind", ROUTERS)
def test_normalisation_is_off_unless_asked_for(kind):
    logits = make_logits(30, 8)
    assert not torch.allclose(kind(8, 2)(logits).weights_Tk.sum(-1), torch.ones(30))
    torch.testing.assert_close(kind(8, 2, normalize_top_k=True)(logits).weights_Tk.sum(-1), torch.ones(30))


@pytest.mark.parametrize("kind", ROUTERS)
@pytest.mark.parametrize(
    ("n_experts", "top_k", "normalize", "named"),
    [
        (8, 9, False, "top_k is 9"),
        (8, 0, False, "top_k is 0"),
        (8, 1, True, "normalize_top_k"),
        (0, 1, False, "n_experts is 0"),
    ],
)
def test_refuses_impossible_choices(kind, n_experts, top_k, normalize, named):
    with pytest.raises(UserError, match=named):
        kind(n_experts, top_k, normalize_top_k=normalize)


def test_refuses_impossible_settings():
    with pytest.raises(UserError, match="balance_weight is -1"):
        PenaltyRouter(8, 1, balance_weight=-1)
    with pytest.raises(UserError, match="z_weight is nan"):
        PenaltyRouter(8, 1, z_weight=float("nan"))
    with pytest.raises(UserError, match="scope is"):
        PenaltyRouter(8, 1, scope="global")
    with pytest.raises(UserError, match="jitter is 1"):
        PenaltyRouter(8, 1, jitter=1.0)
    with pytest.raises(UserError, match="update_rate is 0"):
        BiasRouter(8, 1, update_rate=0.0)
    with pytest.raises(UserError, match="sequence_weight is -1"):
        BiasRouter(8, 1, sequence_weight=-1.0)
    with pytest.raises(UserError, match="global_weight is -1"):
        PenaltyRouter(8, 1, global_weight=-1.0)
    with pytest.raises(UserError, match="tolerance is -1"):
        SinkhornRouter(8, 1, tolerance=-1)
    with pytest.raises(UserError, match="max_iterations is 0"):
        SinkhornRouter(8, 1, max_iterations=0)


@pytest.mark.parametrize("kind", KNOWN)
def test_keeps_nothing_but_a_bias_in_the_checkpoint(kind):
    assert list(kind(8, 2).state_dict()) == (["bias"] if kind is BiasRouter else [])


@pytest.mark.parametrize("kind", ROUTERS)
def test_its_state_has_initial_values(kind):
    router = kind(8, 2)
    before = {name: value.clone() for name, value in router.state_dict().items()}
    with torch.no_grad():
        for value in router.state_dict().values():
            value.fill_(3.0)
    router.reset_parameters(torch.Generator())
    assert all(torch.equal(value, before[name]) for name, value in router.state_dict().items())


@pytest.mark.parametrize("kind", ROUTERS)
def test_training_chooses_otherwise_only_where_it_is_said(kind):
    router = kind(8, 2)
    stats = router(make_logits(400, 8))[2]
    assert torch.equal(stats.counts, stats.raw_counts) != router.differs_in_training
    evaluated = router.eval()(make_logits(400, 8))[2]
    assert torch.equal(evaluated.counts, stats.raw_counts) and torch.equal(evaluated.raw_counts, stats.raw_counts)


@pytest.mark.parametrize("kind", ROUTERS)
def test_weights_and_inference_do_not_depend_on_the_mode_or_on_chance(kind):
    router, logits = kind(8, 2), make_logits(200, 8).detach()
    name, rule = type(router).__name__, "draw or differ in training only in select_in_training or perturb"
    scores = [router.train(training).scores(logits, logits.softmax(-1)) for training in (True, False, False)]
    chosen = [router.train(training).infer(logits, scores[0], None) for training in (True, False, False)]
    for method, results in (("scores", scores), ("infer", chosen)):
        reads_training, draws = not torch.equal(*results[:2]), not torch.equal(*results[1:])
        assert not draws, f"{name}.{method} draws at random; {rule}"
        assert not reads_training, f"{name}.{method} reads training; {rule}"


@pytest.mark.parametrize("kind", ROUTERS)
def test_what_is_said_to_be_a_softmax_is_one(kind):
    logits = make_logits(400, 8)
    for router in (kind(8, 2).eval(), kind(8, 1).eval()):
        indices, weights, _ = router(logits)
        expected = logits.softmax(-1).topk(router.top_k)
        same = torch.equal(indices, expected.indices) and torch.allclose(weights, expected.values)
        assert router.is_softmax_top_k() == same, (
            f"define {type(router).__name__}.is_softmax_top_k, which returns {same}"
        )


def extreme_logits(tokens, n_experts):
    """Logits at which scores overflow or vanish, by name."""
    drawn = torch.randn(tokens, n_experts, generator=torch.Generator().manual_seed(0))
    alike = {f"all {value:g}": torch.full((tokens, n_experts), value) for value in (0.0, 100.0, -100.0, 1e4, -1e4)}
    spread = {f"within {size:g}": (drawn * size).clamp(-size, size) for size in (100.0, 1e4)}
    one, without = torch.zeros(tokens, n_experts), drawn.clone()
    one[:, 0], without[:, 2:4] = 1e4, -torch.inf
    moved = {"low": drawn - 100, "high": drawn + 100}
    return alike | spread | moved | {"one high": one, "some -inf": without}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ROUTERS)
def test_extreme_logits_have_finite_weights_losses_and_gradients(kind, dtype):
    for normalize, training, (name, logits) in product((False, True), (False, True), extreme_logits(8, 6).items()):
        router = kind(6, 2).train(training)
        router.normalize_top_k = normalize
        logits = logits.to(dtype).requires_grad_()
        indices, weights, stats = router(logits)
        where = f"{name}, normalised {normalize}, training {training}"
        assert weights.isfinite().all(), where
        if normalize:
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[:, 0]), msg=where)
        assert all(len(set(row)) == 2 for row in indices.tolist()), where
        losses = [loss for loss in (stats.balance_loss, stats.z_loss) if loss is not None]
        total = (weights * torch.tensor([1.0, -2.0])).sum() + sum(losses)
        assert torch.stack([total, stats.raw_z_loss, stats.raw_balance_loss]).isfinite().all(), where
        total.backward()
        assert logits.grad.isfinite().all(), where


@pytest.mark.parametrize("top_k", [1, 2, 6])
@pytest.mark.parametrize("kind", ROUTERS)
def test_a_router_that_chooses_the_largest_logits_does_so_where_their_scores_tie(kind, top_k):
    def chosen(logits):
        return logits.gather(-1, kind(6, top_k).eval()(logits).indices_Tk).sort().values

    drawn = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    chooses = torch.equal(chosen(drawn), drawn.topk(top_k).values.sort().values)
    assert chooses or kind is UniformRouter
    for name, logits in extreme_logits(8, 6).items() if chooses else ():
        assert torch.equal(chosen(logits), logits.topk(top_k).values.sort().values), name


@pytest.mark.parametrize("kind", ROUTERS)
def test_normalised_weights_are_the_scores_divided_by_their_sum(kind):
    """Also where the scores themselves vanish: far below 0 a sigmoid is an exponential, as a softmax is."""
    router = kind(8, 3).eval()
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    _, plain, _ = router(logits)
    router.normalize_top_k = True
    _, weights, _ = router(logits)
    torch.testing.assert_close(weights, plain / plain.sum(-1, keepdim=True))
    chosen, low, _ = router(logits - 200)
    torch.testing.assert_close(low, logits.gather(-1, chosen).softmax(-1), rtol=1e-4, atol=1e-5)


def test_a_router_with_scores_of_its_own_is_normalised_by_these():
    class Squared(TopKRouter):
        def scores(self, logits_TE, probs_TE):
            return logits_TE.square()

    logits = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    _, weights, _ = Squared(4, 2, normalize_top_k=True)(logits)
    _, plain, _ = Squared(4, 2)(logits)
    torch.testing.assert_close(weights, plain / plain.sum(-1, keepdim=True))
