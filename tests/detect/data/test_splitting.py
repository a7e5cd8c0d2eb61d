"""The division of texts: pairs and equal texts on one side, fractions kept, given splits kept."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from austen_pairs import pairs
from hypothesis import given
from hypothesis import strategies as st

from lit_core.errors import UserError
from lit_detect.data.splitting import Survey, divide
from lit_detect.records import Record


def splits_of(records, val=0.2, test=0.2, seed=0, keep=True):
    survey = Survey("s", keep)
    for record in records:
        survey.add(record)
    return survey.splits(val, test, seed)


@given(
    st.lists(st.integers(0, 3), max_size=80),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(0, 5),
)
def test_groups_are_dealt_out_in_their_fractions(strata, val, test, seed):
    groups = [(stratum, f"g{number}") for number, stratum in enumerate(strata)]
    splits = divide(groups, val, test, seed)
    counts = Counter(splits)
    assert abs(counts["test"] - test * len(groups)) <= 0.5 + 1e-9
    assert abs(counts["val"] - val * len(groups)) <= 1 + 1e-9
    for stratum in set(strata):
        size = strata.count(stratum)
        here = Counter(split for split, (mine, _) in zip(splits, groups, strict=True) if mine == stratum)
        assert abs(here["test"] - test * size) <= 1 + 1e-9
        assert abs(here["val"] - val * size) <= 2 + 1e-9
    backwards = divide(groups[::-1], val, test, seed)[::-1]
    assert backwards == splits, "the order in which groups come does not matter"


def test_another_seed_is_another_division_and_all_can_be_test():
    groups = [(0, f"g{number}") for number in range(100)]
    assert divide(groups, 0.3, 0.3, 0) != divide(groups, 0.3, 0.3, 1)
    assert set(divide(groups, 0.0, 1.0, 0)) == {"test"} and set(divide(groups, 1.0, 0.0, 0)) == {"val"}


texts = st.sampled_from([f"text {n}" for n in range(12)])
records = st.lists(
    st.builds(
        Record,
        id=st.just(""),
        text=texts,
        label=st.integers(0, 1),
        source=st.sampled_from(["human", "a"]),
        pair_id=st.sampled_from(["", *"abcdefgh"]),
        attack=st.sampled_from(["", "x"]),
    ),
    max_size=30,
).map(lambda found: [replace(record, id=str(number)) for number, record in enumerate(found)])


@given(records, st.integers(0, 9))
def test_pairs_and_equal_texts_are_on_one_side_transitively(found, seed):
    splits = splits_of(found, seed=seed)
    # the naive way: joined until nothing changes
    group = {n: n for n in range(len(found))}
    for _ in found:
        for one in range(len(found)):
            for other in range(one):
                a, b = found[one], found[other]
                if (a.pair_id and a.pair_id == b.pair_id) or a.text == b.text:
                    group[one] = group[other] = min(group[one], group[other])
    sides = defaultdict(set)
    for number, split in enumerate(splits):
        if split:
            sides[group[number]].add(split)
    assert all(len(side) == 1 for side in sides.values())
    kinds = Counter((record.text, record.label, record.source, record.attack) for record in found)
    kept = Counter(
        (record.text, record.label, record.source, record.attack)
        for record, split in zip(found, splits, strict=True)
        if split
    )
    assert kept == Counter(dict.fromkeys(kinds, 1)), "each kind of a text once"


given_records = records.flatmap(
    lambda found: st.lists(st.sampled_from(["train", "val", "test", ""]), min_size=len(found), max_size=len(found)).map(
        lambda splits: [replace(r, split=s, pair_id="") for r, s in zip(found, splits, strict=True)]
    )
)


@given(given_records)
def test_given_splits_are_kept_and_share_no_text(found):
    splits = splits_of(found)
    where = defaultdict(set)
    for record, split in zip(found, splits, strict=True):
        if split:
            where[record.text].add(split)
            carved = record.split == "train" and split == "val" and all(r.split != "val" for r in found)
            assert not record.split or split == record.split or carved
    assert all(len(sides) == 1 for sides in where.values())
    for record in found:
        nearest = min(
            (r.split for r in found if r.text == record.text and r.split), key="test val train".index, default=""
        )
        if nearest in ("test", "val"):
            assert where[record.text] <= {"test", nearest}


def test_a_training_set_without_validation_gives_some_of_itself():
    tested = (replace(r, id=f"t{r.id}", text=r.text + "!", pair_id=f"t{r.pair_id}", split="test") for r in pairs(5))
    found = [*pairs(20, split="train"), *tested]
    splits = splits_of(found, val=0.25)
    assert Counter(splits) == {"train": 30, "val": 10, "test": 10}
    assert splits[40:] == ["test"] * 10


def test_a_pair_that_is_divided_is_refused_and_can_be_divided_anew():
    found = [replace(r, split="train" if r.label else "test") for r in pairs(10)]
    with pytest.raises(UserError, match=r"'pair-\d' of the source s is in train and test.*keep_splits"):
        splits_of(found)
    with pytest.raises(UserError, match="val and test"):
        splits_of([replace(r, split="val" if r.label else "test") for r in pairs(10)])
    assert Counter(splits_of(found, keep=False)) == {"train": 12, "val": 4, "test": 4}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (Record("a", " \n\u3000", 0), "'a' of the source s is empty"),
        (Record("a", "x"), "'a' of the source s has no label"),
        (Record("b", "x", 0), "'b' occurs twice"),
    ],
)
def test_what_is_no_example_is_refused_by_its_id(record, words):
    survey = Survey("s")
    survey.add(Record("b", "y", 1))
    with pytest.raises(UserError, match=words):
        survey.add(record)
