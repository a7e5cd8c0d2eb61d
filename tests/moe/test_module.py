import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.callbacks import ReplayMixing
from lit_moe.data import TokenDataModule
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, PenaltyRouter
from lit_moe.schedules import CosineInf


def tiny_decoder(vocab_size=384, **arguments):
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_seq_len": 64, "feed_forward": "granular"}
    return DecoderConfig(vocab_size, **{**shape, **arguments})


def tiny_model(**arguments):
    return MoELanguageModel(
        tiny_decoder(**arguments.pop("decoder", {})),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1),
        **arguments,
    )


def tiny_data(token_root, **arguments):
    sizes = {"sequence_length": 32, "global_batch_size": 8, "micro_batch_size": 2, "validation_samples": 11}
    return TokenDataModule(str(token_root), **{"sources": {"austen": 1.0}, **sizes, **arguments})


def test_the_logged_loss_is_the_mean_over_the_global_batch(token_root, make_trainer, read_metrics):
    losses = []

    class Watched(MoELanguageModel):
        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                logits = self(batch["input_ids"])
            losses.append(float(F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())))
            return super().training_step(batch, batch_idx)

    trainer = make_trainer(max_steps=4, log_every_n_steps=2, limit_val_batches=0)
    trainer.fit(Watched(tiny_decoder()), datamodule=tiny_data(token_root))
    logged = dict(read_metrics()["train/loss"])
    assert logged == pytest.approx({1: sum(losses[4:8]) / 4, 3: sum(losses[12:16]) / 4}, rel=1e-5)


def test_tokens_and_flops_are_counted(token_root, make_trainer, read_metrics):
    model = tiny_model()
    trainer = make_trainer(max_steps=3, limit_val_batches=0)
    trainer.fit(model, datamodule=tiny_data(token_root))
    metrics = read_metrics()
    assert [tokens for _, tokens in metrics["train/tokens"]] == [256, 512, 768]
    flops = 3 * model.decoder.flops_per_token(32) * 768
    assert metrics["train/flops"][-1][1] == pytest.approx(flops)
    assert (model.train_tokens, model.train_flops) == (768, pytest.approx(flops))
    assert all(speed > 0 for _, speed in metrics["train/tokens_per_second"])


def test_the_weights_come_from_the_seed_and_leave_the_global_rng_alone():
    state = torch.random.get_rng_state()
    first, again, other = tiny_model(seed=3), tiny_model(seed=3), tiny_model(seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.decoder.embedding.weight, other.decoder.embedding.weight)


def test_norms_and_biases_are_not_decayed():
    model = tiny_model(decoder={"qkv_bias": True, "norm": "layernorm"})
    decayed, spared = model.configure_optimizers().param_groups
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared_names = [names[id(parameter)] for parameter in spared["params"]]
    assert all("norm" in name or name.endswith("bias") for name in spared_names) and len(spared_names) > 5
    assert not any("norm" in names[id(p)] or names[id(p)].endswith("bias") for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_the_schedule_steps_with_the_optimizer(token_root, make_trainer, read_metrics):
    def scheduler(optimizer):
        return CosineInf(optimizer, 4, const_lr=5e-3, min_lr=1e-3, warmup=0.25, cooldown=0.25, constant=0.25)

    trainer = make_trainer(max_steps=4, limit_val_batches=0)
    trainer.fit(tiny_model(scheduler=scheduler), datamodule=tiny_data(token_root))
    assert [rate for _, rate in read_metrics()["train/learning_rate"]] == pytest.approx([0, 1e-2, 5e-3, 5e-3])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_by_their_norm_under_a_fused_optimizer_too(
    token_root, make_trainer, read_metrics, precision
):
    class Watched(MoELanguageModel):
        def on_train_batch_end(self, *arguments):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None]))

    weights = []
    for fused in (True, False):
        norms: list[torch.Tensor] = []
        model = Watched(tiny_decoder(), optimizer=partial(torch.optim.AdamW, lr=1e-2, fused=fused))
        arguments = {"max_steps": 4, "gradient_clip_val": 0.5, "limit_val_batches": 0, "precision": precision}
        make_trainer(**arguments).fit(model, datamodule=tiny_data(token_root, micro_batch_size=8))
        before = torch.tensor([norm for _, norm in read_metrics()["train/gradient_norm"]])
        assert before.max() > 0.5
        torch.testing.assert_close(torch.stack(norms), before.clamp(max=0.5), rtol=1e-4, atol=0)
        weights.append(model.state_dict())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def test_validation_equals_the_definition_over_the_whole_source(token_root, token_texts, make_trainer):
    data = tiny_data(token_root, sources={"austen": 1.0}, validation=["austen", "stdlib"], validation_samples=None)
    model = tiny_model()
    trainer = make_trainer()
    results = trainer.validate(model, datamodule=data, verbose=False)
    results = {key: value for part in results for key, value in part.items()}

    tokenizer = Tokenizer.load(str(token_root))
    for source in ("austen", "stdlib"):
        texts = token_texts[source]["val"]
        ids = [tokenizer.end_of_text]
        for text in texts:
            ids += [*tokenizer.encode(text), tokenizer.end_of_text]
        nats = 0.0
        for start in range(0, len(ids) - 1, 32):
            window = torch.tensor(ids[start : start + 33])
            with torch.no_grad():
                logits = model.eval()(window[None, :-1])[0]
            nats += float(F.cross_entropy(logits.double(), window[1:], reduction="sum"))
        size = sum(len(text.encode()) for text in texts)
        assert results[f"val/{source}/loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)
        assert results[f"val/{source}/bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
        index = list(trainer.val_dataloaders).index(source)
        assert model.metrics[f"val_{index}_bits_per_byte"].text_bytes == 0  # reset by Lightning after the epoch


def test_bytes_add_up_to_the_text(token_root, token_texts, make_trainer):
    data, model = tiny_data(token_root, validation_samples=None), tiny_model()
    seen = 0

    class Counting(type(model)):
        def _bytes(self, labels, scored):
            nonlocal seen
            lengths = super()._bytes(labels, scored)
            seen += int(lengths.sum())
            return lengths

    model.__class__ = Counting
    make_trainer().test(model, datamodule=data, verbose=False)
    assert seen == sum(len(text.encode()) for text in token_texts["austen"]["test"])


def test_unknown_text_has_no_bits_per_byte(token_root, token_texts, make_trainer, read_metrics):
    """In the source that has it and in no other."""
    model = tiny_model()
    data = tiny_data(token_root, validation=["austen", "stdlib"], validation_samples=None)
    ids = {
        source: {token for split in ("train", "val") for text in token_texts[source][split] for token in encode(text)}
        for encode in [data.tokenizer.encode]
        for source in ("austen", "stdlib")
    }

    class Unknowing(Tokenizer):
        def byte_lengths(self):
            lengths = super().byte_lengths()
            lengths[list(ids["stdlib"] - ids["austen"])] = math.nan
            return lengths

    data.tokenizer.__class__ = Unknowing
    with pytest.warns(UserWarning, match="Bits per byte are not known"):
        results = make_trainer().validate(model, datamodule=data, verbose=False)
    metrics = {key: value for part in results for key, value in part.items()}
    assert math.isnan(metrics["val/stdlib/bits_per_byte"]) and metrics["val/austen/bits_per_byte"] > 0
    data = tiny_data(token_root, sources={"stdlib": 1.0})
    data.tokenizer.__class__ = Unknowing
    make_trainer(max_steps=1, limit_val_batches=0).fit(model, datamodule=data)
    assert read_metrics()["train/loss"] and "train/bits_per_byte" not in read_metrics()


def test_two_processes_equal_one_that_accumulates(token_root, make_trainer, read_metrics, tmp_path):
    class Kept(MoELanguageModel):
        def on_train_end(self):
            if self.trainer.is_global_zero:
                torch.save(self.state_dict(), f"{self.trainer.default_root_dir}/weights.pt")

    one_device = {"val_check_interval": 4}
    two_devices = {"val_check_interval": 2, "devices": 2, "strategy": "ddp_fork"}
    for name, arguments in (("one", one_device), ("two", two_devices)):
        data = tiny_data(token_root, sources={"stdlib": 1.0}, replay={"austen": 1.0})
        trainer = make_trainer(ReplayMixing(0.3), name=name, **arguments)
        trainer.fit(Kept(tiny_decoder(), router=PenaltyRouter), datamodule=data)
    one, two = read_metrics("one"), read_metrics("two")
    assert one.keys() == two.keys() and "val/austen/bits_per_byte" in one
    for key in one.keys() - {"train/tokens_per_second"}:
        assert [step for step, _ in two[key]] == [step for step, _ in one[key]]
        assert [value for _, value in two[key]] == pytest.approx([value for _, value in one[key]], rel=1e-4), key
    weights = [torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=2e-5, rtol=1e-4)


def test_a_resumed_run_is_the_run_that_was_never_stopped(token_root, make_trainer, read_metrics, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    def run(name, *callbacks, **arguments):
        model = tiny_model(router=PenaltyRouter, scheduler=lambda o: CosineInf(o, 6, 5e-3, 1e-3, 0.2, 0.2, 0.2))
        data = tiny_data(token_root, sources={"stdlib": 1.0}, replay={"austen": 1.0})
        trainer = make_trainer(
            ReplayMixing(0.3),
            *callbacks,
            name=name,
            enable_checkpointing=bool(callbacks),
            limit_val_batches=0,
            **{"max_steps": 6, **{key: value for key, value in arguments.items() if key != "ckpt_path"}},
        )
        trainer.fit(model, datamodule=data, ckpt_path=arguments.get("ckpt_path"), weights_only=True)
        return model

    whole = run("whole")
    run("first", ModelCheckpoint(tmp_path, filename="stopped", every_n_train_steps=3), max_steps=3)
    resumed = run("second", ckpt_path=tmp_path / "stopped.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    whole_metrics, rest = read_metrics("whole"), read_metrics("second")
    for key in rest.keys() - {"train/tokens_per_second"}:
        assert rest[key] == whole_metrics[key][3:], key
    assert (resumed.train_tokens, resumed.train_flops) == (whole.train_tokens, whole.train_flops)


def test_the_checkpoint_is_plain_and_names_what_others_need(token_root, make_trainer, tmp_path):
    model = tiny_model()
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=tiny_data(token_root))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    tokenizer = Tokenizer.load(str(token_root))
    assert checkpoint["tokenizer"]["sha256"] == tokenizer.sha256
    assert Tokenizer.from_json(checkpoint["tokenizer"]["json"]).sha256 == tokenizer.sha256
    (names,) = checkpoint["optimizer_param_names"]
    states = checkpoint["optimizer_states"][0]["state"]
    parameters = dict(model.named_parameters())
    assert sorted(names) == sorted(parameters) and len(states) == len(names)
    assert all(states[index]["exp_avg"].shape == parameters[name].shape for index, name in enumerate(names))


def test_a_checkpoint_of_another_tokenizer_is_refused(token_root, byte_root, make_trainer, tmp_path):
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(tiny_model(), datamodule=tiny_data(token_root))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    path = tmp_path / "model.ckpt"
    with pytest.raises(UserError, match="The checkpoint was trained with the tokenizer"):
        make_trainer(name="test").test(tiny_model(), datamodule=tiny_data(byte_root), ckpt_path=path, weights_only=True)


def test_a_vocabulary_too_small_for_the_data_is_refused(token_root, make_trainer):
    with pytest.raises(UserError, match=r"decoder.vocab_size` is 300"):
        make_trainer().fit(tiny_model(decoder={"vocab_size": 300}), datamodule=tiny_data(token_root))


def test_the_hparams_page_holds_the_arguments_of_model_and_data(token_root, make_trainer, tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    logger = TensorBoardLogger(tmp_path / "tb", name="", version="", default_hp_metric=False)
    make_trainer(logger=logger, max_steps=2).fit(tiny_model(), datamodule=tiny_data(token_root))
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert session.hparams["data/global_batch_size"].number_value > 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_second_validation_is_equal_to_the_first(precision, token_root, make_trainer):
    model, data = tiny_model(), tiny_data(token_root, validation_samples=64)
    first, second = (
        make_trainer(precision=precision).validate(model, datamodule=data, verbose=False) for _ in range(2)
    )
    assert first == second


def test_an_interrupted_validation_leaves_nothing_behind(token_root, make_trainer):
    class Torn(MoELanguageModel):
        broken = False

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch, batch_idx, dataloader_idx)
            if self.broken and batch_idx == 2:
                raise RuntimeError("torn")

    model, data = Torn(tiny_decoder()), tiny_data(token_root)
    whole = make_trainer().validate(model, datamodule=data, verbose=False)
    model.broken = True
    with pytest.raises(RuntimeError, match="torn"):
        make_trainer().validate(model, datamodule=data, verbose=False)
    model.broken = False
    assert make_trainer().validate(model, datamodule=data, verbose=False) == whole


def test_frozen_routers_stay_and_slowed_experts_learn_less(token_root, make_trainer, tmp_path):
    slowed = {"freeze": ["feed_forward.gate"], "lr_factors": {"experts": 0.1}}
    model, start = tiny_model(seed=1, **slowed), tiny_model(seed=1).state_dict()
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=tiny_data(token_root))
    weights = dict(model.named_parameters())
    moved = {name: float((weight.detach() - start[name]).abs().max()) for name, weight in weights.items()}
    assert {name for name, change in moved.items() if not change} == {
        name for name in weights if name.endswith("feed_forward.gate.weight")
    }
    # the first step of AdamW is as long as its rate, and decay takes a thousandth of a weight more
    assert moved["decoder.layers.0.feed_forward.experts.down"] == pytest.approx(1e-3, rel=0.15)
    assert moved["decoder.layers.0.attention.out.weight"] == pytest.approx(1e-2, rel=0.15)
    trainer.save_checkpoint(tmp_path / "slowed.ckpt")
    again = MoELanguageModel.load_from_checkpoint(tmp_path / "slowed.ckpt", optimizer=model.optimizer)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    assert again.lr_factors == slowed["lr_factors"]
    with pytest.raises(UserError, match="`freeze` has routers"):
        tiny_model(freeze=["routers"])
