"""Matching pursuit as it is written down: gradients in full, a dense solve at each step."""

import numpy as np
from scipy.optimize import nnls


def materialise(gradients):
    """Each sample's gradient as one row, (n, C (d + bias))."""
    delta, hidden = gradients.delta.numpy(), gradients.hidden.numpy()
    if gradients.bias:
        hidden = np.concatenate([hidden, np.ones((len(hidden), 1), hidden.dtype)], axis=1)
    return np.stack([np.outer(d, h).ravel() for d, h in zip(delta, hidden, strict=True)])


def augmented(rows, target, penalties):
    """The penalties as further rows of a least-squares problem: (p + n, n) and (p + n,)."""
    return np.concatenate([rows.T, np.diag(np.sqrt(penalties))]), np.concatenate([target, np.zeros(len(rows))])


def naive_pursuit(rows, target, budget, penalties, rule="residual", nonnegative=True):
    """Return support, weights and how many atoms were dropped."""
    support, weights, dropped = [], np.zeros(0), 0
    lengths = np.linalg.norm(rows, axis=1)
    noise = 1e-13 * lengths * np.linalg.norm(target)
    for _ in range(3 * budget):
        if len(support) == budget:
            break
        scores = rows @ (target - weights @ rows[support])
        if not nonnegative:
            scores = np.abs(scores)
        scores[scores <= noise] = 0
        scores[support] = 0
        slack = noise
        if rule == "penalised":
            divisor = np.sqrt(lengths**2 + penalties)
            scores, slack = (np.divide(v, divisor, where=divisor > 0, out=np.zeros_like(v)) for v in (scores, noise))
        if scores.max() <= 0:
            break
        new = int(np.flatnonzero((scores > 0) & (scores + slack >= scores.max()))[0])
        support, weights = [*support, new], np.append(weights, 0.0)
        while True:
            matrix, wanted = augmented(rows[support], target, penalties[support])
            solution = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
            if not nonnegative or (solution > 0).all():
                weights = solution
                break
            steps = {i: weights[i] / (weights[i] - solution[i]) for i in np.flatnonzero(solution <= 0)}
            shortest = min(steps.values())
            weights = weights + shortest * (solution - weights)
            for i in sorted((i for i, step in steps.items() if step <= shortest), reverse=True):
                support.pop(i)
                weights = np.delete(weights, i)
                dropped += 1
    return support, weights, dropped


def best_weights(rows, target, penalties):
    """Non-negative weights of given atoms, by SciPy."""
    return nnls(*augmented(rows, target, penalties))[0]
