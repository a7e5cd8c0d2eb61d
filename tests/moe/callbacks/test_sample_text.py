import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_core.errors import UserError
from lit_moe.callbacks import SampleText
from lit_moe.data import TokenDataModule
from lit_moe.lm import DecoderLM
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig

SHAPE = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_seq_len": 64}


def tiny_model():
    return MoELanguageModel(DecoderConfig(384, feed_forward="switch", **SHAPE))


def tiny_data(root):
    sizes = {"sequence_length": 32, "global_batch_size": 4, "micro_batch_size": 2, "validation_samples": 4}
    return TokenDataModule(str(root), {"austen": 1.0}, **sizes)


def texts(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if "samples" in tag]
    return {
        tag.removesuffix("/text_summary"): [
            (event.step, event.tensor_proto.string_val[0].decode()) for event in events.Tensors(tag)
        ]
        for tag in tags
    }


def test_texts_come_before_and_after_training(token_root, make_trainer, tmp_path):
    logger = TensorBoardLogger(tmp_path / "tb", name="", version="")
    model, data = tiny_model(), tiny_data(token_root)
    options = {"max_new_tokens": 8, "temperature": 0.8, "top_k": 50}
    before = DecoderLM(model.decoder, data.tokenizer).generate(["She ", ""], **options)
    callback = SampleText(["She ", ""], max_new_tokens=8)
    make_trainer(callback, logger=logger, max_steps=2).fit(model, datamodule=data)
    after = DecoderLM(model.decoder, data.tokenizer).generate(["She ", ""], **options)
    shown = texts(tmp_path / "tb")
    assert list(shown) == ["samples/00", "samples/01"]
    for number, prompt in enumerate(["She ", ""]):
        first, last = shown[f"samples/{number:02d}"]
        assert [first[0], last[0]] == [0, 1]
        for (_, text), continuation in ((first, before[number]), (last, after[number])):
            assert text.replace("\n    ", "\n").strip() == "\n".join((prompt + continuation).splitlines()).strip()


def test_a_test_shows_texts(token_root, make_trainer, tmp_path):
    logger = TensorBoardLogger(tmp_path / "tb", name="", version="")
    trainer = make_trainer(SampleText(["She "], max_new_tokens=4), logger=logger)
    trainer.test(tiny_model(), datamodule=tiny_data(token_root), verbose=False)
    assert list(texts(tmp_path / "tb")) == ["test/samples/00"]


def test_training_is_the_same_with_and_without(token_root, make_trainer, read_metrics):
    weights = []
    for name, callbacks in (("without", []), ("with", [SampleText(["She "], max_new_tokens=4)])):
        model = tiny_model()
        state = torch.random.get_rng_state()
        make_trainer(*callbacks, name=name, limit_val_batches=0).fit(model, datamodule=tiny_data(token_root))
        torch.random.set_rng_state(state)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
        assert model.training
    assert torch.equal(*weights)
    assert read_metrics("with")["train/loss"] == read_metrics("without")["train/loss"]


@pytest.mark.parametrize("arguments", [{"prompts": []}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"top_k": 0}])
def test_arguments_are_checked(arguments):
    with pytest.raises(UserError):
        SampleText(**{"prompts": ["a"], **arguments})


def test_a_module_that_cannot_write_is_refused(byte_model, byte_data, make_trainer):
    with pytest.raises(UserError, match="SampleText needs"):
        make_trainer(SampleText(["a"])).fit(byte_model(), datamodule=byte_data(replay=False))
