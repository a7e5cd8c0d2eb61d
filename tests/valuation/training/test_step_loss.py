"""A loss that only a module's own training_step knows is compared with the one whose gradients are taken."""

import ast
from pathlib import Path

import pytest
import torch
from digits_data import digits
from own_digits import Digits, Mapped
from own_llama import Llama
from torch import nn
from torch.nn import functional as F

import lit_valuation
from lit_core.errors import UserError
from lit_valuation import ClassifierTask
from lit_valuation.nn import MLP
from lit_valuation.samples import NEXT_TOKEN, Samples, next_tokens
from lit_valuation.training.step_loss import check_step_loss

NAMES = tuple("0123456789")
X, Y = (tensor[:70] for tensor in digits())
SAMPLES = Samples(X, Y, NAMES, tuple(f"{number:03d}" for number in range(70)))
LABELS = Samples(X, torch.stack([Y % 2, Y // 5], 1).float(), ("odd", "large"), SAMPLES.keys, target="labels")


class Step(Digits):
    """A module whose step has a loss of its own, of logits and targets."""

    def __init__(self, step, n_classes=10, **attributes):
        super().__init__(n_classes=n_classes)
        self.step = step
        for name, value in attributes.items():
            setattr(self, name, value)

    def training_step(self, batch, batch_idx):
        return self.step(self, self(batch[0]), batch[1])


def focal(module, z, y):
    return ((1 - z.softmax(1).gather(1, y[:, None])[:, 0]) ** 2 * F.cross_entropy(z, y, reduction="none")).mean()


def penalised(module, z, y):
    return 3 * F.cross_entropy(z, y) + 0.01 * sum(weight.square().sum() for weight in module.parameters())


@pytest.fixture(autouse=True)
def seed(seeded):
    """The weights of modules are those of a seed."""


@pytest.mark.parametrize(
    "module",
    [
        lambda: Digits(),
        lambda: Mapped(),
        lambda: Step(penalised),
        lambda: Step(lambda module, z, y: {"loss": F.cross_entropy(z, y, reduction="sum"), "z": z}),
        lambda: Step(lambda module, z, y: module.loss(z, y), loss=nn.CrossEntropyLoss(label_smoothing=0.2)),
        lambda: Step(lambda module, z, y: F.cross_entropy(z, y, label_smoothing=0.1), label_smoothing=0.1),
        lambda: ClassifierTask(MLP, NAMES, (1, 8, 8)),
    ],
)
@pytest.mark.parametrize("n", [3, 70])
def test_a_module_that_trains_with_its_loss_passes_without_a_word(module, n, capsys):
    task = module()
    before = [weight.clone() for weight in task.parameters()]
    check_step_loss(task, SAMPLES.take(range(n)))
    assert "Note" not in capsys.readouterr().err
    assert all(torch.equal(old, new) for old, new in zip(before, task.parameters(), strict=True))


@pytest.mark.parametrize(
    "step",
    [
        focal,
        lambda module, z, y: F.cross_entropy(z, y, weight=torch.linspace(0.2, 3, 10)),
        lambda module, z, y: F.cross_entropy(z, y, label_smoothing=0.1),
        lambda module, z, y: F.multi_margin_loss(z, y),
        lambda module, z, y: -F.cross_entropy(z, y),
        lambda module, z, y: F.mse_loss(z, F.one_hot(y, 10).float()),
    ],
)
@pytest.mark.parametrize("steps", [0, 60])
def test_another_loss_is_refused_with_both_numbers(step, steps):
    task = Step(step)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.2)
    for _ in range(steps):  # of a trained model, most losses are small
        optimizer.zero_grad()
        F.cross_entropy(task(X), Y).backward()
        optimizer.step()
    with pytest.raises(UserError, match=r"Step returns a loss of \S+ on a batch whose cross_entropy is \S+, and"):
        check_step_loss(task, SAMPLES)


def test_a_name_of_the_nearest_loss_is_the_user_s_word(capsys):
    check_step_loss(Step(focal, loss="cross_entropy"), SAMPLES)
    assert "the gradients are those of cross_entropy, as its attribute `loss` says" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("loss", "step", "passes"),
    [
        ("logistic", lambda module, z, y: F.binary_cross_entropy_with_logits(z, y), True),
        (nn.MSELoss(), lambda module, z, y: module.loss(z, y), True),
        (nn.MSELoss(), lambda module, z, y: F.l1_loss(z, y), False),
        (nn.BCEWithLogitsLoss(), lambda module, z, y: F.multilabel_soft_margin_loss(z, y) ** 2, False),
    ],
)
def test_losses_of_labels_and_values_are_compared_up_to_their_factor(loss, step, passes):
    task = Step(step, n_classes=2, loss=loss)
    if passes:
        check_step_loss(task, LABELS)
    else:
        with pytest.raises(UserError, match="trains with another loss"):
            check_step_loss(task, LABELS)


class NeedsTrainer(Digits):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1]) / self.trainer.world_size


class Manual(Digits):
    automatic_optimization = False


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (NeedsTrainer, "is not attached to a `Trainer`"),
        (Manual, "steps its optimizers itself"),
        (lambda: Step(lambda module, z, y: None), "returns NoneType, not one finite loss"),
        (lambda: Step(lambda module, z, y: F.cross_entropy(z + torch.rand_like(z), y)), "draws at random"),
    ],
)
def test_what_cannot_be_compared_is_said(module, reason, capsys):
    check_step_loss(module(), SAMPLES)
    said = capsys.readouterr().err
    assert "trains with the loss cross_entropy, whose gradients are taken, was not checked" in said
    assert reason in said


def test_dropout_is_off(capsys):
    task = Digits()
    task.net.insert(1, nn.Dropout(0.5))
    check_step_loss(task.train(), SAMPLES)
    assert "not checked" not in capsys.readouterr().err and task.training


def test_no_verb_fits_a_model_to_samples_without_the_check():
    root = Path(lit_valuation.__file__).parent
    users = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and "fitted" in {name.name for name in node.names}
    }
    assert users == {"training/step_loss.py"}


def test_of_texts_it_is_said_that_the_loss_was_not_checked(capsys):
    x = torch.arange(40).reshape(4, 10)
    texts = Samples(x, next_tokens(x), (NEXT_TOKEN,), tuple("abcd"), target="text")
    check_step_loss(Llama(), texts)
    said = capsys.readouterr().err
    assert "was not checked: texts have a target per token" in said and "without shifting again" in said
