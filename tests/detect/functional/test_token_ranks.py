import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_detect.functional.ranks import RANK_BINS, rank_histogram, ranks_of


def test_ranks_are_places_in_the_sorted_order():
    torch.manual_seed(0)
    logits, tokens = torch.randn(20, 50), torch.randint(0, 50, (20,))
    expected = [sorted(row, reverse=True).index(row[t]) + 1 for row, t in zip(logits.tolist(), tokens, strict=True)]
    assert ranks_of(logits, tokens).tolist() == expected


def test_equal_tokens_share_the_best_rank():
    logits = torch.tensor([[3.0, 5.0, 3.0, 3.0, -torch.inf]]).repeat(5, 1)
    assert ranks_of(logits, torch.arange(5)).tolist() == [2, 1, 2, 2, 5]


@given(st.lists(st.integers(1, 3000), min_size=1))
def test_the_histogram_counts_each_token_once(ranks):
    found = rank_histogram(torch.tensor(ranks)).tolist()
    zero_based = [rank - 1 for rank in ranks]
    assert found == [
        sum(r < 10 for r in zero_based),
        sum(10 <= r < 100 for r in zero_based),
        sum(100 <= r < 1000 for r in zero_based),
        sum(r >= 1000 for r in zero_based),
    ]
    assert len(found) == len(RANK_BINS)
