"""How a foreign gate scores experts, found by the weights that it gives them.

Shape suffixes: T tokens, E experts, k chosen experts per token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

#: Logarithm of the score of each expert by the name of the score; of the softmax up to a number per token.
LOG_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits,
    "sigmoid": logsigmoid,
    "sqrtsoftplus": lambda logits: torch.where(logits < -20, logits, softplus(logits).log()) / 2,
}
#: Scores of gates whose weights do not always tell. SparseMixer draws an expert in training and weighs it by a softmax
#: over those that are near it; its balance loss takes the softmax (Liu et al. 2024, arXiv 2409.12136). DBRX with one
#: expert per token gives it the weight 1.
STATED_SCORES = {"PhimoeTopKRouter": "softmax", "DbrxRouter": "softmax"}


def probabilities(score: str, logits_TE: Tensor) -> Tensor:
    """Return the scores of each token divided by their sum over all experts.

    For a softmax they are the softmax; for a sigmoid they are those of the balance loss of DeepSeek-V3 (equation 19 of
    DeepSeek-AI 2024, arXiv 2412.19437).

    Args:
        score: A key of `LOG_SCORES`.
        logits_TE: Logits of shape ``(tokens, experts)``.

    Returns:
        The same shape; each row sums to 1.
    """
    return LOG_SCORES[score](logits_TE).softmax(-1)


def fitting_scores(
    logits_TE: Tensor, indices_Tk: Tensor, weights_Tk: Tensor, factors_E: Tensor | None = None
) -> list[str]:
    """Return the scores from which a gate may have made the weights of the chosen experts.

    A token's weights are its scores times a factor, whatever it is, such as one over their sum; or if each token has
    one expert, times a factor of all tokens. The differences of logarithms then agree within the rounding of the
    number formats. Several scores fit where the logits hardly differ.

    Args:
        logits_TE: The gate's logits.
        indices_Tk: The experts it chose.
        weights_Tk: Their weights.
        factors_E: Factor of each expert that the gate multiplies the weights by; None for none.

    Returns:
        Keys of `LOG_SCORES`; none if no score fits.
    """
    epsilon = max(torch.finfo(tensor.dtype).eps for tensor in (logits_TE, weights_Tk))
    tolerance = max(1e-3, 4 * epsilon)
    with torch.no_grad():
        weights_Tk = weights_Tk.double()
        if factors_E is not None:
            weights_Tk = weights_Tk / factors_E.double()[indices_Tk]
        fit = []
        for score, log_score in LOG_SCORES.items():
            scores_TE = log_score(logits_TE.double())
            if score == "softmax" and indices_Tk.shape[1] == 1:
                scores_TE = scores_TE.log_softmax(-1)
            ratio_Tk = weights_Tk.log() - scores_TE.gather(-1, indices_Tk)
            ratio_Tk = ratio_Tk.masked_fill(weights_Tk <= 0, torch.nan)
            center = ratio_Tk.nanmean() if ratio_Tk.shape[1] == 1 else ratio_Tk.nanmean(-1, keepdim=True)
            off = (ratio_Tk - center).abs().nan_to_num(0.0)
            if bool(off.max() <= tolerance):
                fit.append(score)
    return fit


def are_probabilities(values_TE: Tensor) -> bool:
    """Tell whether the rows are probabilities rather than logits: none is negative, and each row sums to 1."""
    values_TE = values_TE.detach().float()
    return bool((values_TE >= 0).all()) and bool(((values_TE.sum(-1) - 1).abs() < 0.02).all())
