import shutil

import numpy as np
import pytest
import torch

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.callbacks import ReplayMixing
from lit_moe.data import TokenDataModule


def set_up(data, make_trainer, *callbacks, stage="fit", **arguments):
    """A data module as the trainer sets it up, without a model."""
    data.trainer = make_trainer(*callbacks, **arguments)
    data.setup(stage)
    return data


SIZES = {"sequence_length": 32, "global_batch_size": 8, "micro_batch_size": 2}


def test_accumulation_follows_from_the_batch_sizes(token_root, make_trainer):
    data = set_up(TokenDataModule(str(token_root), {"austen": 1}, **SIZES), make_trainer)
    assert data.trainer.accumulate_grad_batches == 4
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 32)
    assert torch.equal(batch["input_ids"][:, 1:], batch["labels"][:, :-1])


def test_another_explicit_accumulation_is_refused(token_root, make_trainer):
    data = TokenDataModule(str(token_root), {"austen": 1}, **SIZES)
    with pytest.raises(UserError, match=r"accumulate_grad_batches` is 3.*makes 4"):
        set_up(data, make_trainer, accumulate_grad_batches=3)
    set_up(data, make_trainer, accumulate_grad_batches=4)


def test_the_vocabulary_is_the_tokenizers(token_root):
    data = TokenDataModule(str(token_root), {"austen": 1}, **SIZES)
    assert data.vocab_size == Tokenizer.load(str(token_root)).vocab_size <= 384


def test_evaluation_sees_each_token_of_each_source_once(token_root, token_texts, make_trainer):
    data = set_up(
        TokenDataModule(str(token_root), {"stdlib": 1}, {"austen": 1}, **SIZES), make_trainer, ReplayMixing(0.5)
    )
    loaders = data.val_dataloader()
    assert list(loaders) == ["stdlib", "austen"]
    for name, loader in loaders.items():
        labels = torch.cat([batch["labels"].flatten() for batch in loader])
        text = data.tokenizer.decode(labels[labels != -100].tolist())
        assert text == "".join(token_texts[name]["val"])


def test_limits_take_the_first_samples(token_root, make_trainer):
    data = TokenDataModule(str(token_root), {"austen": 1}, **SIZES, validation_samples=5, test_samples=3)
    set_up(data, make_trainer)
    rows = [int(i) for batch in data.val_dataloader()["austen"] for i in batch["index"]]
    assert rows == [0, 1, 2, 3, 4, -1]
    data.setup("test")
    assert sum(int((batch["index"] >= 0).sum()) for batch in data.test_dataloader()["austen"]) == 3


def test_tokenised_files_are_read(token_root, make_trainer, tmp_path):
    tokens = np.random.default_rng(0).integers(0, 300, 500).astype(np.uint16)
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "train.npy", tokens)
    tokens.tofile(folder / "val.bin")
    data = TokenDataModule(str(token_root), {"mine": 1}, paths={"mine": str(folder)}, **SIZES)
    set_up(data, make_trainer)
    (first, *_) = data.val_dataloader()["mine"]
    assert first["input_ids"][0].tolist() == tokens[:32].tolist()
    index = data.train_dataloader().stream.sample_index("mine", 0)
    batch = data.train_dataloader().stream.sources["mine"][index]
    assert batch["input_ids"].tolist() == tokens[32 * index : 32 * index + 32].tolist()


@pytest.mark.parametrize(
    ("dtype", "vocab_size", "message"),
    [
        ("uint16", 70_000, "holds tokens of uint16"),
        ("uint32", 384, "every second place if it is read as uint16"),
        ("uint16", 300, "holds the token 383, but its tokenizer has 300"),
    ],
)
def test_raw_files_that_do_not_fit_the_tokenizer_are_refused_before_the_first_step(
    token_root, make_trainer, tmp_path, dtype, vocab_size, message
):
    np.arange(384).astype(dtype).tofile(tmp_path / "train.bin")
    paths = {"mine": str(tmp_path)}
    data = TokenDataModule(str(token_root), {"mine": 1}, paths=paths, validation=["austen"], **SIZES)
    data.tokenizer.vocab_size = vocab_size
    with pytest.raises(UserError, match=message):
        set_up(data, make_trainer)


def test_document_masks_arrive(token_root, make_trainer):
    data = set_up(TokenDataModule(str(token_root), {"austen": 1}, document_mask=True, **SIZES), make_trainer)
    assert "document_ids" in next(iter(data.train_dataloader()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sources": {}}, ["`sources`"]),
        ({"sources": {"austen": 0}}, ["austen", "0"]),
        ({"replay": {"austen": 1}}, ["`replay`", "austen"]),
        ({"replay": {"stdlib": -1.0}}, ["stdlib", "-1"]),
        ({"sequence_length": 0}, ["sequence_length", "0"]),
        ({"global_batch_size": 0}, ["global_batch_size"]),
        ({"validation_samples": 0}, ["validation_samples"]),
        ({"num_workers": -1}, ["num_workers"]),
        ({"validation": ["austin"]}, ["austin", 'Did you mean "austen"?']),
    ],
)
def test_arguments_are_checked_in_one_sentence(token_root, arguments, words):
    with pytest.raises(UserError) as error:
        TokenDataModule(**{"root": str(token_root), "sources": {"austen": 1}, **SIZES, **arguments})
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_a_missing_root_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match="lit-moe prepare"):
        TokenDataModule(str(tmp_path / "nowhere"), {"austen": 1})


def test_a_mistyped_training_source_is_named(token_root, make_trainer):
    data = TokenDataModule(str(token_root), {"austin": 1}, validation=["austen"], **SIZES)
    with pytest.raises(UserError, match='Did you mean "austen"'):
        set_up(data, make_trainer)


def test_a_foreign_tokenizer_is_refused(token_root, make_trainer, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(token_root, root)
    Tokenizer.bytes().save(root / "tokenizer.json")
    with pytest.raises(UserError, match=r"austen.*tokenizer"):
        set_up(TokenDataModule(str(root), {"austen": 1}, **SIZES), make_trainer)


def test_a_flipped_byte_is_refused_by_name(token_root, make_trainer, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(token_root, root)
    shard = root / "austen" / "val" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=str(shard)):
        set_up(TokenDataModule(str(root), {"austen": 1}, **SIZES), make_trainer)
    set_up(TokenDataModule(str(root), {"austen": 1}, verify=False, **SIZES), make_trainer)


def test_replay_needs_its_callback_and_training_needs_resume_stream(token_root, make_trainer):
    with pytest.raises(UserError, match="ReplayMixing"):
        set_up(TokenDataModule(str(token_root), {"stdlib": 1}, {"austen": 1}, **SIZES), make_trainer)
    data = TokenDataModule(str(token_root), {"stdlib": 1}, **SIZES)
    data.trainer = make_trainer()
    data.trainer.callbacks = [c for c in data.trainer.callbacks if not isinstance(c, ResumeStream)]
    with pytest.raises(UserError, match="ResumeStream"):
        data.setup("fit")
