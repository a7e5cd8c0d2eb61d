"""Ridge least squares on the few atoms a pursuit has chosen, with a Cholesky factor that grows by a row per atom.

Solves (G + diag(p)) w = c, with G the inner products of the chosen atoms, p their penalties and c their products with
the target. Weights are kept from becoming negative as Lawson and Hanson do (Solving Least Squares Problems, 1974,
chapter 23): from the last weights towards the new solution, up to the first that reaches 0; its atom is dropped, and
again. The objective falls with each atom added, so no set of atoms comes twice, and the new atom always stays.
"""

from __future__ import annotations

import torch
from torch import Tensor


class ActiveSet:
    """Chosen atoms and their weights, in the order in which they were added; on the CPU.

    Args:
        capacity: Most atoms.
        nonnegative: Whether atoms with negative weights are dropped.
        dtype: Number format of the solution.
    """

    def __init__(self, capacity: int, nonnegative: bool, dtype: torch.dtype) -> None:
        self.nonnegative = nonnegative
        self.size = 0
        self._gram = torch.zeros(capacity, capacity, dtype=dtype)
        self._factor = torch.zeros(capacity, capacity, dtype=dtype)
        self._vectors = torch.zeros(3, capacity, dtype=dtype)  # penalties, products with the target, weights

    @property
    def gram(self) -> Tensor:
        """Inner products of the atoms, ``(size, size)``."""
        return self._gram[: self.size, : self.size]

    @property
    def products(self) -> Tensor:
        """Products of the atoms with the target, ``(size,)``."""
        return self._vectors[1, : self.size]

    @property
    def weights(self) -> Tensor:
        """Weights of the atoms, ``(size,)``."""
        return self._vectors[2, : self.size]

    def add(self, inner: Tensor, square: float, penalty: float, product: float) -> list[int] | None:
        """Add an atom and solve for the weights of all.

        Args:
            inner: Its inner products with the atoms so far.
            square: Its squared length.
            penalty: What is added to the square.
            product: Its product with the target.

        Returns:
            Which positions stay, counting the new atom's, in order; None, and nothing happened, where the atom is a
            combination of the others up to rounding.
        """
        t, diagonal = self.size, square + penalty
        row = torch.linalg.solve_triangular(self._factor[:t, :t], inner[:, None], upper=False)[:, 0]
        pivot = diagonal - float(row @ row)
        if pivot <= 8 * (t + 1) * torch.finfo(row.dtype).eps * diagonal:
            return None
        self._gram[t, :t] = self._gram[:t, t] = inner
        self._gram[t, t] = square
        self._factor[t, :t], self._factor[t, t] = row, pivot**0.5
        self._vectors[:, t] = torch.tensor([penalty, product, 0.0], dtype=row.dtype)
        self.size += 1
        return self._settle()

    def _settle(self) -> list[int]:
        """Solve, dropping atoms until no weight is negative; return the positions that stay."""
        positions = list(range(self.size))
        while self.size:
            solution = torch.cholesky_solve(self.products[:, None], self._factor[: self.size, : self.size])[:, 0]
            if not self.nonnegative or bool((solution > 0).all()):
                self.weights.copy_(solution)
                break
            # How far each weight that would not stay positive may go: w / (w - z), 0 for a new atom.
            fall = (self.weights - solution).clamp(min=torch.finfo(solution.dtype).tiny)
            way = torch.where(solution > 0, torch.inf, self.weights / fall)
            self.weights.add_(way.min() * (solution - self.weights))
            kept = (way > way.min()).nonzero()[:, 0]
            positions = [positions[i] for i in kept.tolist()]
            self._keep(kept)
        return positions

    def _keep(self, kept: Tensor) -> None:
        gram, vectors = self.gram[kept][:, kept], self._vectors[:, kept]
        self.size = size = len(kept)
        self._gram[:size, :size], self._vectors[:, :size] = gram, vectors
        self._factor[:size, :size] = torch.linalg.cholesky(gram + vectors[0].diag())

    def path(self) -> Tensor:
        """Return the weights of every prefix of the atoms, lower triangular: row t holds those of the first t + 1.

        Each row is solved for anew; where weights must not be negative it is the best of that kind, and may hold zeros.
        """
        # With G + diag(p) = L L' and y = L⁻¹ c, the first t atoms have the weights Σ_{s<t} y_s (row s of L⁻¹).
        identity = torch.eye(self.size, dtype=self._factor.dtype)
        inverse = torch.linalg.solve_triangular(self._factor[: self.size, : self.size], identity, upper=False)
        path = ((inverse @ self.products)[:, None] * inverse).cumsum(0)
        if self.nonnegative:
            for t in (path.tril() < 0).any(1).nonzero()[:, 0].tolist():
                path[t, : t + 1] = self._best(t + 1)
        return path

    def _best(self, size: int) -> Tensor:
        """Return the best weights of the first atoms that are not negative."""
        gram, (penalties, products, _) = self.gram, self._vectors
        chosen, members = ActiveSet(size, True, gram.dtype), list[int]()
        rounding = 64 * torch.finfo(gram.dtype).eps * products[:size].abs().max()
        slopes = products[:size].clone()
        while float(slopes.max()) > rounding:
            new = int(slopes.argmax())
            stay = chosen.add(gram[members, new], float(gram[new, new]), float(penalties[new]), float(products[new]))
            if stay is None or len(members) not in stay:
                break  # a slope that is nothing but rounding
            members = [[*members, new][position] for position in stay]
            slopes = products[:size] - gram[:size, members] @ chosen.weights
            slopes[members] = 0
        weights = torch.zeros(size, dtype=gram.dtype)
        weights[members] = chosen.weights
        return weights
