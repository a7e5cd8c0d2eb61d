"""What a party trains on: streams, groups as named sources, answers of owners, and batches by hand."""

import itertools
import shutil

import pytest
import torch

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_valuation.commands.divide import divide
from lit_valuation.data.division import Division
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.data.module import OwnersDataModule
from lit_valuation.data.planting import PlantedBackground
from lit_valuation.sources import Digits


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parties") / "root"
    division = Division(train=350, val=301, test=300, owner_samples=110)
    divide(str(folder), Digits(), PlantedBackground(["3", "8"], 0.3), division)
    return folder


def set_up(root, make_trainer, stage="fit", **arguments):
    data = OwnersDataModule(str(root), **arguments)
    data.trainer = make_trainer()
    data.setup(stage)
    return data


def test_shape_and_classes_are_the_partys(root):
    data = OwnersDataModule(str(root), "owner_2")
    assert data.classes == tuple("0123456789") and data.n_classes == 10 and data.input_shape == (1, 8, 8)


def test_accumulation_follows_from_the_batch_sizes(root, make_trainer):
    data = set_up(root, make_trainer, batch_size=32, micro_batch_size=8)
    assert data.trainer.accumulate_grad_batches == 4
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == (8, 1, 8, 8) and batch["x"].dtype == torch.float32 and 0 <= batch["x"].max() <= 1
    assert set_up(root, make_trainer, batch_size=32).trainer.accumulate_grad_batches == 1


def test_an_epoch_has_each_sample_once_in_another_order(root, make_trainer):
    data = set_up(root, make_trainer, batch_size=35)
    written = LabelledSet(root / "trainer" / "train").load()
    stream = data.train_dataloader().stream
    orders = [[stream.sample_index("train", n) for n in range(e * 350, e * 350 + 350)] for e in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(350)) and orders[0] != orders[1]
    batches = itertools.islice(iter(data.train_dataloader()), 10)
    x = torch.cat([batch["x"] for batch in batches])
    assert torch.equal(x, written.inputs()[orders[0]])


def test_validation_has_all_and_each_group_with_padding(root, make_trainer):
    data = set_up(root, make_trainer, batch_size=64)
    written = LabelledSet(root / "trainer" / "val").load()
    loaders = data.val_dataloader()
    assert list(loaders) == ["all", "hard", "other", "usual"]
    for name, loader in loaders.items():
        rows = [i for i in range(301) if name == "all" or written.groups[i] == name]
        batches = list(loader)
        index = torch.cat([batch["index"] for batch in batches])
        y = torch.cat([batch["y"] for batch in batches])
        x = torch.cat([batch["x"] for batch in batches])
        assert len(x) % 64 == 0
        assert torch.equal(index[index >= 0], torch.arange(len(rows)))
        assert torch.equal(y[index >= 0], written.y[rows]) and (y[index < 0] == -100).all()
        assert torch.equal(x[index >= 0], written.inputs()[rows])


def test_the_selection_view_is_the_training_set_in_its_order(root):
    data = OwnersDataModule(str(root), "owner_1", batch_size=50)
    written = LabelledSet(root / "owners" / "owner_1" / "train").load()
    for _ in range(2):
        batches = list(data.selection_dataloader())
        index = torch.cat([batch["index"] for batch in batches])
        assert index[index >= 0].tolist() == list(range(99))
        assert torch.equal(torch.cat([batch["x"] for batch in batches])[index >= 0], written.inputs())


def test_large_sets_are_decoded_as_they_are_needed(root, monkeypatch):
    loader = OwnersDataModule(str(root), "owner_1").selection_dataloader
    kept = list(loader())
    monkeypatch.setattr("lit_valuation.data.concatenated_sets.IN_MEMORY", 0)
    for one, other in zip(kept, loader(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("x", "y", "index"))


def test_answers_are_added_and_their_classes_matched_by_name(root, make_trainer, tmp_path):
    owner = LabelledSet(root / "owners" / "owner_1" / "train").load([0, 1, 2])
    names = sorted({owner.classes[c] for c in owner.y.tolist()}, reverse=True)
    facts = {"source": "x", "split": "train", "licence": "", "origin": ""}
    write_labelled(tmp_path / "answer", owner.renumbered(names), **facts)
    data = set_up(root, make_trainer, extra=[str(tmp_path / "answer")], batch_size=353, micro_batch_size=353)
    (batch,) = list(data.selection_dataloader())
    assert torch.equal(batch["y"][350:], owner.y) and torch.equal(batch["x"][350:], owner.inputs())
    trained = next(iter(data.train_dataloader()))
    assert sorted(trained["y"].tolist()) == sorted(batch["y"].tolist())


def test_an_answer_of_other_classes_or_another_shape_is_refused(root, tmp_path):
    owner = LabelledSet(root / "owners" / "owner_1" / "train").load()
    facts = {"source": "x", "split": "train", "licence": "", "origin": ""}
    strange = owner.take([0]).__class__(owner.x[:1], owner.y[:1] * 0, ("ten",), ("a",))
    small = owner.__class__(owner.x[:1, :, :4], owner.y[:1], owner.classes, ("a",))
    for name, samples, word in (("strange", strange, "'ten'"), ("small", small, r"\(1, 4, 8\)")):
        write_labelled(tmp_path / name, samples, **facts)
        with pytest.raises(UserError, match=f"{name}.*{word}"):
            list(OwnersDataModule(str(root), extra=[str(tmp_path / name)]).selection_dataloader())


def test_an_owner_has_no_test_set_and_predicts_on_its_validation_set(root, make_trainer):
    with pytest.raises(UserError, match="owner_1, which has no test set"):
        set_up(root, make_trainer, "test", party="owner_1")
    data = set_up(root, make_trainer, "predict", party="owner_1", batch_size=11)
    assert len(list(data.predict_dataloader())) == 1
    assert list(set_up(root, make_trainer, "test").test_dataloader())[:2] == ["all", "hard"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"party": "owner_l"}, ["`party`", 'Did you mean "owner_']),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"num_workers": -1}, ["num_workers"]),
        ({"root": "/nowhere"}, ["/nowhere", "lit-valuation divide"]),
    ],
)
def test_arguments_are_checked_in_one_sentence(root, arguments, words):
    with pytest.raises(UserError) as error:
        OwnersDataModule(**{"root": str(root), **arguments})
    assert all(word in str(error.value) for word in words), error.value


def test_batches_that_devices_cannot_make_up_and_a_missing_callback(root, make_trainer):
    with pytest.raises(UserError, match="multiple of 5"):
        set_up(root, make_trainer, batch_size=32, micro_batch_size=5)
    data = OwnersDataModule(str(root))
    data.trainer = make_trainer()
    data.trainer.callbacks = [c for c in data.trainer.callbacks if not isinstance(c, ResumeStream)]
    with pytest.raises(UserError, match="ResumeStream"):
        data.setup("fit")


def test_a_truncated_shard_is_refused_by_name(root, make_trainer, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    shard = tmp_path / "root" / "trainer" / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(UserError, match=str(shard)):
        set_up(tmp_path / "root", make_trainer)
