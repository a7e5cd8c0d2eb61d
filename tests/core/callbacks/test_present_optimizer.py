import shutil
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from lit_core.callbacks import PresentOptimizer, RunCheckpoint
from lit_core.errors import UserError
from lit_core.lightning.optimizers import build_optimizers, fitting_moments
from lit_core.lightning.schedules import WarmupCosine


class Model(BoringModel):
    def __init__(self, schedule, lr, weight_decay):
        super().__init__()
        self.schedule, self.arguments = schedule, {"lr": lr, "weight_decay": weight_decay}

    def configure_optimizers(self):
        return build_optimizers(self, partial(torch.optim.AdamW, **self.arguments), self.schedule)


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        groups = optimizer.param_groups
        self.seen.append((groups[0]["lr"], [group["weight_decay"] for group in groups]))


def fit(folder, schedule, steps, lr=0.1, weight_decay=0.1, resume=False, model=Model):
    torch.manual_seed(0)
    rates = Rates()
    trainer = Trainer(
        default_root_dir=folder, logger=False, max_steps=steps, accelerator="cpu", limit_val_batches=0,
        callbacks=[PresentOptimizer(), RunCheckpoint(), rates], enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(
        model(schedule, lr, weight_decay),
        BoringDataModule(),
        ckpt_path=folder / "checkpoints" / "last.ckpt" if resume else None,
    )
    return rates.seen


COSINE = partial(WarmupCosine, total_steps=6, warmup=0.34)


@pytest.mark.parametrize("schedule", [None, COSINE], ids=["constant", "cosine"])
def test_what_is_given_now_wins_from_the_first_resumed_step_on(tmp_path, schedule):
    fit(tmp_path, schedule, 3)
    seen = fit(tmp_path, schedule, 6, lr=0.001, weight_decay=0.5, resume=True)
    whole = fit(tmp_path / "other", schedule, 6, lr=0.001, weight_decay=0.5)
    assert seen == whole[3:] and seen[0][1] == [0.5, 0.0]


@pytest.mark.parametrize("schedule", [None, COSINE], ids=["constant", "cosine"])
def test_without_a_change_it_changes_nothing(tmp_path, schedule):
    first = fit(tmp_path / "a", schedule, 3)
    rest = fit(tmp_path / "a", schedule, 6, resume=True)
    whole = fit(tmp_path / "b", schedule, 6)
    assert first + rest == whole


def usable(kind):
    """Tell whether an optimizer steps on parameters of any shape in two groups."""
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        return False
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]
    try:
        optimizer = kind([{"params": [parameter]} for parameter in parameters], lr=0.1)
        sum(parameter.sum() for parameter in parameters).backward()
        optimizer.step()
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return False
    return True


OPTIMIZERS = {name: partial(kind, lr=0.1) for name, kind in vars(torch.optim).items() if usable(kind)}
OPTIMIZERS |= {
    "amsgrad": partial(torch.optim.AdamW, lr=0.1, amsgrad=True),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "centered": partial(torch.optim.RMSprop, lr=0.1, centered=True, momentum=0.9),
}


@pytest.mark.parametrize("before", ["AdamW", "Adagrad", "SGD"])
@pytest.mark.parametrize("after", OPTIMIZERS)
def test_moments_go_on_if_the_optimizer_keeps_them_and_begin_anew_if_not(before, after):
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(module.state_dict())
    first, second, fresh = (
        build_optimizers(part, OPTIMIZERS[kind], None)
        for part, kind in ((module, before), (module, after), (other, after))
    )

    def step(part, optimizer):
        optimizer.zero_grad()
        part(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    step(module, first)
    other.load_state_dict(module.state_dict())
    saved = {number: set(moments) for number, moments in first.state_dict()["state"].items()}
    moments = fitting_moments(second, first.state)
    assert all(set(moments[parameter]) == set(first.state[parameter]) for parameter in moments)
    for parameter, kept in moments.items():
        second.state[parameter] = kept
    step(module, second)
    step(other, fresh)
    needed = {number: set(state) for number, state in fresh.state_dict()["state"].items()}
    fits = bool(saved) and all(needed.get(number, set()) <= names for number, names in saved.items())
    assert bool(moments) == fits
    if not fits:
        assert torch.equal(module.weight, other.weight)


@pytest.mark.parametrize("after", ["NAdam", "Adagrad", "amsgrad"])
def test_a_resume_with_another_optimizer_says_that_moments_begin_anew(tmp_path, after, monkeypatch):
    class Other(Model):
        def configure_optimizers(self):
            return build_optimizers(self, OPTIMIZERS[after], self.schedule)

    said = []
    monkeypatch.setattr("lit_core.lightning.optimizers.rank_zero_info", said.append)
    fit(tmp_path, None, 2)
    fit(tmp_path, None, 4, resume=True, model=Other)
    assert len(said) == 1 and "so they begin anew" in said[0]
    fit(tmp_path, None, 6, resume=True, model=Other)
    assert len(said) == 1


def test_a_schedule_that_waits_for_a_value_is_refused():
    model = Model(torch.optim.lr_scheduler.ReduceLROnPlateau, 0.1, 0.1)
    with pytest.raises(UserError, match="`scheduler` is ReduceLROnPlateau, which waits for a monitored value"):
        model.configure_optimizers()


SCHEDULES = torch.optim.lr_scheduler


def sequence(optimizer, length=9):
    parts = [SCHEDULES.LinearLR(optimizer, 0.1, total_iters=2), SCHEDULES.CosineAnnealingLR(optimizer, length)]
    return SCHEDULES.SequentialLR(optimizer, parts, milestones=[2])


def chain(optimizer, length=9):
    return SCHEDULES.ChainedScheduler(
        [SCHEDULES.ConstantLR(optimizer, 0.5, total_iters=2), SCHEDULES.PolynomialLR(optimizer, length)]
    )


def warmed(optimizer, length=9):
    return SCHEDULES.LambdaLR(optimizer, lambda step: min(1, (step + 1) / length))


#: Each with what makes it longer.
LENGTHS = {
    "cosine": (SCHEDULES.CosineAnnealingLR, "T_max", 4, 9),
    "restarts": (SCHEDULES.CosineAnnealingWarmRestarts, "T_0", 4, 5),
    "step": (SCHEDULES.StepLR, "step_size", 2, 4),
    "one cycle": (partial(SCHEDULES.OneCycleLR, max_lr=0.2), "total_steps", 7, 9),
    "sequence": (sequence, "length", 4, 9),
    "chain": (chain, "length", 7, 9),
    "lambda": (warmed, "length", 4, 9),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_schedule_of_torchs_goes_on_as_it_is_given_now(name, tmp_path):
    make, argument, short, long = LENGTHS[name]
    first, second = (partial(make, **{argument: length}) for length in (short, long))
    fit(tmp_path / "first", first, 3)
    shutil.copytree(tmp_path / "first", tmp_path / "same")
    assert fit(tmp_path / "same", first, 6, resume=True) == fit(tmp_path / "whole", first, 6)[3:]
    seen = fit(tmp_path / "first", second, 6, lr=0.05, weight_decay=0.5, resume=True)
    assert seen == fit(tmp_path / "other", second, 6, lr=0.05, weight_decay=0.5)[3:]


@pytest.mark.parametrize("steps", [10**12, -1, 2.5, "3"])
def test_a_schedule_at_a_step_that_no_run_reaches_is_refused(steps, tmp_path):
    fit(tmp_path, warmed, 3)
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lr_schedulers"][0]["last_epoch"] = steps
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=f"at step {steps}, but must be at a whole number from 0 to 10000000"):
        fit(tmp_path, warmed, 6, resume=True)


def test_a_plateau_keeps_what_it_has_seen_and_takes_the_arguments_of_now(tmp_path):
    def plateau(optimizer, factor):
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": SCHEDULES.ReduceLROnPlateau(optimizer, factor=factor, patience=0, mode="max"),
                "interval": "step",
                "monitor": "zero",
            },
        }

    class Watched(Model):
        def configure_optimizers(self):
            return plateau(torch.optim.AdamW(self.parameters(), **self.arguments), self.schedule)

        def training_step(self, batch, batch_idx):
            self.log("zero", 0.0)
            return super().training_step(batch, batch_idx)

    first = fit(tmp_path, 0.5, 3, model=Watched)
    rest = fit(tmp_path, 0.1, 6, weight_decay=0.5, resume=True, model=Watched)
    # Lightning saves before it asks the schedule, and asks it after each of the next steps
    assert [rate for rate, _ in first + rest] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.005, 0.0005])
    assert rest[0][1] == [0.5]


def test_a_schedule_with_a_step_of_its_own_keeps_the_values_of_the_checkpoint(tmp_path):
    class Own(SCHEDULES.LRScheduler):
        def get_lr(self):
            return [group["lr"] for group in self.optimizer.param_groups]

        def step(self, epoch=None):
            super().step(epoch)
            for group in self.optimizer.param_groups:
                group["lr"] /= 2

    fit(tmp_path, Own, 3)
    assert [rate for rate, _ in fit(tmp_path, Own, 5, lr=3.0, resume=True)] == [0.1 / 16, 0.1 / 32]


def test_a_rate_that_jumps_is_printed_with_the_former_one(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("lit_core.callbacks.present_optimizer.rank_zero_info", said.append)
    fit(tmp_path, partial(WarmupCosine, total_steps=3), 3)
    fit(tmp_path, partial(WarmupCosine, total_steps=6), 6, resume=True)
    assert said == ["The learning rate goes on at 0.05, as it is configured now; in the checkpoint it was 0."]
    fit(tmp_path / "new", COSINE, 2)
    fit(tmp_path / "new", COSINE, 4, resume=True)
    ends = "The run ends after {} of the 6 steps of its schedule, at a learning rate of {}."
    assert said[1:] == [ends.format(2, 0.05), ends.format(4, 0.08536)]


def test_a_run_of_epochs_is_compared_with_its_schedule_too(tmp_path):
    trainer = Trainer(
        default_root_dir=tmp_path, logger=False, max_epochs=2, accelerator="cpu", limit_train_batches=4,
        limit_val_batches=0, callbacks=[PresentOptimizer()], enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, accumulate_grad_batches=2,
    )  # fmt: skip
    said = "is 3, but the run has 4 steps: the last 1 steps are trained at .*; give total_steps as 4."
    with pytest.warns(UserWarning, match=said):
        trainer.fit(Model(partial(WarmupCosine, total_steps=3), 0.1, 0.1), BoringDataModule())


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_is_longer_than_its_schedule_says_at_which_rate_it_ends(tmp_path, resume):
    for number, rate in enumerate((0, 0.01)):
        short = partial(WarmupCosine, total_steps=3, min_lr=rate)
        if resume:
            fit(tmp_path / str(number), short, 3)
        said = f"the last 3 steps are trained at a learning rate of {rate:.4g}; give total_steps as .*, or 6"
        with pytest.warns(UserWarning, match=said) as found:
            fit(tmp_path / str(number), short, 6, resume=resume)
        assert not any("nothing is learned" in str(one.message) for one in found)


def test_a_schedule_of_torchs_that_comes_to_0_for_good_is_reported(tmp_path):
    with pytest.warns(UserWarning, match="The learning rate is 0 since step 2, so nothing is learned"):
        fit(tmp_path, partial(SCHEDULES.PolynomialLR, total_iters=2), 5)
