"""What a detector trains on and is tested on: streams, named sources, a user's file in its order."""

import itertools
import json
import logging
import shutil
import tracemalloc
from collections import Counter

import lightning.pytorch as pl
import pytest
import torch
from austen_pairs import pairs

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_detect.data.module import TextDataModule
from lit_detect.data.prepare import prepare
from lit_detect.formats import LitShiftJSONL
from lit_detect.records import Record


def write(path, records):
    path.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
    return str(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    twins = LitShiftJSONL(write(folder / "twins.jsonl", pairs(40)), "twins")
    other = LitShiftJSONL(write(folder / "other.jsonl", list(pairs(60))[80:]), "other")
    wild = LitShiftJSONL(write(folder / "wild.jsonl", pairs(7, "wild one")), "wild", split="test")
    prepare(str(folder / "root"), [twins, other, wild])
    return folder / "root"


def set_up(root, make_trainer, stage="fit", **arguments):
    data = TextDataModule(str(root), **{"train": ["twins"], **arguments})
    data.trainer = make_trainer()
    data.setup(stage)
    return data


def test_accumulation_follows_from_the_batch_sizes(root, make_trainer):
    data = set_up(root, make_trainer, batch_size=16, micro_batch_size=4)
    assert data.trainer.accumulate_grad_batches == 4
    batch = next(iter(data.train_dataloader()))
    assert len(batch["text"]) == 4 and all(isinstance(text, str) for text in batch["text"])
    assert batch["y"].dtype == batch["index"].dtype == torch.int64 and batch["y"].shape == (4,)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_each_text_of_all_sources_once_in_another_order(root, make_trainer, workers):
    data = set_up(root, make_trainer, train=["twins", "other"], batch_size=8, num_workers=workers)
    expected = Counter()
    for name in ("twins", "other"):
        found = data.records("train", name)
        expected.update((found.record(n).text, found.record(n).label) for n in range(len(found)))
    size = expected.total()
    assert size == 64 + 32 and size % 8 == 0
    batches = list(itertools.islice(iter(data.train_dataloader()), 2 * size // 8))
    epochs = [
        [row for batch in part for row in zip(batch["text"], batch["y"].tolist(), strict=True)]
        for part in (batches[: size // 8], batches[size // 8 :])
    ]
    assert Counter(epochs[0]) == Counter(epochs[1]) == expected and epochs[0] != epochs[1]


def test_evaluation_has_named_sources_whose_index_finds_the_record(root, make_trainer):
    data = set_up(root, make_trainer, "test", test=["twins", "wild"], batch_size=5)
    loaders = data.test_dataloader()
    assert list(loaders) == ["twins", "wild"]
    for name, loader in loaders.items():
        found = data.records("test", name)
        seen = []
        for batch in loader:
            assert len(batch["text"]) == 5
            for text, y, index in zip(batch["text"], batch["y"].tolist(), batch["index"].tolist(), strict=True):
                if index < 0:
                    assert y == -100
                    continue
                record = found.record(index)
                assert (record.text, record.label) == (text, y)
                seen.append(index)
        assert seen == list(range(len(found)))
    wild = data.records("test", "wild")
    assert {wild.about(number).source for number in range(len(wild))} == {"human", "wild one"}


def test_validation_and_test_sources_follow_those_of_training(root, make_trainer):
    data = set_up(root, make_trainer)
    assert list(data.val_dataloader()) == list(data.test_dataloader()) == ["twins"]
    data = set_up(root, make_trainer, val=["other"])
    assert list(data.val_dataloader()) == list(data.test_dataloader()) == ["other"]


def test_features_are_gathered_over_the_training_set_in_its_order(root):
    data = TextDataModule(str(root), ["twins", "other"], batch_size=7)
    rows = [text for batch in data.feature_dataloader() for text, i in zip(batch["text"], batch["index"]) if i >= 0]  # noqa: B905
    expected = []
    for name in ("twins", "other"):
        found = data.records("train", name)
        expected += [found.record(n).text for n in range(len(found))]
    assert rows == expected


def test_normalised_texts_are_given_out_and_records_stay(tmp_path):
    given = [Record(r.id, r.text.replace("a", "\u0430"), r.label, pair_id=r.pair_id) for r in pairs(20)]
    prepare(str(tmp_path / "root"), [LitShiftJSONL(write(tmp_path / "x.jsonl", given), "x")])
    raw, normal = (TextDataModule(str(tmp_path / "root"), ["x"], normalize=n) for n in (False, True))
    texts = [next(iter(data.val_dataloader()["x"]))["text"][0] for data in (raw, normal)]
    assert "\u0430" in texts[0] and "\u0430" not in texts[1]
    assert normal.records("val", "x").record(0).text == texts[0]


def test_sources_are_prepared_first(tmp_path):
    source = LitShiftJSONL(write(tmp_path / "x.jsonl", pairs(20)), "x")
    data = TextDataModule(str(tmp_path / "root"), ["x"], sources=[source])
    data.prepare_data()
    data.prepare_data()
    assert len(data.records("train", "x")) == 32
    assert "sources" not in data.hparams and json.dumps(dict(data.hparams))


@pytest.fixture
def to_predict(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"body": f"text {n}", "lang": f"l{n % 2}"}) + "\n" for n in range(23)))
    return str(path)


class Echo(pl.LightningModule):
    """Predicts the index and the text."""

    def predict_step(self, batch, batch_idx):
        return list(zip(batch["index"].tolist(), batch["text"], batch.get("group", [""] * 9), strict=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_file_is_predicted_in_its_order_without_the_batches_that_are_skipped(
    root, make_trainer, to_predict, workers
):
    columns = {"text_column": "body", "group_column": "lang"}
    data = TextDataModule(predict=to_predict, batch_size=4, num_workers=workers, **columns)
    rows = [row for batch in make_trainer().predict(Echo(), data) for row in batch if row[0] >= 0]
    assert rows == [(n, f"text {n}", f"l{n % 2}") for n in range(23)]
    data.skip = {0, 5, *range(8, 12), *range(15, 23)}
    batches = make_trainer().predict(Echo(), data)
    assert [[n for n, *_ in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [12, 13, 14, 15]]
    assert all(text == f"text {n}" for batch in batches for n, text, _ in batch)
    data.skip = set(range(23))
    assert not make_trainer().predict(Echo(), data)


def test_ranks_share_a_file_and_together_have_all_of_it(to_predict):
    from lit_detect.data.module import SubsetStream
    from lit_detect.data.user_texts import open_texts

    found = open_texts(to_predict, "x", "body")
    left = [n for n in range(23) if n % 5]
    streams = [SubsetStream(found, left, 4, rank, 2) for rank in range(2)]
    assert len(streams[0]) == len(streams[1]) == 3
    rows = [n for stream in streams for batch in stream for n in batch["index"].tolist() if n >= 0]
    assert sorted(rows) == left


def test_a_resumed_stream_goes_on_with_the_next_text(root, make_trainer):
    class Keep(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight, self.texts = torch.nn.Parameter(torch.zeros(())), []

        def training_step(self, batch, batch_idx):
            self.texts += batch["text"]
            return self.weight * batch["y"].sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(steps, checkpoint=None):
        model, trainer = Keep(), make_trainer(max_steps=steps, limit_val_batches=0)
        data = TextDataModule(str(root), ["twins", "other"], batch_size=8, micro_batch_size=4)
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
        return model, trainer

    whole, _ = fit(15)
    first, trainer = fit(7)
    path = trainer.default_root_dir + "/seven.ckpt"
    trainer.save_checkpoint(path)
    rest, _ = fit(15, path)
    assert first.texts + rest.texts == whole.texts


@pytest.mark.parametrize(
    ("stage", "arguments", "words"),
    [
        ("fit", {"train": None}, r"`data\.train` is missing.*There are other, twins, wild"),
        ("fit", {"train": ["twin"]}, r'`data\.train` names twin,.*"twins"'),
        ("fit", {"train": ["wild"]}, r"names wild, which has no train set but test"),
        ("validate", {"val": []}, r"`data\.val` is missing"),
        ("test", {"test": ["none"]}, r"`data\.test` names none"),
        ("predict", {}, r"`data\.predict` is missing"),
        ("predict", {"predict": "none.csv"}, r"none\.csv, but there is no such file"),
        ("fit", {"batch_size": 0}, "batch_size"),
        ("fit", {"num_workers": -1}, "num_workers"),
        ("fit", {"batch_size": 32, "micro_batch_size": 5}, "multiple of 5"),
    ],
)
def test_arguments_are_checked_in_one_sentence(root, make_trainer, stage, arguments, words):
    with pytest.raises(UserError, match=words) as error:
        set_up(root, make_trainer, stage, **arguments)
    assert "\n" not in str(error.value)


def test_texts_that_are_trained_on_in_another_source_are_told(root, make_trainer, caplog):
    with caplog.at_level(logging.WARNING):
        set_up(root, make_trainer, "test", test=["twins", "other"])
        assert not caplog.records
        set_up(root, make_trainer, "test", test=["wild"])
    shared = {record.text for record in list(pairs(7))[::2]}
    data = TextDataModule(str(root), ["twins"])
    trained = data.records("train", "twins")
    count = len(shared & {trained.record(number).text for number in range(len(trained))})
    count += sum(
        record.text in {trained.record(n).text for n in range(len(trained))} for record in list(pairs(7))[1::2]
    )
    assert f"{count} of the 14 texts of test/wild are trained on as well" in caplog.text and count > 2


def test_a_root_with_nothing_in_it(tmp_path, make_trainer):
    with pytest.raises(UserError, match=r"lit-detect prepare.*There is nothing in"):
        set_up(tmp_path / "none", make_trainer)


def test_a_missing_callback_and_a_damaged_shard(root, make_trainer, tmp_path):
    data = TextDataModule(str(root), ["twins"])
    data.trainer = make_trainer()
    data.trainer.callbacks = [c for c in data.trainer.callbacks if not isinstance(c, ResumeStream)]
    with pytest.raises(UserError, match="ResumeStream"):
        data.setup("fit")
    shutil.copytree(root, tmp_path / "root")
    shard = tmp_path / "root" / "twins" / "train" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=str(shard)):
        set_up(tmp_path / "root", make_trainer)


def test_large_sources_are_prepared_and_read_in_little_memory(tmp_path):
    path = tmp_path / "big.jsonl"
    with path.open("w") as file:
        for number in range(800):
            record = Record(f"{number}", f"{number} " + "word " * 4000, number % 2, pair_id=f"{number // 2}")
            file.write(json.dumps(record.to_dict()) + "\n")
    tracemalloc.start()
    prepare(str(tmp_path / "root"), [LitShiftJSONL(str(path), "big")], shard_size=50)
    data = TextDataModule(str(tmp_path / "root"), ["big"], batch_size=8)
    assert sum(len(text) for batch in data.feature_dataloader() for text in batch["text"]) > 12e6
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6, "16 MB of text"
