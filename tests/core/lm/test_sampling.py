import pytest
import torch

from lit_core.lm.sampling import choose_tokens


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 5, 1000])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.7, 1.0])
def test_draws_from_the_distribution_of_transformers(temperature, top_k, top_p):
    transformers = pytest.importorskip("transformers")
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(0)) * 2
    warped = transformers.TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        warped = transformers.TopKLogitsWarper(top_k)(None, warped)
    if top_p is not None:
        warped = transformers.TopPLogitsWarper(top_p)(None, warped)
    draws = 20_000
    uniform = (torch.arange(draws) + 0.5) / draws  # the whole unit interval, so that frequencies are the probabilities
    chosen = choose_tokens(logits.expand(draws, -1), uniform, temperature, top_k, top_p)
    frequency = torch.bincount(chosen, minlength=20) / draws
    torch.testing.assert_close(frequency, warped.softmax(-1)[0], rtol=0, atol=2e-4)


def test_draws_at_the_ends_of_the_unit_interval():
    logits = torch.tensor([[0.0, 5.0, 1.0, -1e9]]).expand(2, -1)
    ends = torch.tensor([0.0, 1 - 2**-24])
    assert choose_tokens(logits, ends, 1.0).tolist() == [0, 2]  # in the order of the ids
    assert choose_tokens(logits, ends, 1.0, top_k=2).tolist() == [1, 2]
    assert choose_tokens(logits, ends, 1.0, top_p=1e-9).tolist() == [1, 1]
    assert choose_tokens(logits * 1e30, ends, 1e-6).tolist() == [1, 1]


def test_tokens_as_likely_as_the_last_one_allowed_are_allowed_too():
    logits = torch.tensor([[1.0, 3.0, 1.0, 0.0]])
    uniform = (torch.arange(1000) + 0.5) / 1000
    for options in (dict(top_k=2), dict(top_p=0.85)):  # 3 alone has 0.76, with one of the ones 0.86
        chosen = choose_tokens(logits.expand(1000, -1), uniform, 1.0, **options)
        assert chosen.unique().tolist() == [0, 1, 2]
