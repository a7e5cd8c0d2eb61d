import math

import torch

from lit_detect.functional.coherence import coherence_sum, coherence_weights


def by_hand(states, vectors):
    """The mean over neighbours, one text at a time in float64."""
    pairs = list(zip(range(len(states) - 1), range(1, len(states)), strict=True)) or [(0, 0)] * len(states)
    total = [0.0] * (2 * len(states[0])) if states else None
    for i, j in pairs:
        dot = sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True))
        norms = math.hypot(*vectors[i]) * math.hypot(*vectors[j])
        for place, value in enumerate([*states[i], *states[j]]):
            total[place] += (1 + dot / norms) / 2 * value / len(pairs)
    return total


def test_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    lengths = [4, 1, 2, 0, 5]
    states = torch.randn(5, 5, 3, generator=generator, dtype=torch.float64)
    vectors = torch.randn(5, 5, 6, generator=generator, dtype=torch.float64)
    real = torch.arange(5) < torch.tensor(lengths)[:, None]
    found = coherence_sum(states, vectors, real)
    for row, length in enumerate(lengths):
        expected = by_hand(states[row, :length].tolist(), vectors[row, :length].tolist()) or [0.0] * 6
        torch.testing.assert_close(found[row], torch.tensor(expected, dtype=torch.float64))


def test_weights_are_1_for_equal_and_0_for_opposite_sentences():
    vectors = torch.tensor([[[1.0, 0], [2, 0], [0, 3], [0, -1]]])
    torch.testing.assert_close(coherence_weights(vectors), torch.tensor([[1.0, 0.5, 0.0]]))


def test_one_column_of_sentences():
    states = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    found = coherence_sum(states, states, torch.tensor([[True], [False]]))
    assert found.tolist() == [[1, 2, 1, 2], [0, 0, 0, 0]]


def test_gradients():
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    real = torch.tensor([[True, True, True], [True, False, False]])
    assert torch.autograd.gradcheck(lambda s, v: coherence_sum(s, v, real), (states, vectors))
