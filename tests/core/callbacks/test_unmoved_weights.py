"""The share of weights that a step did not change, beside a comparison of all of them."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lit_core.callbacks import UnmovedWeights
from lit_core.errors import UserError
from lit_core.lightning.optimizers import build_optimizers


class Rounded(pl.LightningModule):
    """Weights of several sizes, of which a small step in bfloat16 moves some."""

    def __init__(self, kept, rate=2e-5):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.many = nn.Parameter(torch.randn(40, 64, generator=generator) * 0.02)
        self.few = nn.Parameter(torch.randn(7, generator=generator) * 0.001)
        self.frozen = nn.Parameter(torch.ones(500), requires_grad=False)
        self.kept, self.rate, self.shares = kept, rate, []

    def training_step(self, batch, batch_idx):
        return self.many.float().sum() + self.few.float().sum() * batch.float().mean()

    def configure_optimizers(self):
        adamw = lambda groups: torch.optim.AdamW(groups, lr=self.rate, weight_decay=0.0)  # noqa: E731
        return build_optimizers(self, adamw, None) if self.kept else adamw([self.many, self.few])

    def on_train_batch_start(self, batch, batch_idx):
        self.before = [weight.detach().clone() for weight in (self.many, self.few)]

    def on_train_batch_end(self, outputs, batch, batch_idx):
        pairs = zip(self.before, (self.many, self.few), strict=True)
        same = torch.cat([(old == new).flatten() for old, new in pairs])
        self.shares.append(float(same.double().mean()))


@pytest.fixture
def logged(make_trainer, read_metrics):
    def fit(module, callback, **settings):
        settings = {"precision": "bf16-true", "max_steps": 4, **settings}
        loader = DataLoader(torch.ones(16, 1), batch_size=1)
        trainer = make_trainer(callback, **settings)
        trainer.callbacks = trainer.callbacks[1:]  # its loader has no stream
        trainer.fit(module, loader)
        return dict(read_metrics()["train/unmoved_weights"])

    return fit


def test_it_is_that_of_all_weights(logged):
    module = Rounded(kept=False)
    values = logged(module, UnmovedWeights())
    assert list(values.values()) == pytest.approx(module.shares)
    assert 0.1 < values[0] < 0.9


def test_bits_that_the_optimizer_keeps_count(logged):
    module = Rounded(kept=True)
    values = logged(module, UnmovedWeights())
    assert max(values.values()) < 0.01 and min(module.shares) > 0.1


def test_of_many_weights_some_are_compared(logged):
    callback = UnmovedWeights(at_most=500)
    module = Rounded(kept=False)
    values = logged(module, callback)
    assert list(values.values()) == pytest.approx(module.shares, abs=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.arange(2560.0).view(40, 64))])
    [[held]] = callback._compared(optimizer)
    assert len(held) <= 500 and len(set((held % 64).tolist())) == 64 and len(set((held // 64).tolist())) == 40


def test_only_logged_steps_hold_a_copy(logged):
    held = []

    class Look(UnmovedWeights):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
            held.append(len(self._before))

    values = logged(Rounded(kept=True), Look(), log_every_n_steps=2, accumulate_grad_batches=2)
    assert held == [0, 1, 0, 1] and list(values) == [1, 3]


def test_what_no_gradient_trains_has_no_share(logged):
    module = Rounded(kept=True)
    module.is_trained = False
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv"):
        logged(module, UnmovedWeights())


def test_it_compares_at_least_one_weight():
    with pytest.raises(UserError, match="at_most"):
        UnmovedWeights(at_most=0)
