"""The loss of an optimizer step is the mean over all that it scores, in each package and on several devices."""

import math
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_core.lightning.task import EvaluationTask
from lit_detect import DetectorTask
from lit_detect.detectors import TrainedDetector
from lit_moe import MoELanguageModel, ShardedStrategy
from lit_moe.nn import DecoderConfig, MoEConfig, PenaltyRouter, auxiliary_losses
from lit_valuation import ClassifierTask, MultiLabelTask, RegressionTask, TaggingTask
from lit_valuation.nn import TokenConvNet

sys.path.append(str(Path(__file__).parent / "moe"))
from ranks import on_ranks

IGNORED = -100
#: Scored tokens or samples of each micro-batch; the last two are an incomplete step of the epoch.
COUNTS = [16, 1, 16, 1, 0, 5, 11, 2, 7, 3]


class Bytes(TrainedDetector):
    """A detector that sees the mean of a text's bytes."""

    name, max_tokens = "Bytes", None

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(256, 8), nn.Linear(8, 2)

    def forward(self, texts):
        return self.head(torch.stack([self.embedding(torch.tensor(list(text.encode()))).mean(0) for text in texts]))

    def count_tokens(self, texts):
        return [len(text) for text in texts]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


def draw(*shape, seed, below):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def masked(values, count):
    """Values of which only the first ``count`` are scored."""
    flat = values.clone().flatten()
    flat[count:] = IGNORED
    return flat.view_as(values)


class Language:
    def __init__(self, feed_forward="dense"):
        self.feed_forward = feed_forward

    def model(self):
        config = DecoderConfig(32, n_layers=1, d_model=16, n_heads=2, d_ff=16, feed_forward=self.feed_forward)
        router = lambda n, k: PenaltyRouter(n, k, balance_weight=0.5, z_weight=0.1)  # noqa: E731
        return MoELanguageModel(config, router, sgd)

    def batch(self, number, count):
        ids = draw(2, 9, seed=number, below=32)
        return {"input_ids": ids[:, :-1], "labels": masked(ids[:, 1:], count)}

    def total(self, model, batch):
        """The sum of the losses of a micro-batch."""
        logits = model(batch["input_ids"]).flatten(0, 1)
        scored = batch["labels"] != IGNORED
        nats = F.cross_entropy(logits, batch["labels"].flatten(), ignore_index=IGNORED, reduction="sum")
        return nats + scored.sum() * auxiliary_losses(model.decoder), nats


class Classifier:
    def __init__(self, mask="index", weighted=True):
        self.mask, self.weighted = mask, weighted

    def model(self):
        network = nn.Linear(4, 3)
        nn.init.normal_(network.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(network.bias)
        return self.task(network)

    def task(self, network):
        return ClassifierTask(network, "abc", (4,), sgd, label_smoothing=0.1)

    def targets(self, seed):
        return draw(16, seed=seed, below=3)

    def losses(self, outputs, y):
        return F.cross_entropy(outputs, y, label_smoothing=0.1, reduction="none")

    def batch(self, number, count):
        x, y = draw(16, 4, seed=number, below=9) / 8, self.targets(number + 100)
        index = torch.arange(16)
        batch = {"x": x, "y": y, "index": index}
        if self.mask == "size":  # batches of other sizes, with nothing to mask
            batch = {key: value[: max(count, 1)] for key, value in batch.items()}
        elif self.mask == "label":
            batch["y"] = masked(y, count)
        else:
            batch["index"] = index.where(index < count, -1)
        return batch | ({"weight": 2 * torch.rand(len(batch["x"]))} if self.weighted else {})

    def total(self, model, batch):
        rows = [i for i, y in enumerate(batch["y"].tolist()) if y != IGNORED and batch["index"][i] >= 0]
        each = self.losses(model(batch["x"][rows]), batch["y"][rows])
        total = (each * batch["weight"][rows]).sum() if self.weighted else each.sum()
        return total, total


class MultiLabel(Classifier):
    def task(self, network):
        return MultiLabelTask(network, "abc", (4,), sgd)

    def targets(self, seed):
        return draw(16, 3, seed=seed, below=2).float()

    def losses(self, outputs, y):
        """Nats of each label's probability, summed over the labels."""
        return -torch.where(y == 1, outputs.sigmoid(), 1 - outputs.sigmoid()).log().sum(1)


class Regression(Classifier):
    mean, scale = [4.0, 5.0, 3.0], [2.0, 3.0, 4.0]

    def task(self, network):
        return RegressionTask(network, "abc", (4,), sgd, target_mean=self.mean, target_scale=self.scale)

    def targets(self, seed):
        return draw(16, 3, seed=seed, below=9).float()

    def losses(self, outputs, y):
        """Half the squared error in the units of the columns, each over its squared scale."""
        scale = torch.tensor(self.scale)
        return ((outputs * scale + torch.tensor(self.mean) - y) ** 2 / scale**2).sum(1) / 2


class Tagging(Classifier):
    positions = "mean"

    def task(self, network):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = TokenConvNet((5,), 3, 9, width=4, hidden=(4,))
        return TaggingTask(network, "abc", (5,), sgd, positions=self.positions)

    def batch(self, number, count):
        batch = super().batch(number, count)
        length = len(batch["x"])
        return batch | {"x": draw(16, 5, seed=number, below=9)[:length]}

    def targets(self, seed):
        y = draw(16, 5, seed=seed, below=3)
        y[:, 3:] = IGNORED  # as where a text ends
        return y

    def losses(self, outputs, y):
        """Nats of each tag's probability, over the three tokens that have one."""
        nats = -outputs[:, :3].log_softmax(2).gather(2, y[:, :3, None])[..., 0]
        return nats.mean(1) if self.positions == "mean" else nats.sum(1)


class SummedTagging(Tagging):
    positions = "sum"


class Detector:
    def model(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return DetectorTask(Bytes(), sgd)

    def batch(self, number, count):
        texts = [bytes(row).decode() for row in draw(16, 6, seed=number, below=26).add(97).tolist()]
        index, y = torch.arange(16), draw(16, seed=number + 100, below=2)
        return {"text": texts, "y": y, "index": index.where(index < count, -1)}

    def total(self, model, batch):
        rows = [i for i, index in enumerate(batch["index"].tolist()) if index >= 0]
        logits = model.detector([batch["text"][i] for i in rows]) if rows else torch.zeros(0, 2)
        total = F.cross_entropy(logits, batch["y"][rows], reduction="sum")
        return total, total


MIXTURE = MoEConfig(n_experts=4, top_k=2, expert_width=8)
TASKS = {
    "language": Language(),
    "mixture": Language(MIXTURE),
    "padded and weighted": Classifier(),
    "unlabelled": Classifier("label", weighted=False),
    "of other sizes": Classifier("size"),
    "several labels": MultiLabel(),
    "numbers": Regression(),
    "tags": Tagging(),
    "summed tags": SummedTagging("size"),
    "detector": Detector(),
}
STRATEGIES = {
    "ddp": lambda: "ddp_find_unused_parameters_true",
    "fsdp2": ShardedStrategy,
    "ep": lambda: ShardedStrategy(expert_parallel=2),
}


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()).clone()


class Gradients(Callback):
    """Keeps the gradients of each step as any callback sees them."""

    def __init__(self, path=None):
        self.path, self.steps = path, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append({name: whole(p.grad) for name, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_end(self, trainer, pl_module):
        if self.path is not None and trainer.is_global_zero:
            torch.save(self.steps, self.path)


def batches(task, counts):
    torch.manual_seed(0)
    return [task.batch(number, count) for number, count in enumerate(counts)]


def train(make_trainer, task, counts, accumulation, callback, **settings):
    """Train one epoch; ranks take turns."""
    size = settings.get("devices", 1)
    trainer = make_trainer(
        callback,
        max_steps=-1,
        max_epochs=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        accumulate_grad_batches=accumulation,
        **settings,
    )
    model = task.model()

    class Loaded(type(model)):
        def train_dataloader(self):
            return DataLoader(batches(task, counts)[trainer.global_rank :: size], batch_size=None)

    model.__class__ = Loaded
    trainer.fit(model)


def expected_steps(task, counts, accumulation):
    """Gradients and losses by the definition: all that a step scores in one sum, divided once."""
    model, rows = task.model().train(), batches(task, counts)
    steps = []
    for first in range(0, len(rows), accumulation):
        step = rows[first : first + accumulation]
        if isinstance(task, Classifier) and task.mask == "size":
            scored = sum(len(batch["y"]) for batch in step)
        else:
            scored = sum(counts[first : first + accumulation])
        sums = [task.total(model, batch) for batch in step]
        model.zero_grad()
        (sum(total for total, _ in sums) / scored).backward()
        steps.append(({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, sums, scored))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.5 * parameter.grad
    return steps


def check(found, expected, read_metrics):
    assert len(found) == len(expected) > 0
    for step, (mine, (gradients, _, _)) in enumerate(zip(found, expected, strict=True)):
        for name, gradient in gradients.items():
            torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=2e-6, msg=f"{name} of step {step}")
    losses = [float(sum(loss.detach() for _, loss in sums)) / scored for _, sums, scored in expected]
    assert [value for _, value in read_metrics()["train/loss"]] == pytest.approx(losses, rel=1e-4)


def test_all_tasks_that_train_are_here():
    assert {type(task.model()) for task in TASKS.values()} == set(without_subclasses(EvaluationTask))


def without_subclasses(kind):
    """Yield the classes of ours at the ends of a tree: a base such as `SampleTask` trains nothing by itself."""
    ours = [one for one in kind.__subclasses__() if one.__module__.startswith("lit_")]
    yield from (found for one in ours for found in without_subclasses(one)) if ours else [kind]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_step_is_one_mean(task, make_trainer, read_metrics):
    """With an empty micro-batch, and an incomplete step at the end of the epoch."""
    gradients = Gradients()
    train(make_trainer, task, COUNTS, 4, gradients)
    check(gradients.steps, expected_steps(task, COUNTS, 4), read_metrics)


@pytest.mark.parametrize("task", ["language", "padded and weighted", "detector"])
def test_clipping_sees_the_mean(task, make_trainer, read_metrics):
    """Also where the first micro-batch scores nothing."""
    gradients, counts = Gradients(), [0, 1, 16, 1]
    train(make_trainer, TASKS[task], counts, 4, gradients, gradient_clip_val=1e-3)
    [(expected, _, _)] = expected_steps(TASKS[task], counts, 4)
    norm = float(torch.nn.utils.get_total_norm(list(expected.values())))
    assert norm > 1e-3
    assert read_metrics()["train/gradient_norm"] == [(0, pytest.approx(norm, rel=1e-4))]


SEVERAL = [("padded and weighted", "ddp"), ("detector", "ddp"), ("language", "ddp"), ("mixture", "ep")]
SEVERAL = [(*case, False) for case in SEVERAL] + [("mixture", "ddp", True), ("mixture", "fsdp2", True)]


@pytest.mark.parametrize(
    ("task", "strategy"), [pytest.param(*case, marks=pytest.mark.slow if slow else ()) for *case, slow in SEVERAL]
)
def test_a_step_of_two_devices_is_one_mean(task, strategy, make_trainer, read_metrics, tmp_path):
    counts = COUNTS[:8]

    def fit():
        settings = {"devices": 2, "strategy": STRATEGIES[strategy]()}
        train(make_trainer, TASKS[task], counts, 2, Gradients(tmp_path / "gradients.pt"), **settings)

    on_ranks(fit)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    check(found, expected_steps(TASKS[task], counts, 4), read_metrics)


@pytest.mark.parametrize("task", ["mixture", "unlabelled", "detector"])
def test_a_step_that_scores_nothing_has_no_loss(task, make_trainer, read_metrics):
    """And no gradient, instead of NaN; the next step is as it would be."""
    gradients, counts = Gradients(), [0, 0, 3, 1]
    train(make_trainer, TASKS[task], counts, 2, gradients)
    assert all(gradient.count_nonzero() == 0 for gradient in gradients.steps[0].values())
    assert all(gradient.isfinite().all() for gradient in gradients.steps[1].values())
    (_, first), (_, second) = read_metrics()["train/loss"]
    assert math.isnan(first) and second > 0


def test_equal_counts_leave_each_bit_as_it_is(make_trainer):
    """Of the gradients that Lightning accumulates by itself."""
    task, sums = TASKS["language"], []

    class Plain(MoELanguageModel):
        def step_loss(self, mean, scored):
            return mean

        def on_after_backward(self):
            pass

    for kind in (MoELanguageModel, Plain):
        gradients, model = Gradients(), task.model()
        task_of_kind = Language()
        task_of_kind.model = lambda model=model, kind=kind: setattr(model, "__class__", kind) or model
        train(make_trainer, task_of_kind, [7] * 4, 2, gradients)
        sums.append(gradients.steps)
    for first, second in zip(*sums, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)
