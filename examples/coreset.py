"""GradientMatching as a coreset method on Fashion-MNIST: a tenth of the training set, against random at the same cost.

Both train on batches of the same size for the same number of steps, from the same initial weights; only which tenth of
the samples, and their weights, differ. Fetches Fashion-MNIST once. To be run by
`python examples/coreset.py`, about a quarter of an hour on two cores; it writes docs/results/coreset.md.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import lit_core
from lit_core.lightning.schedules import WarmupCosine
from lit_core.study import t_interval
from lit_valuation import ClassifierTask, GradientMatching
from lit_valuation.nn import ConvNet
from lit_valuation.samples import Samples
from lit_valuation.sources import FashionMNIST

METHODS = {
    "all": "the whole training set",
    "random once": "random tenth, class by class, kept",
    "random": "random tenth, class by class, anew at each selection",
    "matching": "GradientMatching, weighted",
}
BATCH = 100


class Pairs(Dataset):
    """Samples as mappings, each with its number."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        return {"x": self.x[index], "y": self.y[index], "index": index}


class RandomSubset(GradientMatching):
    """Chooses at random, class by class, where the other matches gradients; all weights are 1."""

    def _select(self, trainer: pl.Trainer, pl_module: pl.LightningModule):  # noqa: ANN202
        from lit_valuation.callbacks.coreset import Coreset
        from lit_valuation.selectors import split_budget

        y = trainer.datamodule.train.y
        generator = torch.Generator().manual_seed(self.seed * 1000 + trainer.current_epoch)
        chosen = []
        for c, budget in split_budget(round(self.budget * len(y)), y, y).items():
            members = (y == c).nonzero()[:, 0]
            chosen.append(members[torch.randperm(len(members), generator=generator)[:budget]])
        numbers = torch.cat(chosen)
        return Coreset(numbers, torch.ones(len(numbers)), residual=math.nan, coverage=1.0)


class Fashion(pl.LightningDataModule):
    """The training set, and the test set that no choice looks at."""

    def __init__(self, samples: Samples, seed: int) -> None:
        super().__init__()
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
        self.classes, self.seed = samples.classes, seed
        train, test = samples.take(order[:60_000]), samples.take(order[60_000:])
        self.train, self.test = Pairs(train.x, train.y), Pairs(test.x, test.y)

    def train_dataloader(self) -> DataLoader:
        """Return all of it, in another order in each epoch."""
        return DataLoader(self.train, BATCH, shuffle=True, generator=torch.Generator().manual_seed(self.seed))

    def selection_dataloader(self) -> DataLoader:
        """Return all of it in its order."""
        return DataLoader(self.train, 1000)

    def test_dataloader(self) -> dict[str, DataLoader]:
        """Return the test set."""
        return {"test": DataLoader(self.test, 1000)}


def run(samples: Samples, method: str, seed: int, steps: int, every: int) -> tuple[float, float]:
    """Return test accuracy and seconds of one training."""
    data = Fashion(samples, seed)
    task = ClassifierTask(
        lambda shape, classes: ConvNet(shape, classes, (16, 32), 64),
        data.classes,
        tuple(samples.x.shape[1:]),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4),
        scheduler=lambda optimizer: WarmupCosine(optimizer, steps, warmup=0.05),
        seed=seed,
    )
    callback = {
        "random once": RandomSubset(0.1, every_n_epochs=10**6, seed=seed),
        "random": RandomSubset(0.1, every_n_epochs=every, seed=seed),
        "matching": GradientMatching(0.1, every_n_epochs=every, seed=seed),
    }.get(method)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        callbacks=[callback] if callback else [],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    start = time.perf_counter()
    trainer.fit(task, datamodule=data)
    seconds = time.perf_counter() - start
    [values] = trainer.test(task, datamodule=data, verbose=False)
    return values["test/test/accuracy"], seconds


def main() -> None:
    """Train and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="Number of seeds, 2 or more.")
    parser.add_argument("--steps", type=int, default=1800, help="Optimizer steps of a training.")
    parser.add_argument("--every", type=int, default=10, help="Epochs of 60 steps between two selections.")
    parser.add_argument("--output", type=Path, default=Path("docs/results/coreset.md"), help="Markdown file.")
    options = parser.parse_args()
    samples = FashionMNIST().samples()
    results: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for seed in range(options.seeds):
        for method, found in results.items():
            found.append(run(samples, method, seed, options.steps, options.every))
            print(f"seed {seed}, {method}: accuracy {found[-1][0]:.4f}, {found[-1][1]:.0f} s", flush=True)
    options.output.write_text(report(results, options))
    print(f"Wrote {options.output}")


def report(results: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> str:
    """Put the results into Markdown."""
    lines = [
        "# A tenth of Fashion-MNIST",
        "",
        f"Test accuracy of a small ConvNet after {options.steps} steps of {BATCH} samples; subsets have 6,000 of the",
        f"60,000 training samples and are chosen every {options.every} epochs. All take the same steps. Means over",
        f"{options.seeds} seeds with 95 % intervals (Student's t); seconds of the quickest, selections included.",
        "",
        "| trained on | accuracy | seconds |",
        "|---|---|---|",
    ]
    for method, found in results.items():
        sure = t_interval([accuracy for accuracy, _ in found])
        seconds = min(seconds for _, seconds in found)
        lines.append(f"| {METHODS[method]} | {sure.mean:.4f} ± {sure.high - sure.mean:.4f} | {seconds:.0f} |")
    for other in ("random once", "random"):
        sure = t_interval([a - b for (a, _), (b, _) in zip(results["matching"], results[other], strict=True)])
        says = "better" if sure.low > 0 else "worse" if sure.high < 0 else "not distinguishable"
        lines += ["", f"**GradientMatching minus {METHODS[other]}:** {sure.mean:+.4f}, 95 % interval"]
        lines += [f"{sure.low:+.4f} to {sure.high:+.4f} (paired over {sure.n} seeds): {says}."]
    command = f"python examples/coreset.py --seeds {options.seeds} --steps {options.steps} --every {options.every}"
    versions = f"LitShift {lit_core.__version__}, torch {torch.__version__}"
    return "\n".join([*lines, "", f"`{command}`; {versions}.", ""])


if __name__ == "__main__":
    main()
