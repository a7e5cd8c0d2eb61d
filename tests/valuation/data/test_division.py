"""The division: known shares, no sample twice, and a sentence where there are too few."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.data.division import SHARES, Division, Owner, apportion, check_disjoint, remove_duplicates
from lit_valuation.data.planting import HARD, PlantedBackground, ScarceClasses
from lit_valuation.sources import Digits, SklearnTable

DIGITS = PlantedBackground(["3", "8"], 0.4).plant(Digits().samples())
SMALL = {"train": 300, "val": 250, "test": 250, "owner_samples": 100}


def owner_of(divided, name):
    return [divided[f"owners/{name}", split] for split in ("train", "val")]


def test_six_owners_have_their_known_shares_of_the_planted_classes():
    divided = Division(**SMALL, owner_val_fraction=0.2).divide(DIGITS, 1)
    assert [len(divided["trainer", split]) for split in ("train", "val", "test")] == [300, 250, 250]
    for number, share in enumerate(SHARES, 1):
        parts = owner_of(divided, f"owner_{number}")
        assert [len(part) for part in parts] == [80, 20]
        planted = Counter(g for part in parts for g in part.groups if g != "other")
        assert planted[HARD] == round(share * planted.total()) and planted.total() in (19, 20, 21)
    assert HARD not in divided["trainer", "train"].groups
    for split in ("val", "test"):
        planted = Counter(group for group in divided["trainer", split].groups if group != "other")
        assert planted[HARD] == round(0.5 * planted.total())


def test_no_sample_goes_to_two_sets_and_all_are_the_sources():
    divided = Division(**SMALL).divide(DIGITS, 2)
    keys = [key for samples in divided.values() for key in samples.keys]
    assert len(keys) == len(set(keys)) == 1400 and set(keys) <= set(DIGITS.keys)
    place = {key: index for index, key in enumerate(DIGITS.keys)}
    for samples in divided.values():
        rows = [place[key] for key in samples.keys]
        assert torch.equal(samples.x, DIGITS.x[rows]) and torch.equal(samples.y, DIGITS.y[rows])
    with pytest.raises(AssertionError, match="in two sets"):
        check_disjoint({("a", "train"): DIGITS, ("b", "train"): DIGITS.take([3])})


def test_where_whole_classes_are_hard_the_share_is_of_all_samples():
    samples = ScarceClasses(["4", "9"]).plant(Digits().samples())
    division = Division(**{**SMALL, "owner_samples": 60}, train_useful=0.02, evaluation_useful=0.2)
    divided = division.divide(samples)
    assert Counter(divided["trainer", "train"].groups)[HARD] == 6
    assert Counter(divided["trainer", "val"].groups)[HARD] == 50
    for number, share in enumerate(SHARES, 1):
        hard = sum(Counter(part.groups)[HARD] for part in owner_of(divided, f"owner_{number}"))
        assert hard == round(share * 60)


def test_equal_seeds_are_equal_others_differ():
    one, two, three = (Division(**SMALL).divide(DIGITS, seed) for seed in (0, 0, 1))
    assert all(one[name].keys == two[name].keys for name in one)
    assert one["trainer", "val"].keys != three["trainer", "val"].keys


def test_owners_may_be_limited_to_classes_and_groups():
    owners = {"evens": Owner(classes=list("02468"), samples=50), "plain": Owner(groups=["other"], samples=30)}
    divided = Division(**SMALL, owners=owners).divide(DIGITS)
    assert {int(c) for part in owner_of(divided, "evens") for c in part.y} == {0, 2, 4, 6, 8}
    assert {group for part in owner_of(divided, "plain") for group in part.groups} == {"other"}


def test_dirichlet_skews_classes_the_more_the_smaller():
    no_groups = {"evaluation_useful": 0.0}
    samples = Digits().samples()
    found = []
    for concentration in (None, 5.0, 0.8):
        owners = {f"owner_{n}": Owner(samples=80) for n in range(4)}
        division = Division(train=100, val=50, test=50, owners=owners, dirichlet=concentration, **no_groups)
        divided = division.divide(samples, 3)
        counts = [torch.cat([p.y for p in owner_of(divided, name)]).bincount(minlength=10) for name in owners]
        found.append(float(torch.stack(counts).float().std(1).mean()))
    assert found[0] < found[1] < found[2]


def test_apportion_sums_and_is_within_one():
    for n in range(40):
        counts = apportion(n, {"a": 3.0, "b": 1.0, "c": 2.5})
        assert sum(counts.values()) == n
        assert all(abs(counts[name] - n * w / 6.5) < 1 for name, w in (("a", 3), ("b", 1), ("c", 2.5)))


def test_copies_are_left_out_whatever_their_label():
    samples = SklearnTable("wine").samples()
    twice = replace(samples, x=samples.x.clone())
    twice.x[10], twice.x[170] = samples.x[4], samples.x[4]
    left = remove_duplicates(twice)
    assert left.keys == tuple(key for i, key in enumerate(samples.keys) if i not in (10, 170))
    assert remove_duplicates(samples) is samples


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Division(train=1), "train is 1"),
        (lambda: Division(evaluation_useful=2), "evaluation_useful"),
        (lambda: Division(owners={"a": Owner(useful=-1)}), "owners.a.useful"),
        (lambda: Division(owners={}), "owners of the division is empty"),
        (lambda: Division(owners={"../x": Owner()}), "becomes a folder"),
        (lambda: Division(dirichlet=0), "dirichlet"),
        (lambda: Division(owner_val_fraction=1), "owner_val_fraction"),
        (lambda: Division().divide(DIGITS), "are left.* has 1,797 samples: lower `train`"),
        (lambda: Division(**SMALL).divide(Digits().samples()), "no samples of the hard groups.*`evaluation_useful: 0`"),
        (lambda: Division(**SMALL, owners={"a": Owner(classes=["x"])}).divide(DIGITS), "classes of a names x"),
        (lambda: Division(**SMALL, owners={"a": Owner(groups=["ahrd"])}).divide(DIGITS), 'Did you mean "hard"'),
    ],
)
def test_mistakes_are_one_sentence(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_a_source_without_hard_groups_is_divided_as_its_message_says():
    samples = SklearnTable("wine").samples()
    small = {"train": 40, "val": 30, "test": 30, "owner_samples": 20}
    with pytest.raises(UserError, match="no samples of the hard groups") as refused:
        Division(**small).divide(samples)
    said = {"evaluation_useful": 0, "owners": {"alice": {}, "bob": {}}}
    for key, value in said.items():
        assert f"`{key}: {value}`".replace("'", "") in str(refused.value)
    divided = Division(**small, **{**said, "owners": {name: Owner() for name in said["owners"]}}).divide(samples)
    assert len(divided["owners/bob", "train"]) == 18
