"""Criteria on rows whose answer is known, the paired interval against scipy's."""

import math

import pytest
from scipy import stats

from lit_core.errors import UserError
from lit_core.study import AtLeast, BudgetRatio, Claim, Correlation, Level, PairedGain, ResultRow, verdict
from lit_core.study.criteria import reached

GAINS = {0: [0.1, 0.3], 1: [0.2, 0.2], 2: [0.4, 0.2], 3: [0.1, 0.2]}


def row(accuracy, **labels):
    return ResultRow({"grid": "g", **labels}, {"accuracy": accuracy}, {})


def rows(sign=1):
    """Two owners per seed, at levels so different that only pairing shows the gain."""
    found = []
    for seed, gains in GAINS.items():
        for owner, gain in enumerate(gains):
            found.append(row(10.0 * owner + seed, seed=seed, owner=owner, selector="random"))
            found.append(row(10.0 * owner + seed + sign * gain, seed=seed, owner=owner, selector="ours"))
            found.append(row(10.0 * owner + seed - 5, seed=seed, owner=owner, selector="worse"))
    return found


def gain(*over, **arguments):
    return PairedGain("accuracy", {"selector": "ours"}, [{"selector": name} for name in over], **arguments)


def test_paired_gain_is_scipys_interval_of_the_means_within_seeds():
    found = gain("random").find(rows())
    means = [sum(gains) / len(gains) for gains in GAINS.values()]
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.outcome, found.seeds) == ("reproduced", (0, 1, 2, 3))


def test_paired_gain_says_no_and_perhaps_and_compares_with_the_best():
    assert gain("random").find(rows(-1)).outcome == "not reproduced"
    assert gain("random", above=0.2).find(rows()).outcome == "undecided"
    assert gain("random", above=-0.5).find(rows(-1)).outcome == "reproduced"  # not inferior
    best = gain("worse", "random").find(rows())
    assert best.interval.mean < 1 and "ours − random" in best.what and best.note == "the hardest of 2"
    assert gain("absent", "random").find(rows()).outcome == "not testable here"
    assert gain("absent").find(rows()).outcome == "not testable here"


def test_paired_gain_must_hold_over_each_also_over_one_that_is_larger_by_chance():
    def made(noise):
        values = [("ours", 0.0), ("sure", -0.02), ("noisy", -0.02 + noise)]
        return [row(value, seed=seed, selector=name) for seed in range(3)
                for name, value in [(n, v + 0.001 * seed * (n == "sure") - noise * seed * (n == "noisy"))
                                    for n, v in values]]  # fmt: skip

    assert gain("sure", "noisy").find(made(0.0)).outcome == "reproduced"
    found = gain("sure", "noisy").find(made(0.1))
    assert found.outcome == "undecided" and "ours − noisy" in found.what


def test_each_part_must_hold_alone():
    by_text = [row(value, seed=seed, selector=name, text=text) for seed in range(3)
               for text, gained in (("old", 0.5 + 0.01 * seed), ("new", -0.1 - 0.01 * seed))
               for name, value in (("ours", gained), ("random", 0.0))]  # fmt: skip
    assert gain("random").find(by_text).outcome == "reproduced"  # the mean of both
    found = gain("random", each=["text"]).find(by_text)
    assert found.outcome == "not reproduced" and "text new" in found.what
    ours = {"selector": "ours"}
    assert Level("accuracy", ours, above=0.0).find(by_text).outcome == "reproduced"
    found = Level("accuracy", ours, above=0.0, each=["text"]).find(by_text)
    assert found.outcome == "not reproduced" and "text new" in found.what and found.note == "the hardest of 2"


def test_correlation_within_groups_ignores_what_lies_between_them():
    apart = [row(10 * model - epoch + 0.1 * seed, seed=seed, epoch=epoch + 10 * model, model=model)
             for seed in range(3) for epoch in range(4) for model in range(3)]  # fmt: skip
    assert Correlation("epoch", "accuracy", above=0).find(apart).outcome == "reproduced"
    found = Correlation("epoch", "accuracy", above=0, within=["model"]).find(apart)
    assert found.outcome == "not reproduced" and found.interval.mean == pytest.approx(-1)


def test_one_seed_decides_nothing():
    assert gain("random", where={"seed": 0}).find(rows()).outcome == "undecided"


def test_values_that_are_not_finite_are_not_compared():
    broken = [*rows(), row(math.nan, seed=0, owner=9, selector="ours"), row(1.0, seed=0, owner=9, selector="random")]
    assert gain("random").find(broken).interval == gain("random").find(rows()).interval


def test_correlation_within_seeds():
    falling = [row(seed - epoch + 0.1 * owner, seed=seed, epoch=epoch, owner=owner)
               for seed in range(3) for epoch in range(4) for owner in range(2)]  # fmt: skip
    assert Correlation("epoch", "accuracy", below=0).find(falling).outcome == "reproduced"
    assert Correlation("epoch", "accuracy", above=0, method="kendall").find(falling).outcome == "not reproduced"
    assert Correlation("epoch", "other", below=0).find(falling).outcome == "not testable here"


def test_the_interval_of_a_correlation_stays_among_correlations():
    values = {0: [1.0, 2.0, 3.0], 1: [3.0, 1.0, 2.0]}
    found = Correlation("epoch", "accuracy", above=0).find(
        [row(value, seed=seed, epoch=epoch) for seed, each in values.items() for epoch, value in enumerate(each)]
    )
    assert found.outcome == "undecided"
    assert (found.interval.mean, found.interval.low, found.interval.high) == (0.25, -1.0, 1.0)


def test_where_a_curve_reaches_a_goal():
    curve = {8: 0.2, 16: 0.6, 32: 0.5, 64: 0.9}
    assert reached(curve, 0.4) == pytest.approx(12)
    assert reached(curve, 0.1) == 8
    assert reached(curve, 0.75) == pytest.approx(52)
    assert reached(curve, 0.95) is None


def test_budget_ratio_of_curves_and_of_one_that_does_not_get_there():
    def found(slow, fast, full=1.0):
        made = []
        for seed in range(3):
            made += [row(value, seed=seed, selector=name) for name, value in (("none", 0.0), ("full", full))]
            made = [ResultRow({**r.labels, "budget": 1}, r.measured, {}) for r in made]
        for seed in range(3):
            for budget in (10, 20, 40, 80):
                made.append(row(min(1.0, budget / slow), seed=seed, selector="random", budget=budget))
                made.append(row(min(1.0, budget / fast), seed=seed, selector="ours", budget=budget))
        names = {part: {"selector": name} for part, name in
                 (("of", "ours"), ("over", "random"), ("none", "none"), ("full", "full"))}  # fmt: skip
        return BudgetRatio("budget", "accuracy", share=0.9, **names).find(made)

    assert found(80, 20).interval.mean == pytest.approx(18 / 72)
    assert found(80, 20).outcome == "reproduced"
    assert found(20, 80).outcome == "not reproduced"
    assert found(1000, 20).interval.mean == pytest.approx(18 / 80)  # random needs the largest budget or more
    assert found(1000, 1000).outcome == "undecided"


def test_a_claim_holds_if_all_its_criteria_do():
    good, bad, open_ = gain("worse"), gain("random", above=9), gain("random", above=0.2)
    absent = gain("absent")
    assert verdict(Claim("x", [good, good]).findings(rows())) == "reproduced"
    assert verdict(Claim("x", [good, open_]).findings(rows())) == "undecided"
    assert verdict(Claim("x", [good, open_, absent]).findings(rows())) == "not testable here"
    assert verdict(Claim("x", [absent, bad]).findings(rows())) == "not reproduced"
    assert verdict([]) == "not testable here"


def test_at_least_a_share_of_criteria():
    holds, fails, open_, absent = gain("random"), gain("worse", above=9.0), gain("random", above=0.2), gain("absent")
    outcomes = [criterion.find(rows()).outcome for criterion in (holds, fails, open_, absent)]
    assert outcomes == ["reproduced", "not reproduced", "undecided", "not testable here"]
    assert AtLeast([holds, fails, absent], "cases").find(rows()).outcome == "reproduced"
    assert AtLeast([holds, fails, fails], "cases").find(rows()).outcome == "not reproduced"
    assert AtLeast([holds, fails, open_], "cases", share=0.6).find(rows()).outcome == "undecided"
    assert AtLeast([absent], "cases").find(rows()).outcome == "not testable here"


def test_a_share_of_the_values_of_a_label():
    levels = {"a": 1.0, "b": 1.0, "c": 0.0}
    made = [row(level, seed=seed, detector=name, set="s") for seed in range(3) for name, level in levels.items()]
    made += [row(9.0, seed=seed) for seed in range(3)]  # of no detector
    for share, outcome in ((0.6, "reproduced"), (0.7, "not reproduced")):
        found = AtLeast([Level("accuracy", above=0.5)], "levels", share, each=["detector"]).find(made)
        assert found.outcome == outcome and found.note == "2 of 3 reproduced" and "of 3" in found.what
    alone = AtLeast([Level("accuracy", above=0.5)], "levels").find(made)
    assert alone.note == "1 of 1 reproduced"
    nested = AtLeast([AtLeast([Level("accuracy", above=0.5)], "one", each=["set"])], "all", 1.0, each=["detector"])
    assert nested.find(made).note == "2 of 3 reproduced"


def test_level_is_scipys_interval_of_the_means_within_seeds():
    where = {"selector": "ours", "owner": 0}
    values = [
        row.measured["accuracy"] for row in rows() if row.labels["selector"] == "ours" and not row.labels["owner"]
    ]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = Level("accuracy", where, above=low - 0.1).find(rows())
    assert (found.interval.low, found.interval.high) == (pytest.approx(low), pytest.approx(high))
    assert found.outcome == "reproduced"
    assert Level("accuracy", where, below=low - 0.1).find(rows()).outcome == "not reproduced"
    assert Level("accuracy", where, below=high - 0.1).find(rows()).outcome == "undecided"
    assert Level("other", where, above=0.0).find(rows()).outcome == "not testable here"


def test_a_budget_that_is_not_enough_reproduces_nothing():
    """In each seed only the other gets there, with a budget so large that the ratio of the largest ones is small."""
    made = []
    for seed in range(3):
        for name, value, budget in (("none", 0.0, 1), ("full", 1.0, 1), ("ours", 0.5, 10), ("random", 1.0, 80)):
            made.append(row(value, seed=seed, selector=name, budget=budget))
    names = {part: {"selector": name} for part, name in
             (("of", "ours"), ("over", "random"), ("none", "none"), ("full", "full"))}  # fmt: skip
    found = BudgetRatio("budget", "accuracy", share=0.9, **names).find(made)
    assert found.outcome == "undecided" and found.note == "3 seeds where only one does"


def ratio(**arguments):
    labels = {name: {"selector": name} for name in ("of", "over", "none", "full")}
    return BudgetRatio("budget", "accuracy", **labels, **arguments)


WRONG = {
    "over is empty": lambda: PairedGain("accuracy", {"selector": "ours"}, []),
    "above is None and below is None": lambda: Level("accuracy"),
    "above is 0 and below is 1": lambda: Level("accuracy", above=0, below=1),
    "above is None and below is None, but": lambda: Correlation("epoch", "accuracy"),
    "above is 0 and below is 0": lambda: Correlation("epoch", "accuracy", above=0, below=0),
    "share is 0, ": lambda: ratio(share=0),
    "share is 1.5": lambda: ratio(share=1.5),
    "below is 0, ": lambda: ratio(below=0),
    "criteria is empty": lambda: AtLeast([], "nothing"),
    "share is 2": lambda: AtLeast([Level("accuracy", above=0)], "one", share=2),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_criterion_that_cannot_decide_is_refused_when_it_is_built(message):
    with pytest.raises(UserError, match=f"^{message}"):
        WRONG[message]()


def test_a_budget_that_no_row_has_decides_nothing():
    some = [row(0.5, seed=0, selector=name) for name in ("of", "over", "none", "full")]
    assert ratio().find(some).outcome == "not testable here"
    assert ratio().find([row(0.5, seed=0, selector=name, budget="all") for name in ("of", "over", "none", "full")]).note
