"""What `lit-valuation test` and `rank` show: the numbers are compared by hand, in 80 columns."""

from types import SimpleNamespace

import torch

from lit_valuation.commands.answer import answer_lines
from lit_valuation.exchange.comparison import rank_owners
from lit_valuation.exchange.report import Ranking, RankingRow, screen_lines


def test_accuracy_on_all_and_on_hard_cases_stands_beside_that_before():
    metrics = {"test/all/accuracy": 0.875, "test/all/loss": 0.5, "test/hard/accuracy": 0.625}
    before = {"test/all/accuracy": 0.75, "test/hard/accuracy": 0.25}
    lines = answer_lines(metrics, before, ["Before: a test."])
    assert [line.split() for line in lines] == [
        ["accuracy,", "0", "to", "1", "before", "after", "difference"],
        ["all", "samples", "0.750", "0.875", "+0.125"],
        ["those", "of", "group", "hard", "0.250", "0.625", "+0.375"],
        ["Before:", "a", "test."],
    ]
    alone = answer_lines({f"test/{'group' * 20}{n}/accuracy": 0.5 for n in range(20)}, {}, [])
    assert len(alone) <= 12 and max(map(len, alone)) <= 80


def trained(share, seeds=4, cases=20):
    return torch.arange(cases).repeat(seeds, 1) < share * cases


def test_owners_are_ranked_beside_the_training_without_any():
    correct = {"an-owner-with-a-long-name": trained(0.9), "bob": trained(0.25)}
    owners = rank_owners(correct, trained(0.25))
    scores = {"an-owner-with-a-long-name": 0.9, "bob": 0.25, "(nothing shared)": 0.25}
    rows = [RankingRow(name, None, 0, None, {"held_out": score}, None, None, 1.0) for name, score in scores.items()]
    query = SimpleNamespace(digest="", manifest=None)
    lines = screen_lines(Ranking(query, owners, rows, {"eve": "a copy"}, {}, 4, "scratch", 20, None, "equal", {}))
    table = [line.split() for line in lines[:5]]
    # 13 of 20 cases more, in each of the seeds: 0.65 ± 2.093 · 0.4894 / √20
    assert table[1][:4] == ["an-owner-with-…", "1", "0.900", "+0.650"]
    assert table[1][4:] == ["+0.421", "to", "+0.879", "<0.001"]
    assert table[2][:4] == ["bob", "2", "0.250", "+0.000"]
    assert table[3] == ["nothing", "shared", "–", "0.250"]
    assert table[4] == ["eve", "refused"]
    assert max(map(len, lines)) <= 80
