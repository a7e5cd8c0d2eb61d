"""Weights divided over two processes train as one process that accumulates the same micro-batches."""

import pytest
import torch
from lightning.pytorch import Callback
from ranks import on_ranks
from torch.distributed.tensor import DTensor

from lit_moe import MoELanguageModel, RouterBalance, ShardedStrategy
from lit_moe.nn import BiasRouter, DecoderConfig, MoEConfig, PenaltyRouter, SinkhornRouter

#: float32 sums in another order; seen: 5e-8 of a gradient, 4e-7 of a weight
GRADIENT, WEIGHT = {"rtol": 1e-4, "atol": 1e-6}, {"rtol": 1e-4, "atol": 5e-6}
MIXTURE = MoEConfig(n_experts=4, top_k=2, expert_width=8, n_shared=1)
ROUTERS = {
    "sinkhorn": SinkhornRouter,
    "penalty": lambda n, k: PenaltyRouter(n, k, balance_weight=0.1),
    "bias": lambda n, k: BiasRouter(n, k, update_rate=0.05),
}
STRATEGIES = {"ddp": lambda: "ddp", "fsdp2": ShardedStrategy, "ep": lambda: ShardedStrategy(expert_parallel=2)}


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


def language_model(router="sinkhorn", feed_forward=MIXTURE, recompute=False, **decoder):
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 16, "activation_checkpointing": recompute, **decoder}
    config = DecoderConfig(vocab_size=256, feed_forward=feed_forward, **shape)
    return MoELanguageModel(config, ROUTERS[router], lambda groups: torch.optim.AdamW(groups, lr=0.02))


@pytest.fixture
def compare(make_trainer, byte_data, read_metrics, tmp_path):
    """Trains on one process and on two, and compares gradients, weights and all that is logged."""

    def fit(name, batch, settings, model):
        trainer = make_trainer(RouterBalance(), Record(tmp_path / f"{name}.pt"), name=name, **settings)
        trainer.fit(language_model(**model), datamodule=byte_data(global_batch_size=batch, replay=False))

    def both(strategy, accumulation, **options):
        settings = {"max_steps": 4, "gradient_clip_val": 0.5, "precision": options.pop("precision", "32-true")}
        tolerance = options.pop("tolerance", None)
        fit("one", 4 * accumulation, settings, options)
        two = {**settings, "devices": 2, "strategy": STRATEGIES[strategy]()}
        on_ranks(fit, "two", 4 * accumulation, two, options)
        one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
        for step, expected in enumerate(one["gradients"]):
            for name, gradient in expected.items():
                torch.testing.assert_close(
                    two["gradients"][step][name], gradient, msg=f"{name}, step {step}", **tolerance or GRADIENT
                )
        for name, weight in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], weight, msg=name, **tolerance or WEIGHT)
        expected, found = read_metrics("one"), read_metrics("two")
        del expected["train/tokens_per_second"], found["train/tokens_per_second"]
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            close = pytest.approx(dict(values), rel=tolerance["rtol"] if tolerance else 2e-5, abs=1e-6)
            assert dict(found[key]) == close, key
        assert max(value for _, value in expected["train/gradient_norm"]) > 0.5  # clipping had something to do
        return one, two

    return both


CASES = [
    pytest.param(strategy, router, accumulation, marks=() if fast else pytest.mark.slow)
    for strategy in STRATEGIES
    for router in ROUTERS
    for accumulation in (1, 2)
    for fast in [(strategy, router, accumulation) in (("fsdp2", "bias", 2), ("ep", "sinkhorn", 1))]
]


@pytest.mark.parametrize(("strategy", "router", "accumulation"), CASES)
def test_two_processes_train_as_one(compare, strategy, router, accumulation):
    compare(strategy, accumulation, router=router)
