import pytest
import torch

from lit_core.errors import UserError
from lit_moe.nn import GroupedExperts

TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.bfloat16: {"rtol": 3e-2, "atol": 3e-2}}


def make(
    n_experts=5, k=2, tokens=40, dtype=torch.float32, backend="loop", activation="silu", seed=0, d_model=16, width=24
):
    generator = torch.Generator().manual_seed(seed)
    experts = GroupedExperts(n_experts, d_model, width, activation, backend).to(dtype)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(tokens, d_model, generator=generator).to(dtype).requires_grad_()
    indices = torch.rand(tokens, n_experts, generator=generator).topk(k).indices
    weights = torch.rand(tokens, k, generator=generator).requires_grad_()
    return experts, x, indices, weights


def naive(experts, x, indices, weights):
    """One token and one expert at a time, in float64, by autograd's own means."""
    act = torch.nn.functional.silu if experts.activation == "silu" else torch.nn.functional.gelu
    leaves = [t.detach().double().requires_grad_() for t in (x, weights, experts.gate_up, experts.down)]
    x64, w64, gate_up, down = leaves
    rows = []
    for t in range(len(x64)):
        total = torch.zeros(x64.shape[1], dtype=torch.float64)
        for slot, e in enumerate(indices[t].tolist()):
            gate, up = (gate_up[e] @ x64[t]).chunk(2)
            total = total + w64[t, slot] * (down[e] @ (act(gate) * up))
        rows.append(total)
    return torch.stack(rows), leaves


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["loop", "grouped_mm"])
@pytest.mark.parametrize(("n_experts", "k"), [(8, 1), (31, 3), (4, 4)])
def test_equals_a_loop_over_tokens(n_experts, k, backend, dtype, activation):
    experts, x, indices, weights = make(n_experts, k, dtype=dtype, backend=backend, activation=activation)
    out = experts(x, indices, weights)
    assert out.dtype == dtype
    expected, leaves = naive(experts, x, indices, weights)
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    out.backward(towards.to(dtype))
    expected.backward(towards.double())
    pairs = [
        (out, expected),
        *((a.grad, b.grad) for a, b in zip((x, weights, *experts.parameters()), leaves, strict=True)),
    ]
    for ours, theirs in pairs:
        scale = theirs.abs().max()  # sums in bfloat16 are as exact as their largest terms
        torch.testing.assert_close(ours.double() / scale, theirs / scale, **TOLERANCE[dtype])


def test_rows_rounded_up_leave_no_trace(monkeypatch):
    """Expert 1 makes infinities of the rows of others, which its slice reaches into."""
    generator = torch.Generator().manual_seed(3)
    experts, *_ = make(4, 1, dtype=torch.bfloat16)
    with torch.no_grad():
        experts.gate_up[1] = 1e30
    indices = torch.randint(4, (200, 1), generator=generator)
    x = torch.randn(200, experts.gate_up.shape[2], generator=generator).abs().bfloat16().requires_grad_()
    with torch.no_grad():
        x[indices[:, 0] == 1] = 0
    weights = torch.rand(200, 1, generator=generator).requires_grad_()
    found = []
    for multiple in (32, 1):
        monkeypatch.setattr("lit_moe.nn.experts._FEWER_SHAPES", multiple)
        out = experts(x, indices, weights)
        found.append([out.detach(), *torch.autograd.grad(out.sum(), [x, weights, *experts.parameters()])])
    for rounded, exact in zip(*found, strict=True):
        assert exact.isfinite().all()
        torch.testing.assert_close(rounded.float(), exact.float(), rtol=2e-2, atol=2e-2 * float(exact.abs().max()))


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_loop_passes_gradcheck(activation):
    experts, x, indices, weights = make(4, 2, 6, torch.float64, activation=activation, d_model=4, width=3)
    parameters = dict(experts.named_parameters())

    def run(x, weights, *values):
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(experts, named, (x, indices, weights))

    assert torch.autograd.gradcheck(run, (x, weights.detach().double().requires_grad_(), *parameters.values()))


@pytest.mark.parametrize("backend", ["loop", "grouped_mm"])
def test_every_parameter_gets_a_gradient_although_experts_idle(backend):
    experts, x, _, weights = make(6, 2, backend=backend)
    indices = torch.tensor([[4, 1]]).expand(40, 2)
    experts(x, indices, weights).pow(2).sum().backward()
    for parameter in experts.parameters():
        busy = parameter.grad.abs().amax((1, 2)) > 0
        assert busy.tolist() == [False, True, False, False, True, False]
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["loop", "grouped_mm"])
def test_gradient_of_a_sum_which_has_no_strides(backend):
    experts, x, indices, weights = make(backend=backend)
    experts(x, indices, weights).sum().backward()
    summed = x.grad.clone()
    x.grad = None
    out = experts(x, indices, weights)
    out.backward(torch.ones_like(out))
    assert torch.equal(summed, x.grad)


@pytest.mark.parametrize("backend", ["loop", "grouped_mm"])
def test_autocast_computes_in_bfloat16_and_keeps_float32_gradients(backend):
    experts, x, indices, weights = make(backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        out = experts(x, indices, weights)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    low = experts.gate_up.grad.clone()
    assert low.dtype == x.grad.dtype == weights.grad.dtype == torch.float32
    experts.zero_grad()
    experts(x, indices, weights).sum().backward()
    torch.testing.assert_close(low / low.abs().max(), experts.gate_up.grad / low.abs().max(), rtol=0, atol=0.03)


@pytest.mark.parametrize("backend", ["loop", "grouped_mm"])
def test_repeats_bit_for_bit(backend):
    results = []
    for _ in range(2):
        experts, x, indices, weights = make(8, 3, 200, backend=backend)
        experts(x, indices, weights).pow(2).sum().backward()
        results.append([x.grad, weights.grad, experts.gate_up.grad, experts.down.grad])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_frozen_experts_pass_the_gradient_on():
    experts, x, indices, weights = make()
    experts.requires_grad_(False)
    experts(x, indices, weights).sum().backward()
    assert x.grad.abs().sum() > 0 and experts.gate_up.grad is None


def test_auto_takes_the_loop_on_cpu():
    experts, x, indices, weights = make(backend="auto")
    loop = make(backend="loop")[0]
    assert torch.equal(experts(x, indices, weights), loop(x, indices, weights))


def test_refuses_what_a_backend_cannot_do():
    with pytest.raises(UserError, match='backend is "grouped"'):
        GroupedExperts(4, 16, 24, backend="grouped")
    experts, x, indices, weights = make(dtype=torch.float64, backend="grouped_mm")
    with pytest.raises(UserError, match="float64"):
        experts(x, indices, weights)
    odd = GroupedExperts(4, 16, 25, backend="grouped_mm")
    with pytest.raises(UserError, match="multiples of 4"):
        odd(torch.randn(3, 16), torch.zeros(3, 1, dtype=torch.int64), torch.ones(3, 1))
