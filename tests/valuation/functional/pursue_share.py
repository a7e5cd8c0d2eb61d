"""One rank's part of the pursuits that two processes solve as one; starts fast, as it imports little."""

import torch

from lit_valuation.functional.gradients import LastLayerGradients
from lit_valuation.functional.pursuit import PursuitOptions, matching_pursuits

KINDS = ("random", "duplicated", "unnormalised", "deficient")


def draw(kind, seed, n=40, outputs=4, width=6, bias=True):
    """Atoms and a target that is not among their non-negative combinations."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    delta, hidden = normal(n, outputs), normal(n, width)
    if kind == "duplicated":
        copies = torch.randint(n, (n // 2,), generator=generator)
        delta[: len(copies)], hidden[: len(copies)] = delta[copies], hidden[copies]
    if kind == "unnormalised":
        delta *= 10 ** (6 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 3)
    if kind == "deficient":
        delta, hidden = normal(n, 1) @ normal(1, outputs), normal(n, 3) @ normal(3, width)
    return LastLayerGradients(delta, hidden, bias), normal(outputs, width + bias)


CASES = [(kind, rule, sign) for kind in KINDS for rule in ("residual", "penalised") for sign in (True, False)]


def pursue_share(rank, world_size, store, folder):
    """Solve all cases with the atoms of one rank; the last has all its atoms on rank 0."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(store, world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    results = []
    for case, (kind, rule, nonnegative) in enumerate(CASES):
        gradients, target = draw(kind, case)
        share = torch.arange(40)[rank::world_size] if case else torch.arange(40 * (1 - rank))
        found = matching_pursuits(
            gradients.take(share),
            torch.stack([target, -target]),
            8,
            PursuitOptions(rule=rule, nonnegative=nonnegative, psi_ridge=0.001),
            psi=torch.arange(40.0)[share],
            numbers=share,
            group=torch.distributed.group.WORLD,
        )
        fields = ("support", "weights", "residual", "nested", "path", "residuals")
        results.append([{field: getattr(pursuit, field) for field in fields} for pursuit in found])
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
