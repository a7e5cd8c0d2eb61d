"""Weights divided over two processes train as one process that accumulates the same micro-batches."""

import os

import pytest
import torch
from all_routers import BALANCED
from lightning.pytorch import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from ranks import on_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from lit_core.callbacks import UnmovedWeights
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe import MoELanguageModel, RouterBalance, RouterDrift, ShardedStrategy
from lit_moe.functional.token_nll import token_nll
from lit_moe.lm import DecoderLM
from lit_moe.nn import BiasRouter, Decoder, DecoderConfig, MoEConfig, PenaltyRouter
from lit_moe.parallel.sharding import clip_gradients, gradient_norm, shard

#: float32 sums in another order; seen: 5e-8 of a gradient, 4e-7 of a weight
GRADIENT, WEIGHT = {"rtol": 1e-4, "atol": 1e-6}, {"rtol": 1e-4, "atol": 5e-6}
MIXTURE = MoEConfig(n_experts=4, top_k=2, expert_width=8, n_shared=1)
#: All that do something which depends on the load of a batch, some of them so that it is felt.
ROUTERS = BALANCED | {
    "PenaltyRouter": lambda n, k: PenaltyRouter(n, k, balance_weight=0.1),
    "BiasRouter": lambda n, k: BiasRouter(n, k, update_rate=0.05),
}
STRATEGIES = {
    "ddp": lambda: "ddp",
    "fsdp2": ShardedStrategy,
    "ep": lambda: ShardedStrategy(expert_parallel=2),
    "fsdp2, reduced once": lambda: ShardedStrategy(reduce_once=True),
    "ep, reduced once": lambda: ShardedStrategy(expert_parallel=2, reduce_once=True),
}


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach().clone()


class Record(Callback):
    """Keeps whole gradients of each step before clipping, and the last weights; every process takes part."""

    def __init__(self, path):
        self.path, self.gradients = path, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append({name: whole(parameter.grad) for name, parameter in pl_module.named_parameters()})

    def on_train_end(self, trainer, pl_module):
        weights = {name: whole(weight) for name, weight in pl_module.state_dict().items()}
        if trainer.is_global_zero:
            torch.save({"gradients": self.gradients, "weights": weights}, self.path)


def language_model(router="SinkhornRouter", feed_forward=MIXTURE, **options):
    shape = {"vocab_size": 257, "n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 16}
    config = DecoderConfig(**shape, feed_forward=feed_forward, **options)
    # eps: the first step divides a gradient by its size, which makes rounding large where that is small
    return MoELanguageModel(config, ROUTERS[router], lambda groups: torch.optim.AdamW(groups, lr=0.02, eps=1e-6))


@pytest.fixture
def compare(make_trainer, byte_data, read_metrics, tmp_path):
    """Trains on one process and on two, and compares gradients, weights and all that is logged."""

    def fit(name, batch, settings, model):
        trainer = make_trainer(
            RouterBalance(), UnmovedWeights(), Record(tmp_path / f"{name}.pt"), name=name, **settings
        )
        trainer.fit(language_model(**model), datamodule=byte_data(global_batch_size=batch, replay=False))

    def both(strategy, accumulation, *, devices=2, **model):
        batch, settings = 2 * devices * accumulation, {"max_steps": 4, "gradient_clip_val": 0.5}
        fit("one", batch, settings, model)
        several = {**settings, "devices": devices, "strategy": STRATEGIES[strategy]()}
        on_ranks(fit, "two", batch, several, model, size=devices)
        one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
        for step, expected in enumerate(one["gradients"]):
            for name, gradient in expected.items():
                torch.testing.assert_close(two["gradients"][step][name], gradient, msg=f"{name}, {step}", **GRADIENT)
        for name, weight in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], weight, msg=name, **WEIGHT)
        expected, found = read_metrics("one"), read_metrics("two")
        del expected["train/tokens_per_second"], found["train/tokens_per_second"]
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            assert dict(found[key]) == pytest.approx(dict(values), rel=2e-5, abs=1e-6), key
        assert max(value for _, value in expected["train/gradient_norm"]) > 0.5  # clipping had something to do

    return both


CASES = [
    pytest.param(strategy, router, accumulation, marks=() if fast else pytest.mark.slow)
    for strategy in ("ddp", "fsdp2", "ep")
    for router in ROUTERS
    for accumulation in (1, 2)
    for fast in [(strategy, router, accumulation) in (("fsdp2", "BiasRouter", 2), ("ep", "SinkhornRouter", 1))]
]


@pytest.mark.parametrize(("strategy", "router", "accumulation"), CASES)
def test_two_processes_train_as_one(compare, strategy, router, accumulation):
    compare(strategy, accumulation, router=router)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2, reduced once", "ep, reduced once"])
def test_gradients_are_the_same_when_they_are_reduced_once_per_step(compare, strategy):
    compare(strategy, 3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2", "ep"])
@pytest.mark.parametrize("router", ["SinkhornRouter", "BiasRouter"])
def test_recomputed_activations_change_nothing(compare, strategy, router):
    """The routers count a recomputed layer once."""
    compare(strategy, 2, router=router, activation_checkpointing=True)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_a_dense_decoder_is_divided(compare, tied):
    compare("fsdp2", 2, feed_forward="dense", tie_embeddings=tied)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "n_experts"), [("fsdp2", 3), ("ep", 4), ("ep", 6), ("ep", 2)])
def test_four_processes_train_as_one(compare, strategy, n_experts):
    """Groups of two with two experts each, with an uneven three, and with one, which is divided along its width."""
    compare(strategy, 1, devices=4, feed_forward=MoEConfig(n_experts, 1, 8), router="SinkhornRouter")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("strategy", ["fsdp2", "ep"])
def test_gradients_in_bfloat16(make_trainer, byte_data, tmp_path, strategy, precision):
    """Of the first step: a rounding that differs may choose another expert in later ones.

    The sum of the layers is float32 in bf16-mixed on one device, bfloat16 on several.
    """

    def fit(name, settings):
        trainer = make_trainer(Record(tmp_path / f"{name}.pt"), name=name, max_steps=1, precision=precision, **settings)
        trainer.fit(language_model("BiasRouter"), datamodule=byte_data(replay=False))

    fit("one", {})
    on_ranks(fit, "two", {"devices": 2, "strategy": STRATEGIES[strategy]()})
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for name, gradient in one["gradients"][0].items():
        mine = two["gradients"][0][name]
        assert mine.dtype == gradient.dtype == (torch.float32 if precision == "bf16-mixed" else torch.bfloat16)
        assert (mine - gradient).norm() <= 0.03 * gradient.norm(), name
    bias = "decoder.layers.0.feed_forward.router.bias"
    assert two["weights"][bias].dtype == torch.float32 and torch.equal(two["weights"][bias], one["weights"][bias])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2", "ep"])
def test_validation_test_and_text_are_those_of_one_process(make_trainer, byte_data, read_metrics, tmp_path, strategy):
    def evaluate(name, settings):
        drift = RouterDrift(str(tmp_path / "reference.ckpt"))
        trainer = make_trainer(RouterBalance(), drift, name=name, max_steps=2, **settings)
        model = language_model()
        trainer.fit(model, datamodule=byte_data(replay=False))
        trainer.callbacks.remove(drift)  # this reference is a copy of the module, as it was before it was divided
        trainer.test(model, datamodule=byte_data(replay=False), verbose=False)
        text = DecoderLM(model.decoder, Tokenizer.bytes()).generate(["def ", "if"], max_new_tokens=12, temperature=0)
        (tmp_path / f"{name}.{trainer.global_rank}").write_text("".join(text))

    torch.save({"state_dict": language_model().state_dict(), "global_step": 0}, tmp_path / "reference.ckpt")
    evaluate("one", {"val_check_interval": 8})  # micro-batches
    on_ranks(evaluate, "two", {"val_check_interval": 4, "devices": 2, "strategy": STRATEGIES[strategy]()})
    assert (tmp_path / "two.0").read_text() == (tmp_path / "two.1").read_text() == (tmp_path / "one.0").read_text()
    one, two = read_metrics("one"), read_metrics("two")
    expected = {"val/new/loss", "val/new/router/crs/layer_00", "test/old/loss", "test/new/router/mri/layer_01"}
    assert expected <= one.keys() == two.keys()
    for key in one.keys() - {"train/tokens_per_second"}:
        assert [v for _, v in two[key]] == pytest.approx([v for _, v in one[key]], rel=2e-5), key


@pytest.mark.slow
def test_logits_in_chunks_and_a_loop_without_lightning(tmp_path):
    """The output layer runs again in the backward pass, chunk by chunk, while its weights are gathered."""

    def gradients(divided):
        torch.manual_seed(0)
        config = DecoderConfig(vocab_size=256, n_layers=2, d_model=16, n_heads=2, d_ff=16, feed_forward=MIXTURE)
        decoder = Decoder(config, PenaltyRouter)
        ids = torch.randint(256, (2, 2, 9), generator=torch.Generator().manual_seed(1))
        rows = ids
        if divided:
            rank = int(os.environ["LOCAL_RANK"])
            torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
            shard(decoder, init_device_mesh("cpu", (1, 2), mesh_dim_names=("data_parallel", "tensor_parallel")))
            rows = ids[rank : rank + 1]
            held = sum(weight.to_local().numel() for weight in decoder.parameters())
            assert held < 0.51 * sum(weight.numel() for weight in decoder.parameters())
        for row in rows:
            hidden = decoder.hidden(row[:, :-1])
            token_nll(hidden, row[:, 1:], decoder.head, 256, max_logits=5 * 256).sum().backward()
        norm = gradient_norm(decoder.parameters())
        clip_gradients(decoder.parameters(), 0.1)
        found = {name: whole(parameter.grad) for name, parameter in decoder.named_parameters()}
        torch.save({"norm": norm, **found}, tmp_path / str(divided))

    gradients(False)
    on_ranks(gradients, True)
    one, two = (torch.load(tmp_path / str(divided), weights_only=True) for divided in (False, True))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)
    squares = sum(float(value.pow(2).sum()) for name, value in one.items() if name != "norm")
    assert squares**0.5 == pytest.approx(0.1, rel=1e-4)


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused_on_all_processes(make_trainer, byte_data):
    def refused(strategy, feed_forward, message):
        with pytest.raises(UserError, match=message):
            trainer = make_trainer(devices=2, strategy=strategy())
            trainer.fit(language_model(feed_forward=feed_forward), datamodule=byte_data(replay=False))

    uneven = "`expert_parallel` is 2, but a layer's 5 experts can't be divided evenly .* a divisor of 5"
    on_ranks(refused, STRATEGIES["ep"], MoEConfig(5, 2, 8), uneven)
    on_ranks(refused, STRATEGIES["ep"], "dense", "`expert_parallel` is 2, but the network has no mixture layers")
    other = lambda: ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)  # noqa: E731
    on_ranks(refused, other, MIXTURE, "`trainer.strategy` is ModelParallelStrategy, .* lit_moe.ShardedStrategy")


def test_groups_that_the_devices_do_not_make_up_are_refused(make_trainer, byte_data):
    with pytest.raises(UserError, match="`expert_parallel` is 2, but the number of devices is 1"):
        make_trainer(strategy=ShardedStrategy(2)).fit(language_model(), datamodule=byte_data(replay=False))
    with pytest.raises(UserError, match="expert_parallel is 0, but must be 1 or more"):
        ShardedStrategy(0)
