"""Scores of tokens by loops: one text at a time, one token at a time, in float64."""

import torch


def naive_tokens(lm, text, max_tokens, reference=None):
    """Quantities of each token of a text, from all logits of one pass over it."""
    end = lm.tokenizer.end_of_text
    ids = [end, *(lm.tokenizer.encode(text)[:max_tokens] or [end])]
    vocabulary = lm.tokenizer.vocab_size
    rows = _logits(lm, ids)[:, :vocabulary]
    others = rows if reference is None else _logits(reference, ids)[:, :vocabulary]
    found = {"log_prob": [], "rank": [], "expected": [], "variance": []}
    for row, other, token in zip(rows, others, ids[1:], strict=False):
        log_probs = row - torch.logsumexp(row, 0)
        weights = torch.exp(other - torch.logsumexp(other, 0))
        mean = sum((weights * log_probs).tolist())
        found["log_prob"].append(float(log_probs[token]))
        found["rank"].append(1 + sum(value > float(row[token]) for value in row.tolist()))
        found["expected"].append(mean)
        found["variance"].append(sum((weights * (log_probs - mean) ** 2).tolist()))
    return found


@torch.no_grad()
def _logits(lm, ids):
    return lm.module(torch.tensor([ids])).logits[0].double()
