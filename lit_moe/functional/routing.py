"""Routing: Sinkhorn balancing, auxiliary losses and statistics of the experts' load.

Shape suffixes: T tokens of one router call, E routed experts, k selected experts per token.
References: Thérien et al. 2025 (arXiv 2503.05029); Clark et al. 2022 (arXiv 2202.01169) for Sinkhorn routing;
Fedus et al. 2022 (arXiv 2101.03961) for the balance loss; Zoph et al. 2022 (arXiv 2202.08906) for the z-loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_sinkhorn(
    logits_TE: Tensor,
    tolerance: float = 0.01,
    max_iterations: int = 20,
    mask_T: Tensor | None = None,
    log_shares_E: Tensor | None = None,
) -> Tensor:
    """Balance exponentiated logits between tokens and experts, in the log domain.

    The scaling diag(d0) exp(logits) diag(d1) is computed by alternating: the rows are scaled to sum to 1/T, then the
    columns to 1/E. It works on logarithms, since rows or columns of widely spread logits overflow or vanish in float32.
    The loop stops when the mean relative change of d1 is within the tolerance. The test is relative, since d1 is
    determined up to a factor and the usual absolute test may never be met.

    Args:
        logits_TE: Router logits of shape ``(tokens, experts)``.
        tolerance: Mean absolute change of log d1 at which to stop; 0 runs to the cap.
        max_iterations: Cap on the number of row and column scalings, at least 1.
        mask_T: True for tokens that count, at least one; None for all. Other rows of the balanced matrix are zero.
        log_shares_E: Logarithms of the sums that the columns are scaled to, finite, shape ``(experts,)``; None for 1/E.

    Returns:
        Logarithm of the balanced matrix of shape ``(tokens, experts)``, float32 or the logits' float64, no gradient.
    """
    with torch.no_grad():
        log_C_TE = logits_TE if logits_TE.dtype == torch.float64 else logits_TE.float()
        n_tokens, n_experts = log_C_TE.shape
        if mask_T is None:
            row_T = log_C_TE.new_full((n_tokens,), -math.log(max(n_tokens, 1)))
        else:
            row_T = torch.where(mask_T, -mask_T.sum().clamp(min=1).log().to(log_C_TE), -torch.inf)
        column_E = -math.log(n_experts) if log_shares_E is None else log_shares_E.to(log_C_TE)
        log_d1_E = log_C_TE.new_zeros(n_experts)
        log_d0_T = row_T - torch.logsumexp(log_C_TE, dim=1)
        done = torch.zeros((), dtype=torch.bool, device=log_C_TE.device)
        for _ in range(max_iterations):
            new_d0_T = row_T - torch.logsumexp(log_C_TE + log_d1_E, dim=1)
            new_d1_E = column_E - torch.logsumexp(log_C_TE + new_d0_T[:, None], dim=0)
            converged = (new_d1_E - log_d1_E).abs().mean() <= tolerance
            # Frozen by `where` instead of left by `break`: reading `done` would make a GPU wait in every iteration.
            log_d0_T = torch.where(done, log_d0_T, new_d0_T)
            log_d1_E = torch.where(done, log_d1_E, new_d1_E)
            done = done | converged
            if done.device.type == "cpu" and done:
                break
        return log_d0_T[:, None] + log_C_TE + log_d1_E


def sinkhorn(
    logits_TE: Tensor, tolerance: float = 0.01, max_iterations: int = 20, mask_T: Tensor | None = None
) -> Tensor:
    """Balance exponentiated logits between tokens and experts.

    Args:
        logits_TE: Router logits of shape ``(tokens, experts)``.
        tolerance: Mean absolute change of the logarithmic column scale at which to stop.
        max_iterations: Cap on the number of row and column scalings, at least 1.
        mask_T: True for tokens that count, at least one; None for all.

    Returns:
        Balanced matrix of shape ``(tokens, experts)``: columns sum to 1/experts, rows nearly to 1/tokens; no gradient.

    Example:
        >>> sinkhorn(torch.tensor([[2.0, 0.0], [2.0, 0.0]])).mul(4).round()
        tensor([[1., 1.],
                [1., 1.]])
    """
    return log_sinkhorn(logits_TE, tolerance, max_iterations, mask_T).exp()


def count_experts(indices_Tk: Tensor, n_experts: int, mask_T: Tensor | None = None) -> Tensor:
    """Return the number of tokens that chose each expert.

    Args:
        indices_Tk: Chosen experts of shape ``(tokens, k)``.
        n_experts: Number of routed experts.
        mask_T: True for tokens that count; None for all.

    Returns:
        Counts of shape ``(experts,)``, int64.
    """
    ones_Tk = torch.ones_like(indices_Tk) if mask_T is None else mask_T[:, None].expand_as(indices_Tk).long()
    counts_E = torch.zeros(n_experts, dtype=torch.int64, device=indices_Tk.device)
    # Not bincount: on a GPU it waits for the largest index.
    return counts_E.scatter_add_(0, indices_Tk.reshape(-1), ones_Tk.reshape(-1))


def balance_loss(probs_mean_E: Tensor, counts_E: Tensor, tokens: Tensor | int, top_k: int) -> Tensor:
    """Return the unscaled balance loss E Σ f_i P_i with f_i = count_i / (k T); 1 at perfect balance.

    Args:
        probs_mean_E: Mean routing probability of each expert over the tokens, shape ``(experts,)``, with gradient.
        counts_E: Tokens that chose each expert, shape ``(experts,)``.
        tokens: Number of tokens T that were counted.
        top_k: Experts per token.

    Returns:
        A scalar; its gradient flows through the probabilities only.

    Example:
        >>> balance_loss(torch.full((4,), 0.25), torch.tensor([2, 2, 2, 2]), 4, 2)
        tensor(1.)
    """
    share_E = counts_E.to(probs_mean_E.dtype) / _at_least_one(tokens, probs_mean_E) / top_k
    return counts_E.numel() * (share_E * probs_mean_E).sum()


def sequence_balance_loss(probs_TE: Tensor, indices_Tk: Tensor, sequences: int, mask_T: Tensor | None = None) -> Tensor:
    """Return the unscaled balance loss of each sequence by itself, averaged over the sequences that have a token.

    Equations 17 to 20 of DeepSeek-AI 2024 (arXiv 2412.19437), with f counted over the experts that the tokens are sent
    to; 1 at perfect balance within each sequence.

    Args:
        probs_TE: Routing probabilities of shape ``(tokens, experts)``, with gradient; each row sums to 1.
        indices_Tk: Chosen experts of shape ``(tokens, k)``.
        sequences: Number of sequences, which all have as many tokens, masked ones included.
        mask_T: True for tokens that count; None for all.

    Returns:
        A scalar; its gradient flows through the probabilities only.

    Example:
        >>> sequence_balance_loss(torch.full((4, 2), 0.5), torch.tensor([[0], [1], [1], [0]]), 2)
        tensor(1.)
    """
    n_experts, k = probs_TE.shape[1], indices_Tk.shape[1]
    weight_T = probs_TE.new_ones(len(probs_TE)) if mask_T is None else mask_T.to(probs_TE.dtype)
    weight_BS = weight_T.reshape(sequences, -1)
    chosen_TE = torch.zeros_like(probs_TE.detach()).scatter_add_(1, indices_Tk, weight_T[:, None].expand(-1, k))
    tokens_B1 = weight_BS.sum(1, keepdim=True).clamp(min=1)
    share_BE = chosen_TE.reshape(sequences, -1, n_experts).sum(1) / tokens_B1 / k
    mean_BE = probs_TE.reshape(sequences, -1, n_experts).mul(weight_BS[..., None]).sum(1) / tokens_B1
    return n_experts * (share_BE * mean_BE).sum() / (weight_BS.sum(1) > 0).sum().clamp(min=1)


def balance_bias(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """Return selection biases moved towards an even load: b_i + γ sign(mean load − load_i), minus the mean bias.

    Algorithm 1 of Wang et al. 2024 (arXiv 2408.15664). Without subtracting the mean the biases drift together, which
    changes no choice but costs precision.

    Args:
        bias_E: Biases before the step, shape ``(experts,)``.
        counts_E: Tokens that chose each expert in the step, shape ``(experts,)``.
        rate: Amount γ of a move.

    Returns:
        Biases after the step, of the same shape and number format, with a mean of 0.

    Example:
        >>> balance_bias(torch.zeros(4), torch.tensor([9, 1, 1, 1]), 0.1)
        tensor([-0.1500,  0.0500,  0.0500,  0.0500])
    """
    # Whole numbers, so that an expert at the mean stays: the mean of float32 loads would be rounded.
    short_E = (counts_E.sum() - counts_E * counts_E.numel()).sign()
    moved_E = bias_E + rate * short_E.to(bias_E.dtype)
    return moved_E - moved_E.mean()


def shift_bias(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """Return selection biases moved as `balance_bias` moves them, with the mean that they had.

    A pretrained bias may have a mean that matters, where a router compares a biased score with a constant.

    Args:
        bias_E: Biases before the step, shape ``(experts,)``.
        counts_E: Tokens that chose each expert in the step, shape ``(experts,)``.
        rate: Amount γ of a move.

    Returns:
        Biases after the step, of the same shape and number format.

    Example:
        >>> shift_bias(torch.full((4,), 7.0), torch.tensor([9, 1, 1, 1]), 0.1)
        tensor([6.8500, 7.0500, 7.0500, 7.0500])
    """
    return bias_E + balance_bias(torch.zeros_like(bias_E), counts_E, rate)


def jitter(x: Tensor, amount: float) -> Tensor:
    """Multiply each element by a uniform random number in [1 − amount, 1 + amount] (Fedus et al. 2022, section 2.2).

    The numbers come from torch's global generator of the device, which `lit_core.data.ResumeStream` seeds before each
    micro-batch and activation checkpointing restores.

    Args:
        x: Any tensor.
        amount: Largest relative change, 0 or more.

    Returns:
        The same shape, in float32 or the input's float64.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide * torch.empty_like(wide).uniform_(1 - amount, 1 + amount)


def z_loss(logits_TE: Tensor, mask_T: Tensor | None = None) -> Tensor:
    """Return the unscaled z-loss, the mean over tokens of (log Σ_j exp z_j)².

    Args:
        logits_TE: Router logits of shape ``(tokens, experts)``.
        mask_T: True for tokens that count; None for all.

    Returns:
        A scalar.
    """
    square_T = torch.logsumexp(logits_TE, dim=-1).square()
    return masked_mean(square_T, mask_T)


def masked_mean(values_T: Tensor, mask_T: Tensor | None) -> Tensor:
    """Return the mean over the tokens that count.

    Args:
        values_T: Values of shape ``(tokens, ...)``.
        mask_T: True for tokens that count; None for all.

    Returns:
        The mean over the first dimension; 0 if no token counts.
    """
    if mask_T is None:
        return values_T.mean(0)
    mask = mask_T.reshape(-1, *[1] * (values_T.dim() - 1))
    return values_T.masked_fill(~mask, 0).sum(0) / mask_T.sum().clamp(min=1)


def mri(counts_E: Tensor, tokens: Tensor | int) -> Tensor:
    """Return the maximum routing imbalance, the share of tokens that the fullest expert gets (Eq. 1 of Thérien et al.).

    Args:
        counts_E: Tokens that chose each expert, shape ``(..., experts)``.
        tokens: Number of tokens counted, broadcastable to the leading shape.

    Returns:
        Values in [k/E, 1] of the leading shape; NaN if no token was counted.

    Example:
        >>> mri(torch.tensor([4, 2, 1, 1]), 4)
        tensor(1.)
    """
    return counts_E.amax(-1) / torch.as_tensor(tokens, device=counts_E.device)


def load_entropy(counts_E: Tensor) -> Tensor:
    """Return the entropy of the load over the experts, divided by log E.

    Args:
        counts_E: Tokens that chose each expert, shape ``(..., experts)``.

    Returns:
        Values in [0, 1] of the leading shape; 1 for an even load, 0 if one expert has it all or there is only one, NaN
        if nothing was counted.
    """
    if counts_E.shape[-1] == 1:
        return torch.zeros(counts_E.shape[:-1], device=counts_E.device)
    share_E = counts_E / counts_E.sum(-1, keepdim=True)
    return torch.special.entr(share_E).sum(-1) / math.log(counts_E.shape[-1])


def max_load(counts_E: Tensor) -> Tensor:
    """Return the load of the fullest expert over the mean load; 1 for an even load, NaN if nothing was counted.

    Args:
        counts_E: Tokens that chose each expert, shape ``(..., experts)``.
    """
    return counts_E.amax(-1) / counts_E.float().mean(-1)


def min_load(counts_E: Tensor) -> Tensor:
    """Return the load of the emptiest expert over the mean load; 1 for an even load, NaN if nothing was counted.

    Args:
        counts_E: Tokens that chose each expert, shape ``(..., experts)``.
    """
    return counts_E.amin(-1) / counts_E.float().mean(-1)


def dead_experts(counts_E: Tensor) -> Tensor:
    """Return the number of experts without a token, of the leading shape, int64.

    Args:
        counts_E: Tokens that chose each expert, shape ``(..., experts)``.
    """
    return (counts_E == 0).sum(-1)


def _at_least_one(tokens: Tensor | int, like: Tensor) -> Tensor:
    return torch.as_tensor(tokens, device=like.device).clamp(min=1)
