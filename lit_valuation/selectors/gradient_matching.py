"""A selector of samples whose weighted gradients match the gradient of the queries."""

from __future__ import annotations

from typing import ClassVar

from lit_core.errors import UserError, check_at_least
from lit_core.seeds import part_seed
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.matching import Matching, Rest, Targets, match_by_class


class GradientMatchingSelector(Selector):
    """Matches, class by class, the sum of the queries' last-layer gradients by orthogonal matching pursuit.

    This is the functional similarity of Sarwar et al. 2024, after GRAD-MATCH of Killamsetty et al. 2021, with a
    stronger penalty: small weights of many samples find more of the useful ones than large weights of few. The paper's
    own form is ``ridge: 0.01``. A pursuit ends before its budget is spent once no further sample has a positive product
    with the residual. Its weights are then the best non-negative ones over all samples of the class, so a larger budget
    changes nothing.

    It reports ``relative_residual``, √(Σ ‖r_t‖² / Σ ‖b_t‖²) over the targets t, and with ``rest: fill`` how many
    samples came from each round, as ``selected_in_round_1`` and so on.

    Args:
        ridge: λ, the penalty on squared weights, 0 or more; the larger it is, the more samples share the weight. About
            0.01 is the paper's.
        relative: Whether λ is a multiple of the mean squared norm of a class's gradients; the paper's code uses an
            absolute value of 0.5.
        targets: What is matched: ``class``, as in the paper, the sum over all queries of a class; ``clusters``, the
            sums over clusters of them, one after the other from the largest, each with the samples that are left.
        n_clusters: Most clusters of a class, 1 or more, by k-means of the queries' gradients; 2 or more are the sums of
            a query that holds sums in place of cases. They share the class's budget in proportion to their number of
            queries.
        rest: What becomes of a budget that a pursuit leaves: ``leave`` it, as in the paper; ``fill`` it by rounds that
            match the same target with the samples that are left, until it is spent or no product is positive. Weights
            of several rounds are divided by their number, so that all of them together match the target.

    Raises:
        UserError: If the penalty is negative or not finite, n_clusters is below 1, or a choice is not known.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def __init__(
        self,
        ridge: float = 1.0,
        relative: bool = True,
        targets: Targets = "class",
        n_clusters: int = 4,
        rest: Rest = "leave",
    ) -> None:
        check_at_least(0, ridge=ridge)
        check_at_least(1, n_clusters=n_clusters)
        for name, value, known in (("targets", targets, ("class", "clusters")), ("rest", rest, ("leave", "fill"))):
            if value not in known:
                raise UserError(f"{name} is {value!r}, but must be {' or '.join(known)}.")
        self.ridge, self.relative = ridge, relative
        self.targets, self.n_clusters, self.rest = targets, n_clusters, rest

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        clusters = self.n_clusters if self.targets == "clusters" else 1
        matching = Matching(self.ridge, self.relative, part_seed(seed), n_clusters=clusters, rest=self.rest)
        return match_by_class(pool, queries, budget, matching)
