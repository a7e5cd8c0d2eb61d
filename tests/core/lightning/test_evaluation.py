"""Tasks and callbacks that evaluate named sources: which hooks call what, and what is logged under which keys."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from lit_core.lightning.evaluation import EvaluationCallback, log_reduced, named_loader
from lit_core.lightning.task import EvaluationTask

SOURCES = {"austen": [1.0, 3.0], "darwin": [5.0]}


class Means(EvaluationTask):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.dtypes = []

    def mean(self, dtype):
        self.dtypes.append(dtype)
        return MeanMetric()

    def evaluate_batch(self, stage, batch, dataloader_idx):
        _, metric = self.source_metric(stage, dataloader_idx, self.mean)
        metric.update(batch)

    def source_values(self, stage, source, metric):
        return {"mean": metric.compute()}

    def training_step(self, batch, batch_idx):
        return self.weight * batch.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Calls(EvaluationCallback):
    def __init__(self):
        self.calls = []

    def start_evaluation(self, trainer, pl_module, stage):
        self.calls.append(("start", stage))

    def evaluate_batch(self, trainer, pl_module, stage, batch, dataloader_idx):
        self.calls.append((named_loader(trainer, stage, dataloader_idx), float(batch)))

    def end_evaluation(self, trainer, pl_module, stage):
        self.calls.append(("end", stage))
        log_reduced(pl_module, {f"{stage}/calls": float(len(self.calls))})


def loaders():
    return {name: DataLoader(torch.tensor(values), batch_size=1) for name, values in SOURCES.items()}


def trainer(callback, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return Trainer(**quiet, enable_model_summary=False, callbacks=[callback], **options)


@pytest.mark.parametrize(("run", "stage"), [("validate", "val"), ("test", "test")])
def test_each_source_is_measured_and_logged_under_its_name(run, stage):
    callback = Calls()
    (first, second) = getattr(trainer(callback), run)(Means(), loaders(), verbose=False)
    assert callback.calls == [
        ("start", stage), ("austen", 1.0), ("austen", 3.0), ("darwin", 5.0), ("end", stage),
    ]  # fmt: skip
    assert first | second == {f"{stage}/austen/mean": 2.0, f"{stage}/darwin/mean": 5.0, f"{stage}/calls": 5.0}


def test_the_sanity_check_is_not_measured():
    callback = Calls()
    run = trainer(callback, max_epochs=1, num_sanity_val_steps=1)
    run.fit(Means(), DataLoader(torch.ones(1)), loaders())
    assert [call for call in callback.calls if call[0] in ("start", "end")] == [("start", "val"), ("end", "val")]


def test_an_evaluation_has_new_metrics_and_those_are_in_no_checkpoint():
    task, run = Means(), trainer(Calls())
    run.validate(task, loaders(), verbose=False)
    before = dict(task.metrics)
    assert before.keys() == {"val_0", "val_1"} and task.dtypes == [torch.float64] * 2
    run.validate(task, {"austen": loaders()["austen"]}, verbose=False)
    assert task.metrics.keys() == {"val_0"} and task.metrics["val_0"] is not before["val_0"]
    assert task.state_dict().keys() == {"weight"}


def test_a_task_without_evaluate_batch_says_so():
    task = EvaluationTask()
    with pytest.raises(NotImplementedError, match="EvaluationTask must define evaluate_batch"):
        task.validation_step(None, 0)
