"""Ridge least squares on the active set of a matching pursuit, with a Cholesky factor that grows by a row per atom.

Solves (G + diag(p)) w = c, where G holds the inner products of the active atoms, p their penalties and c their products
with the target. Non-negative weights follow Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23): move
from the last weights towards the new solution until the first weight reaches 0, remove its atom, and repeat. The
objective falls with each added atom, so no set of atoms occurs twice, and the new atom is never removed.
"""

from __future__ import annotations

import torch
from torch import Tensor


class ActiveSet:
    """The active atoms and their weights, in the order in which the atoms were added; on the CPU.

    Args:
        capacity: Most atoms that the set can hold.
        nonnegative: Whether atoms whose weights would be negative are removed.
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
        """Add an atom and solve for all weights.

        Args:
            inner: Inner products of the atom with the active atoms, ``(size,)``.
            square: Squared norm of the atom.
            penalty: Penalty of the atom, which is added to the squared norm.
            product: Inner product of the atom with the target.

        Returns:
            Positions of the atoms that stay, in ascending order, where the new atom has the last position. None if the
            atom is linearly dependent on the active atoms up to rounding; the set then does not change.
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
        """Solve, removing atoms until no weight is negative. Return the positions of the atoms that stay."""
        positions = list(range(self.size))
        while self.size:
            solution = torch.cholesky_solve(self.products[:, None], self._factor[: self.size, : self.size])[:, 0]
            if not self.nonnegative or bool((solution > 0).all()):
                self.weights.copy_(solution)
                break
            # Fraction of the way to the solution z at which a weight reaches 0: w / (w - z), 0 for a new atom.
            decrease = (self.weights - solution).clamp(min=torch.finfo(solution.dtype).tiny)
            fraction = torch.where(solution > 0, torch.inf, self.weights / decrease)
            self.weights.add_(fraction.min() * (solution - self.weights))
            staying = (fraction > fraction.min()).nonzero()[:, 0]
            positions = [positions[i] for i in staying.tolist()]
            self._restrict(staying)
        return positions

    def _restrict(self, staying: Tensor) -> None:
        """Remove all atoms but those at some positions, and factorise again."""
        gram, vectors = self.gram[staying][:, staying], self._vectors[:, staying]
        self.size = size = len(staying)
        self._gram[:size, :size], self._vectors[:, :size] = gram, vectors
        self._factor[:size, :size] = torch.linalg.cholesky(gram + vectors[0].diag())

    def path(self) -> Tensor:
        """Solve for the weights of every prefix of the atoms.

        Returns:
            A lower triangular matrix ``(size, size)``, whose row t holds the optimal weights of the first t + 1 atoms.
            With non-negative weights a row may hold zeros.
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
        """Return the optimal non-negative weights of the first ``size`` atoms."""
        gram, (penalties, products, _) = self.gram, self._vectors
        active, members = ActiveSet(size, True, gram.dtype), list[int]()
        rounding = 64 * torch.finfo(gram.dtype).eps * products[:size].abs().max()
        slopes = products[:size].clone()
        while float(slopes.max()) > rounding:
            new = int(slopes.argmax())
            staying = active.add(gram[members, new], float(gram[new, new]), float(penalties[new]), float(products[new]))
            if staying is None or len(members) not in staying:
                break  # the slope is rounding error
            members = [[*members, new][position] for position in staying]
            slopes = products[:size] - gram[:size, members] @ active.weights
            slopes[members] = 0
        weights = torch.zeros(size, dtype=gram.dtype)
        weights[members] = active.weights
        return weights
